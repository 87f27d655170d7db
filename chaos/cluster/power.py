"""The power of machines fails: what they had not synced is gone, and so is everything that ran there.

Whoever writes there must stand still first (SIGSTOP), and be killed afterwards: a process that goes on after the file system
was shut down would see errors that no power cut shows. Their connections are closed as the processes die; peers of a machine
that really lost its power hear nothing, which is a cut of the network besides.

Only processes of the machines themselves are signalled. Somebody else who uses a disk (a shell, a backup) is waited for, and
named if they stay.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from chaos.cluster.loop_disk import LoopDisk
from chaos.errors import MachineLacks, Unsettled, held
from chaos.safety.identity import Born, born, send, wait_until_gone
from chaos.safety.ledger import Armed, Ledger
from chaos.safety.undo import Thaw

AT_REST = frozenset("TtZXD")  # stopped, traced, ended, or in the disk: none of them comes to act on what it sees there
PATIENCE_S = 10.0
STANDSTILL_S = 60.0  # more than freezing, waiting and cutting take
POLL_S = 0.005


def cut(disks: Sequence[LoopDisk], find: Callable[[], Iterable[Born]], ledger: Ledger | None = None) -> None:
    """At one moment for all of them. Afterwards they are mounted as after a restart.

    `find` gives the processes of the machines: they die, and nobody else. `ledger` lets them go on if we are killed while they
    stand still; without one they had better be our children. Raises OSError, or MachineLacks or Unsettled if somebody else
    stays on a disk (then nothing is cut), or somebody can't be stopped or killed.
    """
    frozen: dict[Born, Armed | None] = {}
    wait_for_others(disks, find)
    try:
        _freeze(frozen, find, ledger)
        wait_for_others(disks, lambda: [*frozen, *find()])  # who came meanwhile
        for disk in disks:
            disk.cut_power()
    except BaseException:
        _let_go(frozen)
        raise
    kill(frozen)
    for armed in frozen.values():
        if armed is not None:
            armed.strike_off()
    for disk in disks:
        release(disk, find)
        disk.mount()


def wait_for_others(disks: Sequence[LoopDisk], find: Callable[[], Iterable[Born]]) -> None:
    """Until only what `find` gives uses the disks. Raises MachineLacks that says who else does."""
    deadline = time.monotonic() + PATIENCE_S
    while others := _others(users_of(disks), find()):
        if time.monotonic() > deadline:
            raise MachineLacks(
                f"{_list(others)} uses {', '.join(str(disk.path) for disk in disks)}, and is not of the cluster",
                "nothing was cut; end it, or have it leave there, and try again",
            )
        time.sleep(POLL_S)


def users_of(disks: Iterable[LoopDisk]) -> list[Born]:
    """Who has a file open on them, or stands in one of their directories; without the harness itself."""
    devices = {disk.device for disk in disks}
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    found = [born(pid) for pid in pids if pid != os.getpid() and _uses(pid, devices)]
    return [process for process in found if process is not None]


def release(disk: LoopDisk, find: Callable[[], Iterable[Born]]) -> None:
    """Kill those of `find` who use it, and unmount it. Raises OSError, or Unsettled, if it stays in use."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        users, ours = users_of([disk]), [*find()]
        kill(process for process in users if process in ours)
        try:
            disk.unmount()
            return
        except OSError:  # somebody came meanwhile, if only to look
            if time.monotonic() > deadline:
                others = _others(users_of([disk]), find())
                if others:
                    hint = "end it, or have it leave there"
                    raise Unsettled(f"{_list(others)} keeps {disk.path} from being unmounted", hint) from None
                raise
        time.sleep(POLL_S)


def kill(processes: Iterable[Born]) -> None:
    processes = list(processes)
    for process in processes:
        send(process, signal.SIGKILL)
    for process in processes:
        if not wait_until_gone(process, PATIENCE_S):
            raise Unsettled(f"{process} is still there {PATIENCE_S:.0f} s after SIGKILL", held(process.pid))


def _freeze(frozen: dict[Born, Armed | None], find: Callable[[], Iterable[Born]], ledger: Ledger | None) -> None:
    """A process may start others while we look, so we look until there is nobody new.

    Who is traced stops only with the help of its tracer, which therefore goes on; it ends with what it traces.
    """
    while new := [process for process in _untracing(find()) if process not in frozen]:
        for process in dict.fromkeys(new):
            what = f"{process} stands still until the power is cut"
            frozen[process] = ledger.arm(Thaw(process), what, STANDSTILL_S) if ledger is not None else None
            send(process, signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE_S
    while not all(_is_at_rest(process) for process in frozen):
        if time.monotonic() > deadline:
            raise Unsettled(
                f"somebody still runs {PATIENCE_S:.0f} s after SIGSTOP", "see who: `ps -eo pid,stat,wchan,args`"
            )
        time.sleep(POLL_S)


def _untracing(processes: Iterable[Born]) -> list[Born]:
    """Those that trace none of the others."""
    processes = list(processes)
    tracers = {_tracer_of(process.pid) for process in processes}
    return [process for process in processes if process.pid not in tracers]


def _tracer_of(pid: int) -> int:
    """0 if nobody traces it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("TracerPid:")), 0)


def _let_go(frozen: dict[Born, Armed | None]) -> None:
    for process, armed in frozen.items():
        with contextlib.suppress(OSError):  # it stays in the ledger, and the others must go on too
            if armed is not None:
                armed.undo()
            else:
                send(process, signal.SIGCONT)


def _others(users: Iterable[Born], ours: Iterable[Born]) -> list[Born]:
    ours = {*ours}
    return [process for process in users if process not in ours]


def _list(processes: Iterable[Born]) -> str:
    return ", ".join(f"{process} ({_name(process)})" for process in processes)


def _name(process: Born) -> str:
    try:
        return Path(f"/proc/{process.pid}/comm").read_text().strip()
    except OSError:
        return "which has ended"


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
