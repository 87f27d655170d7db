"""Whether this node can start tasks. After a failure of its own it wants no more work until its storage works again.

Otherwise a node with a broken disk would end every task in a moment, look idle, and draw the whole queue to itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import structlog

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 60.0
STEADY_S = 120.0  # a failure so long after the last one begins with the first pause again
PROBE_BYTES = 256 * 1024
_log = structlog.get_logger(__name__)


class Health:
    """Told of failures by `failed`; `run` probes and recovers. `on_change` is called whenever `accepts` has changed."""

    def __init__(self, data_dir: Path, on_change: Callable[[], None], probe: Callable[[Path], None]) -> None:
        self._data_dir = data_dir
        self._probe = probe
        self._on_change = on_change
        self._failed = asyncio.Event()

    @property
    def accepts(self) -> bool:
        return not self._failed.is_set()

    def failed(self, cause: str) -> None:
        """This node, not a job, is why a task could not start."""
        if self.accepts:
            _log.error("node_failed", cause=cause)
            self._failed.set()
            self._on_change()

    async def run(self) -> None:
        """Until cancelled. A failure that the probe doesn't see comes again, so pauses grow from one to the next."""
        loop = asyncio.get_running_loop()
        pause_s, recovered_s = FIRST_PAUSE_S, -STEADY_S
        while True:
            await self._failed.wait()
            if loop.time() - recovered_s > STEADY_S:
                pause_s = FIRST_PAUSE_S
            complaint = ""
            while True:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
                try:
                    await asyncio.to_thread(self._probe, self._data_dir)
                except OSError as error:
                    if str(error) != complaint:
                        complaint = str(error)
                        _log.warning("storage_still_fails", cause=complaint)
                else:
                    break
            recovered_s = loop.time()
            self._failed.clear()
            _log.info("node_recovered")
            self._on_change()


def probe(data_dir: Path) -> None:
    """Do what a start does: make a directory, and write to the disk. Raises OSError."""
    directory, file = data_dir / "attempts" / "probe", data_dir / "probe"
    with contextlib.suppress(FileNotFoundError):
        directory.rmdir()
    directory.mkdir(mode=0o700)
    directory.rmdir()
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(bytes(PROBE_BYTES))
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
        file.unlink()
