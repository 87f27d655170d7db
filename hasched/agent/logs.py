"""Reading the tasks' logs, and removing those of attempts that ended long ago.

An offset counts from the first byte that the attempt ever wrote. The oldest bytes of a large log may be gone (`holes`): a
read from before the first byte that is kept begins there, and says so.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import structlog

from hasched.agent import holes
from hasched.model.ids import AttemptId, TaskId
from hasched.model.wire import LogChunk, LogRead

CHUNK_BYTES = 64 * 1024
FOLLOW_INTERVAL_S = 0.1
MAX_READS = 1024  # at once
SETTLED_S = 60  # nothing younger is removed, whatever the bounds say
STREAMS = ("stdout", "stderr")
JOB = re.compile(r"[0-9]+")  # the directories that are ours; a task may have made others beside them
ATTEMPT = re.compile(r"([0-9]+)\.([0-9]+)")
_log = structlog.get_logger(__name__)


class Piece(NamedTuple):
    offset: int
    data: bytes
    first_offset: int


class LogServer:
    """Answers `LogRead`s, each in a task of its own: reads are rare beside attempts."""

    def __init__(
        self,
        data_dir: Path,
        is_active: Callable[[AttemptId], bool],
        latest_attempt: Callable[[TaskId], int],
        send: Callable[[LogChunk], Awaitable[None]],
    ) -> None:
        self._attempts = data_dir / "attempts"
        self._is_active = is_active
        self._latest_attempt = latest_attempt
        self._send = send
        self._reads: dict[int, asyncio.Task[None]] = {}

    def start(self, request: LogRead) -> None:
        if len(self._reads) >= MAX_READS:
            reading = self._refuse(request, "this node answers too many log reads at the moment")
        else:
            reading = self._answer(request)
        task = asyncio.create_task(reading)
        self._reads[request.request] = task
        task.add_done_callback(lambda done: self._done(request.request, done))

    def cancel(self, request: int) -> None:
        task = self._reads.get(request)
        if task is not None:
            task.cancel()

    def cancel_all(self) -> None:
        for task in self._reads.values():
            task.cancel()

    def _done(self, request: int, task: asyncio.Task[None]) -> None:
        if self._reads.get(request) is task:
            del self._reads[request]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("log_read_failed", request=request, cause=repr(error))

    async def _answer(self, request: LogRead) -> None:
        if request.stream not in STREAMS:
            return await self._refuse(request, f"there is no stream {request.stream!r}")
        key = await self._find(request)
        if key is None:
            return await self._refuse(request, "this node holds no log of that attempt")
        path = self._attempts / str(key.job_id) / f"{key.index}.{key.attempt}" / request.stream
        try:
            await self._copy(request, key, path)
        except OSError as error:
            await self._refuse(request, f"the log can't be read: {error.strerror}")

    async def _find(self, request: LogRead) -> AttemptId | None:
        number = request.attempt or self._latest_attempt(TaskId(request.job_id, request.index))
        if number == 0:
            number = await asyncio.to_thread(self._latest_on_disk, request.job_id, request.index)
        key = AttemptId(request.job_id, request.index, number)
        directory = self._attempts / str(key.job_id) / f"{key.index}.{key.attempt}"
        return key if number > 0 and (self._is_active(key) or directory.is_dir()) else None

    def _latest_on_disk(self, job_id: int, index: int) -> int:
        found = (ATTEMPT.fullmatch(path.name) for path in (self._attempts / str(job_id)).glob(f"{index}.*"))
        return max((int(name[2]) for name in found if name is not None), default=0)

    async def _copy(self, request: LogRead, key: AttemptId, path: Path) -> None:
        """Send from the offset to the end or the limit, and wait for more as long as the attempt runs."""
        offset, left = request.offset, request.limit or None
        while True:
            active = self._is_active(key)  # asked before the read: what it wrote until its end is then read, too
            size = CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)
            piece = await asyncio.to_thread(read_piece, path, offset, size)
            offset = piece.offset + len(piece.data)
            if left is not None:
                left -= len(piece.data)
            at_end = left == 0 or (not piece.data and not (request.follow and active))
            if piece.data or at_end:
                await self._send(LogChunk(request.request, piece.offset, piece.data, piece.first_offset, at_end))
            if at_end:
                return
            if not piece.data:
                await asyncio.sleep(FOLLOW_INTERVAL_S)

    async def _refuse(self, request: LogRead, cause: str) -> None:
        await self._send(LogChunk(request.request, max(0, request.offset), b"", 0, True, cause))


def read_piece(path: Path, offset: int, size: int) -> Piece:
    """Up to `size` bytes from `offset` (negative: from the end) or from the first byte that is kept. Raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return Piece(max(0, offset), b"", 0)  # not started yet, or never
    try:
        if offset < 0:
            offset = max(0, os.fstat(fd).st_size + offset)
        while True:
            first = holes.first_offset(fd)
            offset = max(offset, first)
            data = os.pread(fd, size, offset)
            if holes.first_offset(fd) <= offset or not data:
                return Piece(offset, data, first)
            # A hole was punched under the read, so it may have seen zeros: again, from what is left.
    finally:
        os.close(fd)


