"""The power of machines fails: what they had not synced is gone, and so is everything that ran there.

Whoever writes there must stand still first (SIGSTOP), and be killed afterwards: a process that goes on after the file system
was shut down would see errors that no power cut shows. Their connections are closed as the processes die; peers of a machine
that really lost its power hear nothing, which is a cut of the network besides.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from chaos.cluster.loop_disk import LoopDisk
from chaos.errors import Unsettled
from chaos.safety.identity import Born, born, send, wait_until_gone

AT_REST = frozenset("TtZXD")  # stopped, traced, ended, or in the disk: none of them comes to act on what it sees there
PATIENCE_S = 10.0
POLL_S = 0.005


def cut(disks: Sequence[LoopDisk], writers: Callable[[], Iterable[Born]] | None = None) -> None:
    """At one moment for all of them. Afterwards nobody runs who used them, and they are mounted as after a restart.

    `writers` finds processes that die with their machine though they have no file open on its disk. Raises OSError, or
    Unsettled if somebody can't be stopped or killed.
    """
    frozen: dict[Born, None] = {}
    try:
        _freeze(frozen, lambda: [*users_of(disks), *(writers() if writers is not None else ())])
        for disk in disks:
            disk.cut_power()
    except BaseException:
        for process in frozen:
            send(process, signal.SIGCONT)
        raise
    kill(frozen)
    for disk in disks:
        release(disk)
        disk.mount()


def users_of(disks: Iterable[LoopDisk]) -> list[Born]:
    """Who has a file open on them, or stands in one of their directories; without the harness itself."""
    devices = {disk.device for disk in disks}
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    found = [born(pid) for pid in pids if pid != os.getpid() and _uses(pid, devices)]
    return [process for process in found if process is not None]


def release(disk: LoopDisk) -> None:
    """Kill whoever uses it, and unmount it. Raises OSError, or Unsettled, if it stays in use."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        kill(users_of([disk]))
        try:
            disk.unmount()
            return
        except OSError:  # somebody came meanwhile, if only to look
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def kill(processes: Iterable[Born]) -> None:
    processes = list(processes)
    for process in processes:
        send(process, signal.SIGKILL)
    for process in processes:
        if not wait_until_gone(process, PATIENCE_S):
            raise Unsettled(f"{process} is still there {PATIENCE_S:.0f} s after SIGKILL")


def _freeze(frozen: dict[Born, None], find: Callable[[], Iterable[Born]]) -> None:
    """A process may start others while we look, so we look until there is nobody new."""
    while new := [process for process in find() if process not in frozen]:
        for process in new:
            send(process, signal.SIGSTOP)
            frozen[process] = None
    deadline = time.monotonic() + PATIENCE_S
    while not all(_is_at_rest(process) for process in frozen):
        if time.monotonic() > deadline:
            raise Unsettled(f"somebody still runs {PATIENCE_S:.0f} s after SIGSTOP")
        time.sleep(POLL_S)


def _is_at_rest(process: Born) -> bool:
    """All its threads. A stop takes a moment to reach those that run."""
    try:
        stats = [(entry / "stat").read_bytes() for entry in Path(f"/proc/{process.pid}/task").iterdir()]
    except OSError:
        return born(process.pid) != process
    return all(stat.rpartition(b")")[2].split()[0].decode() in AT_REST for stat in stats)


def _uses(pid: int, devices: set[int]) -> bool:
    process = Path(f"/proc/{pid}")
    try:
        places = [process / "cwd", *(process / "fd").iterdir()]
    except OSError:  # it has ended
        return False
    return any(_device(place) in devices for place in places)


def _device(place: Path) -> int | None:
    try:
        return place.stat().st_dev
    except OSError:
        return None
