"""What the asynchronous client does while a manager is slow to answer: it asks whether the manager lives at all.

Why: see `connection.py`, which does the same for the synchronous client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from hasched.client.policy import LIFE_TIMEOUT_S, QUIET_S


class Lives:
    """Asks managers whether they live; calls that wait for the same one share a question. `ask` may fail with OSError."""

    def __init__(self, ask: Callable[[str], Awaitable[None]]) -> None:
        self._ask = ask
        self._under_way: dict[str, asyncio.Task[bool]] = {}

    async def lives(self, url: str) -> bool:
        task = self._under_way.get(url)
        if task is None:
            task = self._under_way[url] = asyncio.create_task(self._find_out(url))
            task.add_done_callback(lambda _: self._under_way.pop(url))
        return await asyncio.shield(task)

    async def _find_out(self, url: str) -> bool:
        try:
            async with asyncio.timeout(LIFE_TIMEOUT_S):
                await self._ask(url)
        except OSError:
            return False
        return True

    async def close(self) -> None:
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Vigil:
    """A context in which a call to `url` may take `timeout_s`, and less if the manager turns out not to live.

    Raises TimeoutError then. `begin` when the request is on its way: before that, connecting has its own timeout.
    """

    def __init__(self, lives: Lives, url: str, timeout_s: float) -> None:
        self._lives = lives
        self._url = url
        self._limit = asyncio.timeout(timeout_s)
        self._quiet_s = QUIET_S
        self._timer: asyncio.TimerHandle | None = None
        self._question: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Vigil:
        await self._limit.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._question is not None:
            self._question.cancel()
        await self._limit.__aexit__(kind, error, trace)

    @property
    def begun(self) -> bool:
        return self._timer is not None

    def begin(self) -> None:
        if self._timer is None:
            self._wait()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._quiet_s, self._wonder)
        self._quiet_s *= 2

    def _wonder(self) -> None:
        self._question = asyncio.create_task(self._find_out())

    async def _find_out(self) -> None:
        if await self._lives.lives(self._url):
            self._wait()
        else:
            self._limit.reschedule(asyncio.get_running_loop().time())
