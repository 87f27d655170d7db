"""Forecasts: when what waits now will start, and where.

A forecast is a rehearsal (`rehearsal.py`) of a state of one's own, up to a horizon or until everything asked about has
started. What is not known is not guessed: a running task without a time limit and without history never ends in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hasched.model.answers import Forecast, JobForecast, Preempted
from hasched.model.ids import JobId
from hasched.model.reasons import ReasonCode
from hasched.model.states import PlacementPolicy
from hasched.model.times import format_time
from hasched.model.views import Reason
from hasched.scheduler.explain.reason import pending_reason
from hasched.scheduler.rehearsal import Rehearsal
from hasched.statemachine.events import TasksPreempted, TasksScheduled
from hasched.statemachine.job import Job
from hasched.statemachine.state import State

SHOWN_NODES = 10


class _Course:
    """What becomes of one job."""

    __slots__ = ("first_ms", "last_ms", "needed", "nodes", "starting", "waiting")

    def __init__(self, waiting: int) -> None:
        """None waits of a job that is only followed because its tasks had to make room (`need`)."""
        self.waiting = self.needed = waiting
        self.starting = 0
        self.first_ms = self.last_ms = 0
        self.nodes: dict[str, int] = {}  # tasks by node, of those that start first

    def take(self, now_ms: int, event: TasksScheduled) -> int:
        """How many of the tasks that waited have started now; a task that is started twice counts once."""
        tasks = min(len(event.indices), self.needed - self.starting)
        if not tasks:
            return 0
        self.first_ms = self.first_ms or now_ms
        if now_ms == self.first_ms:
            self.nodes[event.node_id] = self.nodes.get(event.node_id, 0) + tasks
        self.starting += tasks
        self.last_ms = now_ms
        return tasks

    def need(self, tasks: int) -> None:
        """So many that ran have to start again."""
        self.waiting += tasks
        self.needed += tasks

    def need_only(self, tasks: int) -> int:
        """It has become a gang of so many tasks; how many others are not needed any more."""
        spared = max(0, self.needed - tasks)
        self.needed -= spared
        return spared


class Forecaster:
    """Rehearses `state`, which it takes over, and keeps watch on some of its jobs.

    Change the state by `rehearsal.do` between making it and `run`, where something else than what is there is asked about.
    `follow`: also jobs of which nothing waits, once tasks of theirs have to make room and start again.
    """

    def __init__(
        self,
        state: State,
        now_ms: int,
        until_ms: int,
        policy: PlacementPolicy = PlacementPolicy.BIN_PACK,
        *,
        follow: bool = False,
    ) -> None:
        self._follow = follow
        self._drains_ms = 0  # the last deadline of a drain, up to which what is followed may have to start again
        self.log_index = state.index
        self.until_ms = until_ms
        self.rehearsal = Rehearsal(
            state, now_ms, policy=policy, on_start=self._take_start, on_preemption=self._take_preemption
        )
        self.preempted: dict[JobId, list[Preempted]] = {}  # for which job, at once
        self.now_ms = self.rehearsal.now_ms
        self._courses: dict[JobId, _Course] = {}
        self._followed: dict[JobId, None] = {}
        self._left = 0

    def watch(self, job_ids: Iterable[JobId]) -> None:
        """Those of the jobs that have waiting tasks."""
        for job_id in job_ids:
            job = self.rehearsal.state.jobs.get(job_id)
            if job is not None and (waiting := waiting_tasks(job)):
                self._courses[job_id] = _Course(waiting)
                self._left += waiting

    def watch_all(self, most: int) -> None:
        """Every job that waits, the first `most` by their ids."""
        self.watch([job.id for job in self.rehearsal.state.jobs.values() if waiting_tasks(job)][:most])

    def begin(self) -> None:
        """What starts at once."""
        if self._follow:
            nodes = self.rehearsal.state.nodes.values()
            self._drains_ms = max((node.drain.deadline_ms for node in nodes if node.drain and node.attempts), default=0)
        self.rehearsal.begin()
        self.rehearsal.settle()

    def run(self) -> None:
        """Go on until all that is watched has started, or to the horizon."""
        while (self._left or self.rehearsal.now_ms < self._drains_ms) and self.rehearsal.advance(self.until_ms):
            pass

    def result(self) -> Forecast:
        return Forecast(
            log_index=self.log_index,
            now_ms=self.now_ms,
            until_ms=self.until_ms,
            jobs=[self.of(job_id) for job_id in self._courses],
            endless=self.rehearsal.endless,
            cut_short=self.rehearsal.exhausted,
        )

    def of(self, job_id: JobId) -> JobForecast:
        """What the rehearsal has shown of a job that is watched."""
        course = self._courses[job_id]
        job = self.rehearsal.state.jobs[job_id]
        estimate = self.rehearsal.durations.of(job)
        all_started = course.starting == course.needed
        return JobForecast(
            job_id=job_id,
            name=job.name,
            waiting=course.waiting,
            starting=course.starting,
            start_ms=course.first_ms,
            last_start_ms=course.last_ms if all_started else 0,
            end_ms=course.last_ms + estimate.duration_ms if all_started and estimate.duration_ms else 0,
            nodes=list(course.nodes)[:SHOWN_NODES],
            basis=estimate.basis.value,
            reason=None if all_started else self._why_not(job),
            endless=0 if all_started else self.rehearsal.endless,
        )

    def starts_of(self, job_id: JobId) -> dict[str, int]:
        """Tasks by node, of those that started first."""
        return self._courses[job_id].nodes

    def _why_not(self, job: Job) -> Reason:
        reason = pending_reason(self.rehearsal.state, job, self.rehearsal.planner.kept)
        if reason is None and job.cancel is not None:
            return Reason(code=ReasonCode.DEPENDENCY, text=f"never: {job.cancel.reason}")
        if reason is None:  # It has ended before all of it could start, which nothing but its deadline does here.
            when = f", {format_time(job.deadline_ms)}" if job.deadline_ms else ""
            return Reason(code=ReasonCode.DEADLINE, text=f"not before its deadline{when}")
        notes = [f"not before the horizon of the forecast: {reason.text}"]
        if self.rehearsal.endless:
            notes.append(
                f"{self.rehearsal.endless} running tasks have neither a time limit nor a history, so nobody knows when they end"
            )
        if self.rehearsal.exhausted:
            notes.append(f"after {self.rehearsal.starts} starts the forecast was ended")
        return Reason(code=reason.code, text="; ".join(notes))

    def _take_preemption(self, now_ms: int, event: TasksPreempted) -> None:
        if self._follow and (event.job_id not in self._courses or event.job_id in self._followed):
            self._followed[event.job_id] = None
            self._courses.setdefault(event.job_id, _Course(0)).need(len(event.indices))
            self._left += len(event.indices)
        if event.for_job not in self._courses or now_ms > self.now_ms:
            return
        job = self.rehearsal.state.jobs[event.job_id]
        for index in event.indices:
            active = job.attempt_of(index)
            assert active is not None, "only active tasks are preempted"
            one = Preempted(job_id=job.id, task_index=index, node_id=active.node_id)
            self.preempted.setdefault(event.for_job, []).append(one)

    def _take_start(self, now_ms: int, event: TasksScheduled) -> None:
        course = self._courses.get(event.job_id)
        if course is not None:
            job = self.rehearsal.state.jobs[event.job_id]
            if job.is_gang and job.gang_run is not None:
                self._left -= course.need_only(job.gang_run.size)
            self._left -= course.take(now_ms, event)


def waiting_tasks(job: Job) -> int:
    """How many tasks of a job wait, in backoff or not."""
    return 0 if job.ended else job.eligible + job.in_backoff


def forecast(
    state: State,
    now_ms: int,
    until_ms: int,
    *,
    job_ids: Iterable[JobId] | None = None,
    most: int = 1000,
    policy: PlacementPolicy = PlacementPolicy.BIN_PACK,
    change: Callable[[Rehearsal], None] = lambda rehearsal: None,
) -> Forecast:
    """The forecast for some jobs, or for the first `most` that wait, after `change`. The state is used up."""
    forecaster = Forecaster(state, now_ms, until_ms, policy)
    change(forecaster.rehearsal)
    if job_ids is None:
        forecaster.watch_all(most)
    else:
        forecaster.watch(job_ids)
    forecaster.begin()
    forecaster.run()
    return forecaster.result()
