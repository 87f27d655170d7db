"""The processes of tasks, as the kernel shows them: who belongs to which session, and since when."""

# Plain strings, not pathlib: this runs for every end of a task.
# ruff: noqa: PTH208

from __future__ import annotations

import os
import signal
import time
from typing import NamedTuple

from hasched.model.ids import AttemptId

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    pid: int
    parent: int
    session: int
    started_ms: int  # CLOCK_BOOTTIME, to a tick


def boot_ms() -> int:
    """CLOCK_BOOTTIME: it never goes back, counts suspended time, and is the same in every process."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def read_process(pid: int) -> Process | None:
    """One process, None if there is none, or it is another user's and hidden from us (`hidepid=1`)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]) * 1000 // TICKS_PER_SECOND)


def scan() -> list[Process]:
    """Every process of the machine that we may see."""
    found = (read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process is not None]


class Families:
    """Who descends from whom, at one moment."""

    def __init__(self) -> None:
        self._children: dict[int, list[int]] = {}
        self._sessions: dict[int, list[int]] = {}
        for process in scan():
            self._children.setdefault(process.parent, []).append(process.pid)
            self._sessions.setdefault(process.session, []).append(process.pid)

    def of(self, leader: int) -> list[int]:
        """The members of `leader`'s session and all descendants of them, whatever their session is."""
        members = dict.fromkeys(self._sessions.get(leader, ()))
        waiting = list(members)
        while waiting:
            for child in self._children.get(waiting.pop(), ()):
                if child not in members:
                    members[child] = None
                    waiting.append(child)
        return list(members)


def send(pid: int, number: signal.Signals) -> bool:
    """Signal a process, if it is still there. Whether we may: it can belong to another user by now."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def send_group(group: int, number: signal.Signals) -> bool:
    """Signal a process group, if anything of it is still there. Whether we may."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def own_children() -> list[int]:
    """Our children. As a subreaper we also get the orphans of every task."""
    with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
        return [int(pid) for pid in file.read().split()]


def peak_memory_bytes(pid: int) -> int:
    """The most memory that a running process held itself, 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0


def attempt_of(pid: int) -> AttemptId | None:
    """The attempt whose environment a process was started with, None if it has none or can't be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = dict(entry.split(b"=", 1) for entry in file.read().split(b"\0") if b"=" in entry)
        return AttemptId(
            int(variables[b"HASCHED_JOB_ID"]),
            int(variables[b"HASCHED_TASK_INDEX"]),
            int(variables[b"HASCHED_ATTEMPT"]),
        )
    except (OSError, KeyError, ValueError):
        return None


def session_of(pid: int) -> int:
    """The session of a process, 0 if it is gone."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def group_of(pid: int) -> int:
    """The process group of a process, 0 if it is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0
