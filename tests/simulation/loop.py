"""An event loop for one process of a simulated host, on the world's heap of events.

It is as much of an asyncio loop as the product uses. Work for a thread runs on the loop, after as long as the host's disk
takes. A process that is paused runs nothing until it goes on; one that has died runs nothing ever again, and whatever its
coroutines do when they are collected reaches nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.clocks import HostClock
    from tests.simulation.world import World

TURN_S = 20e-6  # what one round of ready callbacks takes


class Handle:
    """A callback that is ready, or will be. Contexts aren't kept: nothing here uses them."""

    __slots__ = ("args", "callback", "done", "when_s")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], when_s: float = 0.0) -> None:
        self.callback = callback
        self.args = args
        self.when_s = when_s
        self.done = False

    def cancel(self) -> None:
        self.done = True

    def cancelled(self) -> bool:
        return self.done

    def when(self) -> float:
        return self.when_s


class NumberedTask(asyncio.Task):  # type: ignore[type-arg]
    """Its hash is its number, so that sets of tasks have one order in every process."""

    def __init__(self, coro: Coroutine[Any, Any, Any], loop: HostLoop, name: str) -> None:
        self.number = loop.world.next_number()
        super().__init__(coro, loop=loop, name=name)

    def __hash__(self) -> int:
        return self.number


class HostLoop(asyncio.AbstractEventLoop):
    """One life of a process. `name` is its host's; `disk_delay` draws how long work for a thread takes, in seconds."""

    def __init__(self, world: World, name: str, clock: HostClock, disk_delay: Callable[[], float]) -> None:
        self.world = world
        self.name = name
        self.clock = clock
        self.dead = False
        self.open = False  # it has begun its work
        self.paused = False
        self.tasks: list[NumberedTask] = []
        self._most_tasks = 100
        self._disk_delay = disk_delay
        self._ready: deque[Handle] = deque()
        self._turn_due = False
        self._in_turn = False
        self._busy: dict[object, float] = {}  # by executor, until when it works on what it was given

    # --- time and callbacks ---

    def time(self) -> float:
        return self.clock.monotonic()

    def call_soon(self, callback: Callable[..., object], *args: Any, context: object = None) -> Handle:
        handle = Handle(callback, args)
        if not self.dead:
            self._ready.append(handle)
            if not (self._turn_due or self._in_turn or self.paused):
                self._turn_due = True
                self.world.after(TURN_S, self._turn)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: object = None) -> Handle:
        return self.call_at(self.clock.monotonic() + delay, callback, *args)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: object = None) -> Handle:
        handle = Handle(callback, args, when)
        if not self.dead:
            self.world.at(self.clock.due(when), self._expire, handle)
        return handle

    def _expire(self, handle: Handle) -> None:
        if handle.done or self.dead:
            return
        if self.clock.peek() < handle.when_s - 1e-6:  # its clock has been slowed down since
            self.world.at(self.clock.due(handle.when_s), self._expire, handle)
        else:
            self._ready.append(handle)
            self.run_ready()

    def deliver(self, callback: Callable[..., object], *args: Any) -> None:
        """Something from outside arrives for this process: now, or when it goes on."""
        if not self.dead:
            self._ready.append(Handle(callback, args))
            self.run_ready()

    def run_ready(self) -> None:
        if not (self._turn_due or self._in_turn):
            self._turn()

    def _turn(self) -> None:
        """Run what is ready, once; what that makes ready is for the next turn, which follows at once if nothing else is due."""
        self._turn_due = False
        if self.dead or self.paused:
            return
        world, ready = self.world, self._ready
        outer = world.running
        world.running = self
        self._in_turn = True
        events._set_running_loop(self)
        try:
            while True:
                for _ in range(len(ready)):
                    handle = ready.popleft()
                    if not handle.done:
                        handle.done = True
                        try:
                            handle.callback(*handle.args)
                        except Exception as error:
                            self.call_exception_handler({"message": "a callback failed", "exception": error})
                        if self.dead or self.paused:
                            return
                if not ready or not world.skip(TURN_S):
                    break
        finally:
            self._in_turn = False
            world.running = outer
            events._set_running_loop(outer)
        if ready and not self.dead and not self.paused:
            self._turn_due = True
            world.after(TURN_S, self._turn)

    # --- life ---

    def pause(self) -> None:
        self.paused = True

    def go_on(self) -> None:
        if self.paused:
            self.paused = False
            if self._ready and not (self.dead or self._turn_due):
                self._turn_due = True
                self.world.after(TURN_S, self._turn)

    def die(self) -> None:
        """Nothing of this process happens any more. Its coroutines stay as they are until the world is closed."""
        self.dead = True
        self._ready.clear()

    def bury(self) -> None:
        """Close the coroutines of a dead process, in one order, so that the collector needn't.

        A coroutine that waits again in a `finally` is closed again.
        """
        assert self.dead
        events._set_running_loop(self)
        for task in self.tasks:
            task._log_destroy_pending = False
            coro = task.get_coro()
            while coro.cr_frame is not None:
                with contextlib.suppress(BaseException):
                    coro.close()
        events._set_running_loop(None)
        self.tasks.clear()

    # --- futures, tasks, threads ---

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: object = None
    ) -> NumberedTask:
        task = NumberedTask(coro, self, name or "task")
        if len(self.tasks) >= self._most_tasks:
            self.tasks = [each for each in self.tasks if not each.done()]
            self._most_tasks = 2 * len(self.tasks) + 100
        self.tasks.append(task)
        return task

    def run_in_executor(self, executor: object, work: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """What is given to one executor is done in order, in as long as the disk takes, at the end of that time."""
        future = self.create_future()
        begins = max(self.world.now, self._busy.get(executor, 0.0)) if executor is not None else self.world.now
        ends = begins + self._disk_delay()
        if executor is not None:
            self._busy[executor] = ends
        self.world.at(ends, self.deliver, self._work, future, work, args)
        return future

    def _work(self, future: asyncio.Future[Any], work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            result = work(*args)
        except BaseException as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    # --- the network ---

    async def create_server(self, factory: Callable[[], Any], host: str, port: int, *, ssl: Any, **_: Any) -> Any:
        return self.world.network.listen(self, port, factory, ssl)

    async def create_connection(
        self, factory: Callable[[], Any], host: str, port: int, *, ssl: Any, server_hostname: str, **_: Any
    ) -> tuple[Any, Any]:
        return await self.world.network.connect(self, host, port, factory, ssl, server_hostname)

    # --- what asyncio asks of a loop ---

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.dead

    def is_closed(self) -> bool:
        return self.dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            self.world.complain(self.name, context.get("message", ""), context.get("exception"))
