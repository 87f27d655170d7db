"""Faults at the system calls of a manager: slow syncs, one that fails or is never reached, no files left to open."""

from __future__ import annotations

import asyncio
import itertools
import re
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chaos.cluster.base import Processes
from chaos.cluster.steps import faulted, in_thread
from chaos.cluster.strace import EIO, KILL, Tracer, delay, inject
from chaos.errors import Unsettled
from chaos.safety.identity import Born, born
from chaos.safety.ledger import Armed, Ledger
from chaos.safety.undo import FileLimit, Kill

SEGMENTS = 100  # that a manager may begin while it is traced
SEGMENT = re.compile(r"(/.*/journal)/([0-9]{16})\.log")
END_PATIENCE_S = 30.0
JOURNAL_PATIENCE_S = 5.0
POLL_S = 0.05


class StraceSyncs:
    """Implements `Syncs`, by strace and by limits of processes."""

    def __init__(self, ledger: Ledger, processes: Processes) -> None:
        self._ledger = ledger
        self._processes = processes

    @asynccontextmanager
    async def slow(self, manager: str, delay_ms: int, seconds: float) -> AsyncIterator[None]:
        tracer = Tracer(self._born(manager).pid, inject("fdatasync", delay(delay_ms)))
        async with self._traced(tracer, f"every fdatasync of {manager} takes {delay_ms} ms longer", seconds):
            yield

    @asynccontextmanager
    async def failing(self, manager: str, nth: int, seconds: float) -> AsyncIterator[None]:
        """Of its journal: a failed sync of a snapshot is nothing that a manager must stop for."""
        async with self._at_sync(manager, EIO, nth, f"fdatasync {nth} of {manager}'s journal fails", seconds):
            yield

    @asynccontextmanager
    async def killed(self, manager: str, nth: int, seconds: float) -> AsyncIterator[None]:
        """Of its journal."""
        what = f"SIGKILL to {manager} in front of fdatasync {nth} of its journal"
        async with self._at_sync(manager, KILL, nth, what, seconds):
            yield

    @asynccontextmanager
    async def starved(self, manager: str, spare: int, seconds: float) -> AsyncIterator[None]:
        process = self._born(manager)
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        undo = FileLimit(process, soft, hard)

        def harm() -> None:
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit_for(process.pid, spare), hard))

        async with faulted(self._ledger, undo, f"{manager} may open {spare} more files", seconds, harm):
            yield

    @asynccontextmanager
    async def _at_sync(self, manager: str, fault: str, nth: int, what: str, seconds: float) -> AsyncIterator[None]:
        """Whom it ends, if it was reached, has ended and is started again when this is left."""
        pid = self._born(manager).pid
        tracer = Tracer(pid, inject("fdatasync", fault, when=nth, files=await in_thread(lambda: journal_files(pid))))
        try:
            async with self._traced(tracer, what, seconds):
                yield
        finally:
            if tracer.fired:
                await self._wait_for_end(manager)
            if self._processes.pid(manager) is None:
                await self._processes.start(manager)

    @asynccontextmanager
    async def _traced(self, tracer: Tracer, what: str, seconds: float) -> AsyncIterator[None]:
        armed: list[Armed] = []
        try:
            await in_thread(lambda: tracer.attach(lambda it: armed.append(self._ledger.arm(Kill(it), what, seconds))))
            yield
        finally:
            await in_thread(tracer.detach)
            for each in armed:
                each.strike_off()

    async def _wait_for_end(self, manager: str) -> None:
        try:
            async with asyncio.timeout(END_PATIENCE_S):
                while self._processes.pid(manager) is not None:  # noqa: ASYNC110 - nothing tells when
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise Unsettled(
                f"{manager} goes on {END_PATIENCE_S:.0f} s after a sync of its journal failed",
                "a manager must stop then: see its log in the report, and tell us",
            ) from None

    def _born(self, manager: str) -> Born:
        pid = self._processes.pid(manager)
        process = born(pid) if pid is not None else None
        if process is None:
            raise Unsettled(f"{manager} is down and can't be traced", "start it first")
        return process


def journal_files(pid: int) -> list[Path]:
    """The segment that a manager writes, and those that it will; also as they are called while they are made.

    Raises Unsettled if it has none open.
    """
    deadline = time.monotonic() + JOURNAL_PATIENCE_S
    while (found := _open_segment(pid)) is None:  # between two of them, or not begun
        if time.monotonic() > deadline:
            raise Unsettled(f"process {pid} has no journal open", "see its log: a manager that has begun writes one")
        time.sleep(POLL_S)
    folder, first = Path(found.group(1)), int(found.group(2))
    names = [f"{number:016d}.log" for number in range(first, first + SEGMENTS)]
    return [folder / each for name in names for each in (name, f"{name}.tmp")]


def _open_segment(pid: int) -> re.Match[str] | None:
    for number in open_files(pid):
        try:
            found = SEGMENT.match(str(Path(f"/proc/{pid}/fd/{number}").readlink()))
        except OSError:  # closed meanwhile
            continue
        if found is not None:
            return found
    return None


def open_files(pid: int) -> list[int]:
    """Their numbers. Raises OSError."""
    return [int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()]


def limit_for(pid: int, spare: int) -> int:
    """The limit of open files at which so many more can be opened. New ones take the lowest numbers that are free."""
    taken = dict.fromkeys(open_files(pid))
    free = (number for number in itertools.count() if number not in taken)
    return next(itertools.islice(free, spare, None))
