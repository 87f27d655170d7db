"""Which process is meant. A process id is given to another process one day; with its start time it isn't.

Signals go through a pidfd where the kernel has them, so that nobody else is hit between the look and the signal.
"""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import msgspec

GONE = frozenset({"Z", "X", "x"})  # it has ended, though nobody may have collected it yet
STOPPED = frozenset({"T", "t"})
POLL_S = 0.02


class Born(msgspec.Struct, frozen=True):
    """A process of this boot. `started` is in clock ticks since then: /proc/PID/stat, field 22."""

    pid: int
    started: int

    def __str__(self) -> str:
        return f"process {self.pid}"


def born(pid: int) -> Born | None:
    """The process that has this id now; None if there is none, or it has ended."""
    state, started = _look(pid)
    return None if started is None or state in GONE else Born(pid, started)


def is_alive(process: Born) -> bool:
    return born(process.pid) == process


def is_stopped(process: Born) -> bool:
    """Whether SIGSTOP, or a debugger, holds it."""
    state, started = _look(process.pid)
    return started == process.started and state in STOPPED


def send(process: Born, number: signal.Signals) -> bool:
    """Whether it was there to be signalled. Raises PermissionError if it is somebody else's."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(process):  # looked at after the handle was taken: the handle can't change to another process
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def wait_until_gone(process: Born, seconds: float) -> bool:
    """Whether it ended in time. It need not be our child."""
    deadline = time.monotonic() + seconds
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        while is_alive(process):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            select.select([handle], [], [], min(left_s, 0.5))
    finally:
        os.close(handle)
    return True


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _look(pid: int) -> tuple[str, int | None]:
    try:
        # The name of the program, which may hold anything, ends with the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", None
    return fields[0].decode(), int(fields[19])
