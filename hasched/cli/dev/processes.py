"""The daemons of a development cluster as child processes: what dies is started again, and nothing outlives us.

Children are spawned (never forked), each in a session of its own so that Ctrl-C reaches us alone, and we stop them in order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psutil

from hasched.client.files import replace_file

STABLE_S = 5.0  # whoever ran this long did not die of its start
MAX_PAUSE_S = 5.0
FIRST_PAUSE_S = 0.2
ROUNDS = 10


class Child:
    """One daemon that should run."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self.command = command
        self.log = log
        self.pid: int | None = None
        self.started_s = 0.0
        self.failures = 0  # in a row, each before it was stable
        self.due_s: float | None = None  # when it is to be started again

    def start(self) -> None:
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.pid = os.posix_spawn(
            self.command[0],
            self.command,
            _environment(),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE],
        )
        self.started_s = time.monotonic()
        self.due_s = None

    def ended(self, now_s: float) -> None:
        """Note that it has died: the first time it starts again at once, then after growing pauses."""
        self.pid = None
        self.failures = 0 if now_s - self.started_s >= STABLE_S else self.failures + 1
        pause_s = 0.0 if self.failures <= 1 else min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.failures - 2))
        self.due_s = now_s + pause_s


class Processes:
    """All children. `tell(name, text)` is called at each end and start that nobody asked for."""

    def __init__(self, children: Sequence[Child], registry: Path, tell: Callable[[str, str], None]) -> None:
        self._children = {child.name: child for child in children}
        self._registry = registry
        self._tell = tell

    def start_all(self) -> None:
        for child in self._children.values():
            child.start()
        self._register()

    def next_due_s(self) -> float | None:
        """Seconds until the next restart; None if all run."""
        due = [child.due_s for child in self._children.values() if child.due_s is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def restart_due(self) -> None:
        """Reap who has died, and start again whose time has come."""
        now_s = time.monotonic()
        for child, status in self._reap():
            child.ended(now_s)
            assert child.due_s is not None, "a dead child is due"
            pause_s = child.due_s - now_s
            self._tell(child.name, f"{_ending(status)}; starts again {f'in {pause_s:.1f} s' if pause_s else 'now'}")
        due = [child for child in self._children.values() if child.due_s is not None and child.due_s <= now_s]
        for child in due:
            child.start()
        if due:
            self._register()

    def stop_all(self, names: Sequence[str], patience_s: float) -> None:
        """TERM to these, then KILL to who has not ended in time."""
        for name in names:
            self._signal(name, signal.SIGTERM)
            self._signal(name, signal.SIGCONT)  # A stopped process can't act on TERM.
        deadline = time.monotonic() + patience_s
        while self._alive(names) and (left_s := deadline - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, left_s)
            self._forget_reaped()
        for name in self._alive(names):
            self._tell(name, f"did not end in {patience_s:.0f} s and is killed")
            self._signal(name, signal.SIGKILL)
        while self._alive(names):
            signal.sigwaitinfo({signal.SIGCHLD})
            self._forget_reaped()

    def _reap(self) -> list[tuple[Child, int]]:
        reaped = []
        for child in self._children.values():
            if child.pid is not None:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    reaped.append((child, status))
        return reaped

    def _forget_reaped(self) -> None:
        for child, _ in self._reap():
            child.pid = None

    def _alive(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if self._children[name].pid is not None]

    def _signal(self, name: str, number: signal.Signals) -> None:
        pid = self._children[name].pid
        if pid is not None:
            os.kill(pid, number)  # It is our child and not reaped, so the number is still its own.

    def _register(self) -> None:
        pids = {child.name: child.pid for child in self._children.values() if child.pid is not None}
        replace_file(self._registry, msgspec.json.encode(pids))


def kill_daemons(directory: Path) -> list[int]:
    """Kill daemons that an earlier, killed `hasched dev` left behind; supervisors and tasks go on, agents find them."""
    mark = f"{directory}/"
    found = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "--config" in (arguments := process.info["cmdline"] or [])
        and any(argument.startswith(mark) and argument.endswith(".yaml") for argument in arguments)
    ]
    return _kill(found)


def kill_work(directory: Path) -> list[int]:
    """Kill the agents' supervisors and every task below `directory`; for the end, when the daemons have stopped."""
    mark = f"{directory}/"
    killed: list[int] = []
    for _ in range(ROUNDS):  # A task may start children while we look.
        found = [process for process in psutil.process_iter() if _is_work(process, mark)]
        if not found:
            break
        killed += _kill(found)
    return killed


def _is_work(process: psutil.Process, mark: str) -> bool:
    """A supervisor has its directory among its arguments, a task its output file in its environment."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
            return False
        arguments = process.cmdline()
        supervises = any("supervisor" in argument for argument in arguments)
        if supervises and any(f"{argument}/".startswith(mark) for argument in arguments):
            return True
        return process.environ().get("HASCHED_OUTPUT", "").startswith(mark)
    except psutil.Error:  # It has ended meanwhile, or belongs to somebody else.
        return False


def _kill(processes: Sequence[psutil.Process]) -> list[int]:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
    return [process.pid for process in processes]


def _environment() -> dict[str, str]:
    """Ours, without overrides that were meant for another cluster; how to log is everybody's."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HASCHED_") or name.startswith("HASCHED_LOG_")
    }


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
