"""The processes of a simulated node, as far as the supervisor sees them: tasks that run, end, and are signalled.

How long a task runs and how it ends is drawn from the seed, unless its job's environment says so: `RUN_MS`, `EXIT`, and
`STUBBORN` for a task that ignores SIGTERM. One with `TELL` puts out which attempt it is.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hasched.agent import running, supervised
from hasched.agent.protocol import LaunchJob, LaunchTask
from hasched.model.ids import AttemptId
from tests.simulation.executions import output_of
from tests.simulation.patches import Patches

if TYPE_CHECKING:
    from tests.simulation.agent import SimulatedAgent
    from tests.simulation.world import World

TERM_S = 0.05  # how long a task takes to die of SIGTERM, at most


@dataclass
class Run:
    """One attempt as it really ran, in the world's time. `ended_s` is None while it runs."""

    key: AttemptId
    node: str
    started_s: float
    stop_on_disconnect: bool
    ended_s: float | None = None
    status: int = 0  # of its process


@dataclass
class _Process:
    pid: int
    run: Run
    ends_s: float  # when it ends by itself
    exit_code: int
    stubborn: bool
    saves: bool
    left_s: float | None = None  # of its time, while it is stopped
    number: int = 0  # of the event that ends it


class Kernel:
    """All task processes of one node."""

    def __init__(self, host: SimulatedAgent) -> None:
        self._host = host
        self._world = host.world
        self._random = host.world.stream(f"tasks {host.name}")
        self._processes: dict[int, _Process] = {}
        self._zombies: dict[int, _Process] = {}
        self._outputs: dict[str, bytes] = {}  # by the attempt's directory
        self._next_pid = 100

    # --- as an executor ---

    def start(self, job: LaunchJob, task: LaunchTask, directory: str, _cgroup: object) -> int:
        random, now = self._random, self._world.now
        lasts_s = random.choice((0.02, 0.5, 2.0, 8.0)) * random.uniform(0.5, 1.5)
        exit_code = 0 if random.random() < 0.9 else 1
        if "RUN_MS" in job.env:
            lasts_s = int(job.env["RUN_MS"]) / 1000
        if "EXIT" in job.env:
            exit_code = int(job.env["EXIT"])
        self._next_pid += 1
        run = Run(AttemptId(job.job_id, task.index, task.attempt), self._host.name, now, job.stop_at_lease)
        process = _Process(self._next_pid, run, now + lasts_s, exit_code, "STUBBORN" in job.env, "SAVES" in job.env)
        self._processes[process.pid] = process
        if "TELL" in job.env:
            self._outputs[directory] = output_of(run.key).encode()
        self._world.runs.append(run)
        self._world.note("task", self._host.name, run.key)
        self._end_at(process, process.ends_s, exit_code << 8)
        return process.pid

    def saves(self, key: AttemptId) -> bool:
        """Whether the attempt runs, and checkpoints."""
        return any(process.saves and process.run.key == key for process in self._processes.values())

    def output(self, path: str) -> bytes:
        """What the attempt of this file has put out."""
        return self._outputs.get(path.removesuffix("/output"), b"")

    # --- signals ---

    def signal(self, pid: int, number: signal.Signals) -> bool:
        process = self._processes.get(pid)
        if process is None:
            return True
        now = self._world.now
        if number is signal.SIGKILL:
            self._finish(process, signal.SIGKILL)
        elif number is signal.SIGTERM and not process.stubborn:
            at = now + self._random.uniform(0, TERM_S)
            if at < process.ends_s:
                self._end_at(process, at, signal.SIGTERM)
        elif number is signal.SIGSTOP and process.left_s is None:
            process.left_s = process.ends_s - now
            process.number = 0
        elif number is signal.SIGCONT and process.left_s is not None:
            process.ends_s, process.left_s = now + process.left_s, None
            self._end_at(process, process.ends_s, process.exit_code << 8)
        return True

    def kill_all(self) -> None:
        """The machine has lost its power, or the next supervisor ends what the last one left behind."""
        for process in list(self._processes.values()):
            self._finish(process, signal.SIGKILL)
        self._zombies.clear()

    def _end_at(self, process: _Process, when: float, status: int) -> None:
        process.number = self._world.next_number()
        self._world.at(when, self._end_if, process, process.number, status)

    def _end_if(self, process: _Process, number: int, status: int) -> None:
        if process.number == number:
            self._finish(process, status)

    def _finish(self, process: _Process, status: int) -> None:
        if self._processes.pop(process.pid, None) is None:
            return
        process.number = 0
        process.run.ended_s, process.run.status = self._world.now, status
        self._zombies[process.pid] = process
        self._world.note("task ended", self._host.name, process.run.key, status)
        self._host.child_ended()

    # --- waiting for children ---

    def waitid(self) -> SimpleNamespace | None:
        if not self._processes and not self._zombies:
            raise ChildProcessError
        return SimpleNamespace(si_pid=next(iter(self._zombies))) if self._zombies else None

    def wait4(self, pid: int) -> tuple[int, int, SimpleNamespace]:
        process = self._zombies.pop(pid)
        return pid, process.run.status, SimpleNamespace(ru_utime=0.0, ru_stime=0.0, ru_maxrss=0)

    def children(self) -> list[int]:
        return list(self._processes)