class Retention:
    """Removes the directories of ended attempts, the oldest first, until age and size are within bounds.

    Tasks can write beside their own directories: what has another name than ours is left alone, and what can't be read
    or removed keeps nothing else from being removed.
    """

    def __init__(self, data_dir: Path, keep_ms: int, keep_bytes: int) -> None:
        self._attempts = data_dir / "attempts"
        self._keep_s = keep_ms / 1000
        self._keep_bytes = keep_bytes
        self._complaints: dict[str, None] = {}  # of the last pass: each is logged once

    def sweep(self, active: frozenset[AttemptId]) -> int:
        """One pass, in any thread. Returns how many directories were removed."""
        now_s = time.time()
        known, self._complaints = self._complaints, {}
        found = sorted(self._measure(active), key=lambda each: each[0])
        total_bytes = sum(size for _, size, _ in found)
        removed = 0
        for ended_s, size, path in found:
            age_s = now_s - ended_s
            if age_s < SETTLED_S or (age_s <= self._keep_s and total_bytes <= self._keep_bytes):
                break
            try:
                shutil.rmtree(path)
            except OSError as error:
                self._complain(error)
                continue
            total_bytes -= size
            removed += 1
        for job in self._attempts.iterdir() if removed else ():
            try:
                job.rmdir()
            except OSError:
                continue  # not empty, or not ours
        for complaint in self._complaints:
            if complaint not in known:
                _log.error("logs_not_removed", cause=complaint)
        return removed

    def _measure(self, active: frozenset[AttemptId]) -> list[tuple[float, int, Path]]:
        """(last written, bytes used on disk, directory) of each attempt that may be removed."""
        found = []
        for job in self._directories(self._attempts, JOB):
            for path in self._directories(job, ATTEMPT):
                index, _, number = path.name.partition(".")
                if AttemptId(int(job.name), int(index), int(number)) not in active:
                    try:
                        found.append((*_measure(path), path))
                    except OSError as error:
                        self._complain(error)
        return found

    def _directories(self, parent: Path, name: re.Pattern[str]) -> list[Path]:
        try:
            return [
                Path(entry.path)
                for entry in os.scandir(parent)
                if name.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ]
        except OSError as error:
            self._complain(error)
            return []

    def _complain(self, error: OSError) -> None:
        self._complaints[str(error)] = None


def _measure(attempt: Path) -> tuple[float, int]:
    """When a log of the attempt was written last, and the bytes that its directory uses on disk. Raises OSError."""
    status = attempt.lstat()
    used, written_s = status.st_blocks * 512, status.st_mtime
    for folder, _, names in os.walk(attempt):
        for name in names:
            inside = os.lstat(Path(folder, name))
            used += inside.st_blocks * 512
            written_s = max(written_s, inside.st_mtime) if name in STREAMS else written_s
    return written_s, used
