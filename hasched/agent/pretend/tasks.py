"""Tasks that only pretend to run, behind the protocol of the supervisor.

A task takes as long as its job says: `SIMULATED_DURATION` in its environment (`90s`), or the argument of a plain
`sleep N`; any other ends at once. It ends with `SIMULATED_EXIT_CODE`, or with 1 if its command is `false`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

import hasched
from hasched.agent.processes import boot_ms, wall_ms
from hasched.agent.protocol import (
    Configure,
    Forget,
    FreezeAttempts,
    FromSupervisor,
    Inventory,
    Launch,
    LaunchJob,
    LaunchTask,
    Lease,
    Observed,
    RunningAttempt,
    StopAttempts,
    ToSupervisor,
)
from hasched.model.ids import AttemptId
from hasched.model.states import EndKind
from hasched.model.units import parse_duration_ms
from hasched.model.wire import AttemptEnded, AttemptKey, AttemptReport, AttemptStarted

DURATION = "SIMULATED_DURATION"
EXIT_CODE = "SIMULATED_EXIT_CODE"


def pretended_end(job: LaunchJob) -> tuple[int, int]:
    """How long a task of the job runs, in ms, and its exit code. What can't be understood counts as not said."""
    program, arguments = PurePosixPath(job.command[0] if job.command else "").name, job.command[1:]
    lasts_ms = _duration_ms(job.env.get(DURATION, ""))
    if lasts_ms is None and program == "sleep" and len(arguments) == 1:
        lasts_ms = _duration_ms(arguments[0])
    code = job.env.get(EXIT_CODE, "")
    if not (code.isascii() and code.isdigit() and int(code) < 256):
        code = "1" if program == "false" else "0"
    return lasts_ms or 0, int(code)


def _duration_ms(text: str) -> int | None:
    """Of `sleep` and of ours: a number alone means seconds."""
    try:
        return parse_duration_ms(text if text[-1:].isalpha() else f"{text}s")
    except ValueError:
        return None


class _Run:
    """One attempt that pretends. `left_ms` is what it and its timeout still have, while it is frozen."""

    def __init__(self, job: LaunchJob, task: LaunchTask) -> None:
        self.job = job
        self.task = task
        self.started_ms = wall_ms()
        lasts_ms, self.code = pretended_end(job)
        self.times_out = 0 < job.timeout_ms < lasts_ms
        self.due_ms = boot_ms() + (job.timeout_ms if self.times_out else lasts_ms)
        self.left_ms: int | None = None
        self.timer: asyncio.TimerHandle | None = None


class PretendTasks:
    """Implements `environment.Supervision`. What runs lives as long as this object, whatever agents come and go."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._runs: dict[AttemptId, _Run] = {}
        self._ended: dict[AttemptId, AttemptEnded] = {}
        self._news: list[AttemptReport] = []
        self._told = False  # whether the news are to be told in this turn already
        self._on_messages: Callable[[list[FromSupervisor]], None] | None = None
        self._lease: asyncio.TimerHandle | None = None

    def connect(self, settings: Configure, on_messages: Callable[[list[FromSupervisor]], None]) -> None:
        """An agent has come; the one before it hears nothing more."""
        self._on_messages = on_messages
        self._news.clear()
        running = tuple(
            RunningAttempt(*key, run.started_ms, run.task.gpus, run.task.gpu_uuids) for key, run in self._runs.items()
        )
        ended = tuple(self._ended.values())
        inventory = Inventory(hasched.__version__, self._instance, 0, "rlimit", running, ended)
        messages: list[FromSupervisor] = [inventory]
        asyncio.get_running_loop().call_soon(on_messages, messages)

    def send(self, messages: Sequence[ToSupervisor]) -> None:
        for message in messages:
            match message:
                case Launch(jobs=jobs):
                    for job in jobs:
                        for task in job.tasks:
                            self._launch(job, task)
                case StopAttempts(attempts=attempts, reason=reason):
                    for key in _ids(attempts):
                        self._end(key, EndKind.STOPPED, reason=reason)
                case FreezeAttempts(attempts=attempts, frozen=frozen):
                    for key in _ids(attempts):
                        self._freeze(key, frozen)
                case Lease(deadline_ms=deadline_ms):
                    self._renew(deadline_ms)
                case Forget(attempts=attempts):
                    for key in _ids(attempts):
                        self._ended.pop(key, None)
                case Configure():
                    pass  # as `connect` has heard

    def close(self) -> None:
        self._on_messages = None

    abort = close

    def _launch(self, job: LaunchJob, task: LaunchTask) -> None:
        key = AttemptId(job.job_id, task.index, task.attempt)
        if key in self._runs or key in self._ended:
            return
        run = self._runs[key] = _Run(job, task)
        self._tell(AttemptStarted(*key, run.started_ms))
        self._set_timer(key, run)

    def _set_timer(self, key: AttemptId, run: _Run) -> None:
        delay_s = max(0, run.due_ms - boot_ms()) / 1000
        kind = EndKind.TIMED_OUT if run.times_out else EndKind.EXITED
        run.timer = asyncio.get_running_loop().call_later(delay_s, self._end, key, kind, run.code)

    def _end(self, key: AttemptId, kind: EndKind, code: int = 0, reason: str = "") -> None:
        run = self._runs.pop(key, None)
        if run is None:
            return
        if run.timer is not None:
            run.timer.cancel()
        report = AttemptEnded(
            *key, run.started_ms, wall_ms(), kind, code if kind is EndKind.EXITED else 0, reason=reason
        )
        self._ended[key] = report
        self._tell(report)

    def _freeze(self, key: AttemptId, frozen: bool) -> None:
        run = self._runs.get(key)
        if run is None or frozen == (run.left_ms is not None):
            return
        if run.left_ms is None:
            run.left_ms = max(0, run.due_ms - boot_ms())
            if run.timer is not None:
                run.timer.cancel()
        else:
            run.due_ms, run.left_ms = boot_ms() + run.left_ms, None
            self._set_timer(key, run)

    def _renew(self, deadline_ms: int) -> None:
        if self._lease is not None:
            self._lease.cancel()
        delay_s = max(0, deadline_ms - boot_ms()) / 1000
        self._lease = asyncio.get_running_loop().call_later(delay_s, self._lease_over)

    def _lease_over(self) -> None:
        for key in [key for key, run in self._runs.items() if run.job.stop_at_lease]:
            self._end(key, EndKind.STOPPED, reason="the lease has ended")

    def _tell(self, report: AttemptReport) -> None:
        """What happens in one turn of the loop is one message."""
        self._news.append(report)
        if not self._told:
            self._told = True
            asyncio.get_running_loop().call_soon(self._tell_all)

    def _tell_all(self) -> None:
        self._told = False
        news, self._news = self._news, []
        if news and self._on_messages is not None:
            self._on_messages([Observed(tuple(news))])


def _ids(keys: Sequence[AttemptKey]) -> list[AttemptId]:
    return [AttemptId(key.job_id, key.index, key.attempt) for key in keys]