class Roster:
    """Nothing is lost of it: what a supervisor leaves behind is the kernel's to know."""

    def add(self, *_: object) -> int:
        return 0

    def check(self) -> None:
        pass

    def remove(self, _slot: int) -> None:
        pass


class _Families:
    def of(self, pid: int) -> list[int]:
        return [pid]


class _System:
    """`os`, as the supervisor's module uses it, on whichever node's supervisor runs."""

    P_ALL, WEXITED, WNOHANG, WNOWAIT = os.P_ALL, os.WEXITED, os.WNOHANG, os.WNOWAIT
    waitstatus_to_exitcode = staticmethod(os.waitstatus_to_exitcode)
    path = SimpleNamespace(isdir=lambda _: True)

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def node(self) -> SimulatedAgent:
        assert self._world.node is not None, "a supervisor runs"
        return self._world.node

    def waitid(self, *_: object) -> SimpleNamespace | None:
        return self.node.kernel.waitid()

    def wait4(self, pid: int, _options: int) -> tuple[int, int, SimpleNamespace]:
        return self.node.kernel.wait4(pid)

    def mkdir(self, *_: object, **__: object) -> None:
        pass

    makedirs = mkdir

    def lstat(self, path: str) -> SimpleNamespace:
        """Of a checkpoint: a task that saves does so all the time."""
        folder = path.split("/")
        index, attempt = folder[-2].split(".")
        if not self.node.kernel.saves(AttemptId(int(folder[-3]), int(index), int(attempt))):
            raise FileNotFoundError(path)
        return SimpleNamespace(st_mtime_ns=self.wall_ms() * 1_000_000)

    def boot_ms(self) -> int:
        return self.node.clock.boot_ms()

    def wall_ms(self) -> int:
        return self.node.clock.wall_ms()


class _Processes:
    """The same for `hasched.agent.processes`: every task is one process, in its own session and group."""

    def __init__(self, system: _System) -> None:
        self._system = system

    def send(self, pid: int, number: signal.Signals) -> bool:
        return self._system.node.kernel.signal(pid, number)

    send_group = send

    def own_children(self) -> list[int]:
        return self._system.node.kernel.children()

    def group_of(self, pid: int) -> int:
        return pid

    session_of = group_of

    def attempt_of(self, _pid: int) -> None:
        return None

    def peak_memory_bytes(self, _pid: int) -> int:
        return 0


@contextmanager
def supervised_in(world: World) -> Iterator[None]:
    """Let the supervisor's modules find the processes, files and clocks of whichever node's supervisor runs."""
    system = _System(world)
    replaced: dict[str, Any] = {
        "os": system,
        "processes": _Processes(system),
        "Families": _Families,
        "boot_ms": system.boot_ms,
        "wall_ms": system.wall_ms,
        "holes": SimpleNamespace(bound=lambda *_: True),
        "read_output": lambda path: (system.node.kernel.output(path), ""),
    }
    small = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: SimpleNamespace(ru_maxrss=0))
    with Patches() as patches:
        for name, what in replaced.items():
            patches.set(supervised, name, what)
        patches.set(running, "resource", small)
        yield
