"""What a drill is played on: its cluster, a client of it, and the evidence that it leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from chaos.cluster.base import Cluster
from hasched.client.aio import AsyncClient
from hasched.model.errors import HaschedError

T = TypeVar("T")

POLL_S = 0.05
PATIENCE_S = 60.0


class Unmet(Exception):
    """An expectation that was not met: the sentence, and what was seen instead."""


class Evidence(msgspec.Struct, frozen=True):
    """What was done or seen, and when: seconds since the drill began."""

    at_s: float
    text: str


class Scene:
    """`client` retries over all managers, like any user's."""

    def __init__(self, cluster: Cluster, client: AsyncClient) -> None:
        self.cluster = cluster
        self.client = client
        self.evidence: list[Evidence] = []
        self._zero = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self._zero

    def show(self, text: str) -> None:
        """What was done, or seen."""
        self.evidence.append(Evidence(round(self.now(), 3), text))

    def expect(self, met: bool, text: str, seen: object = None) -> None:
        """`text` is what must be so. Raises Unmet with what was seen instead."""
        if not met:
            raise Unmet(f"expected: {text}" + (f"; seen: {_plain(seen)}" if seen is not None else ""))
        self.show(text + (f" ({_plain(seen)})" if seen is not None else ""))

    async def eventually(
        self,
        what: str,
        probe: Callable[[], Awaitable[T | None]],
        patience_s: float = PATIENCE_S,
        seen: Callable[[], str] | None = None,
    ) -> T:
        """The first truthy answer. Errors of the API count as none. Raises Unmet, with what `seen` says was there instead."""
        until = time.monotonic() + patience_s
        last: object = None
        while time.monotonic() < until:
            try:
                answer = await probe()
                if answer:
                    return answer
                last = answer
            except HaschedError as error:
                last = error.cause
            await asyncio.sleep(POLL_S)
        if not last and seen is not None:
            last = seen()
        raise Unmet(f"waited {patience_s:.0f} s in vain for {what}; last seen: {last or 'nothing'}")


def _plain(seen: object) -> str:
    """As a person writes it."""
    match seen:
        case dict():
            return ", ".join(f"{key}: {value}" for key, value in seen.items()) or "none"
        case list():
            return ", ".join(map(str, seen)) or "none"
        case _:
            return str(seen)
