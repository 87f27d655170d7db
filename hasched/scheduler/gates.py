"""Gates: how many tasks of a job may start now, whatever is free.

Each gate says also what a job that it holds back waits for, and which events may have opened it. Jobs that wait for the
same are let through one after the other until one is held back again: so an event costs what it admits, not what waits.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Protocol

from hasched.model.ids import JobId
from hasched.model.policy import PolicyKind
from hasched.model.reasons import ReasonCode
from hasched.model.times import format_time
from hasched.model.units import format_duration
from hasched.model.words import counted
from hasched.scheduler.blockers import Blocker, Change, Target
from hasched.scheduler.keys import Key
from hasched.scheduler.limits import LimitGate
from hasched.statemachine.events import (
    AttemptEnded,
    Event,
    JobDue,
    JobResumed,
    JobUpdated,
    PolicyChanged,
    PolicyDeleted,
    TasksScheduled,
)
from hasched.statemachine.job import Job
from hasched.statemachine.rules.queues import max_running_of
from hasched.statemachine.state import State


class Gate(Protocol):
    """What is on its way is not in the state yet: a gate is told of it (`take`) and has to count it."""

    def rebuild(self, state: State) -> None:
        """Start anew from the state, with nothing on its way."""

    def allowed(self, state: State, job: Job, asked: int) -> int:
        """How many of `asked` tasks, all beyond those on their way, may start now."""

    def blockers(self, state: State, job: Job) -> list[Blocker]:
        """Why no more tasks of the job may start now; none where some may."""

    def key(self, state: State, job: Job) -> Key:
        """What a job waits for of which no task was allowed."""

    def opened(self, state: State, event: Event) -> Iterable[Hashable]:
        """The channels that the event, which has been applied, may have opened."""

    def take(self, state: State, job: Job, tasks: int) -> None:
        """So many tasks are on their way now; negative: not any more, for they were scheduled or refused."""

    def given_back(self) -> Iterable[Hashable]:
        """The channels that may have opened since, because something that was on its way was refused."""


class OneJobGate:
    """A gate of each job for itself, its own channel."""

    def rebuild(self, state: State) -> None:
        pass

    def key(self, state: State, job: Job) -> Key:
        return Key((type(self).__name__, job.id))

    def take(self, state: State, job: Job, tasks: int) -> None:
        pass

    def given_back(self) -> Iterable[Hashable]:
        return ()


class Suspended(OneJobGate):
    """Nothing of a job that is suspended, or whose end was asked for, may start."""

    def allowed(self, state: State, job: Job, asked: int) -> int:
        return 0 if job.suspended or job.ending else asked

    def blockers(self, state: State, job: Job) -> list[Blocker]:
        if not job.suspended:
            return []
        change = Change("resume the job", key="suspended", value=False)
        return [Blocker(ReasonCode.SUSPENDED, "the job is suspended; resume it to start more of it", change=change)]

    def opened(self, state: State, event: Event) -> Iterable[Hashable]:
        return ((type(self).__name__, event.job_id),) if isinstance(event, JobResumed) else ()


class NotBefore(OneJobGate):
    """Nothing of a job starts before the time that it names."""

    def allowed(self, state: State, job: Job, asked: int) -> int:
        return 0 if job.not_before_ms else asked

    def blockers(self, state: State, job: Job) -> list[Blocker]:
        if not job.not_before_ms:
            return []
        wait_ms = max(job.not_before_ms - state.now_ms, 0)
        text = f"it may not start before {format_time(job.not_before_ms)}, which is {format_duration(wait_ms)} from now"
        change = Change("leave out not_before", key="not_before")
        return [Blocker(ReasonCode.NOT_BEFORE, text, change=change)]

    def opened(self, state: State, event: Event) -> Iterable[Hashable]:
        return ((type(self).__name__, event.job_id),) if isinstance(event, JobDue) else ()


class MaxRunning(OneJobGate):
    """No more tasks of a job at once than it says itself."""

    def __init__(self) -> None:
        self._on_their_way: dict[int, int] = {}

    def rebuild(self, state: State) -> None:
        self._on_their_way.clear()

    def allowed(self, state: State, job: Job, asked: int) -> int:
        if not job.max_running:
            return asked
        return min(asked, job.max_running - job.active - self._on_their_way.get(job.id, 0))

    def blockers(self, state: State, job: Job) -> list[Blocker]:
        if not job.max_running or job.active < job.max_running:
            return []
        text = f"as many tasks run as max_running allows: {job.max_running}"
        more = job.active + 1
        change = Change(
            f"allow {counted(more, 'task')} at once", key="max_running", value=more if more < job.count else None
        )
        return [Blocker(ReasonCode.MAX_RUNNING, text, change=change)]

    def opened(self, state: State, event: Event) -> Iterable[Hashable]:
        return ((type(self).__name__, event.job_id),) if isinstance(event, AttemptEnded) else ()

    def take(self, state: State, job: Job, tasks: int) -> None:
        if job.max_running:
            left = self._on_their_way.get(job.id, 0) + tasks
            if left:
                self._on_their_way[job.id] = left
            else:
                self._on_their_way.pop(job.id, None)


class QueueRoom:
    """No more tasks at once than the queue of their job may run."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._on_their_way: dict[JobId, tuple[str, int]] = {}  # the queue of each job, and how many tasks
        self._sums: dict[str, int] = {}  # of those, by queue
        self._full: dict[str, None] = {}  # queues that jobs may be waiting for
        self._returned: dict[str, None] = {}  # of what was on its way and isn't any more

    def rebuild(self, state: State) -> None:
        self._forget()

    def allowed(self, state: State, job: Job, asked: int) -> int:
        most = max_running_of(state, job.queue)
        if not most:
            return asked
        taken = state.usage.queues.get(job.queue, 0) + self._sums.get(job.queue, 0)
        return max(0, min(asked, most - taken))

    def blockers(self, state: State, job: Job) -> list[Blocker]:
        most, running = max_running_of(state, job.queue), state.usage.queues.get(job.queue, 0)
        together = max(job.floor, 1) if job.starts_together else 1
        enough = running + together
        if not most or enough <= most:
            return []
        text = f"queue {job.queue} runs {counted(running, 'task')}, and its max_running is {most}"
        if together > most:
            text = f"{text}; {together} of the job start together, so it could never start"
        key = f"queue/{job.queue}.max_running"
        return [
            Blocker(ReasonCode.QUEUE_QUOTA, text, change=Change(f"raise {key} to {enough}", Target.POLICY, key, enough))
        ]

    def key(self, state: State, job: Job) -> Key:
        self._full[job.queue] = None
        return Key(_channel_of(job.queue), (job.gang, job.starts_together))

    def opened(self, state: State, event: Event) -> Iterable[Hashable]:
        match event:
            case AttemptEnded():
                job = state.jobs.get(event.job_id)
                return (_channel_of(job.queue),) if job is not None else self._all_channels()
            case JobUpdated():
                return self._all_channels() if self._follow(state, event) else ()
            case PolicyChanged() | PolicyDeleted() if event.kind is PolicyKind.QUEUE:
                return (_channel_of(event.name),)
            case TasksScheduled():
                self._returned.clear()  # it runs
        return ()

    def _follow(self, state: State, event: JobUpdated) -> bool:
        """Whether a job that holds a queue's room may have gone to another queue."""
        _, tasks = self._on_their_way.pop(event.job_id, ("", 0))
        if tasks:
            self._sums = {}
            self._on_their_way[event.job_id] = (event.queue, tasks)
            for queue, each in self._on_their_way.values():
                self._sums[queue] = self._sums.get(queue, 0) + each
        job = state.jobs.get(event.job_id)
        return bool(tasks) or job is None or bool(job.active)

    def _all_channels(self) -> list[Hashable]:
        channels: list[Hashable] = [_channel_of(queue) for queue in self._full]
        self._full.clear()
        return channels

    def take(self, state: State, job: Job, tasks: int) -> None:
        queue, before = self._on_their_way.get(job.id, (job.queue, 0))
        after = max(0, before + tasks)
        if after:
            self._on_their_way[job.id] = (queue, after)
        else:
            self._on_their_way.pop(job.id, None)
        left = self._sums.get(queue, 0) + after - before
        if left:
            self._sums[queue] = left
        else:
            self._sums.pop(queue, None)
        if tasks < 0 and self._full:
            self._returned[queue] = None

    def given_back(self) -> list[Hashable]:
        channels: list[Hashable] = [_channel_of(queue) for queue in self._returned]
        self._returned.clear()
        return channels


def _channel_of(queue: str) -> Hashable:
    return (QueueRoom.__name__, queue)


def standard_gates() -> tuple[Gate, ...]:
    return (Suspended(), NotBefore(), MaxRunning(), QueueRoom(), LimitGate())
