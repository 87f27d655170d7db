"""Deadlines: when a job may start, and by when it must have ended.

A job that names a time before which nothing starts is held until the clock gets there. At its deadline what waits ends at
once, and what runs is stopped (TERM, its grace, KILL); both end as DEADLINE_EXCEEDED and are not tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TypeVar

from hasched.model.spec import JobSpec
from hasched.model.states import TaskState
from hasched.model.times import format_time
from hasched.model.units import format_duration
from hasched.statemachine.events import Event, JobDeadlineExceeded, JobDue, JobEnded
from hasched.statemachine.job import Exceeded, Job, derive_state
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.state import State

T = TypeVar("T", tuple[int, int], tuple[int, int, int])
MAX_JOBS_PER_STEP = 1000  # what is left over is due at once, in the next step


def times_of(state: State, spec: JobSpec) -> tuple[int, int]:
    """`not_before_ms` and `deadline_ms` of a job that is accepted now; 0: none, or past."""
    not_before_ms = spec.not_before_ms or (spec.not_before_after_ms and state.now_ms + spec.not_before_after_ms)
    deadline_ms = spec.deadline_ms or (spec.deadline_after_ms and state.now_ms + spec.deadline_after_ms)
    return not_before_ms if not_before_ms > state.now_ms else 0, deadline_ms


def find_conflict(state: State, spec: JobSpec) -> Rejected | None:
    """Why nothing of the job could ever run."""
    not_before_ms, deadline_ms = times_of(state, spec)
    return conflict_of(state, not_before_ms, deadline_ms)


def conflict_of(state: State, not_before_ms: int, deadline_ms: int) -> Rejected | None:
    if not deadline_ms:
        return None
    if deadline_ms <= state.now_ms:
        cause = f"the deadline {format_time(deadline_ms)} has passed: it is {format_time(state.now_ms)}"
        return Rejected("deadline_passed", cause, "give a later one")
    if deadline_ms <= not_before_ms:
        cause = f"the deadline {format_time(deadline_ms)} is not later than not_before, {format_time(not_before_ms)}"
        return Rejected("deadline_passed", cause, "nothing could run in between: give a later one")
    return None


def warnings_of(job: Job, spec: JobSpec) -> list[str]:
    """What of a job that was just accepted may not go as its owner thinks."""
    if not job.deadline_ms or not spec.timeout_ms:
        return []
    left_ms = job.deadline_ms - max(job.submitted_ms, job.not_before_ms)
    if spec.timeout_ms <= left_ms:
        return []
    return [
        f"the deadline {format_time(job.deadline_ms)} leaves at most {format_duration(left_ms)}, and an attempt may take "
        f"{format_duration(spec.timeout_ms)} by its timeout: the job may be stopped before it is done"
    ]


def decide_due(state: State) -> Iterator[Event]:
    """What the clock does to jobs, at most `MAX_JOBS_PER_STEP` of them."""
    due: dict[int, None] = {}
    for timer in passed(state.job_timers, state.now_ms):
        if _is_due(state, timer):
            due[timer[1]] = None
            if len(due) == MAX_JOBS_PER_STEP:
                break
    for job_id in sorted(due):
        job = state.jobs[job_id]
        if _is_over(state, job):
            yield from _exceed(job)
        else:
            yield JobDue(job_id)


def passed(heap: list[T], now_ms: int) -> Iterator[T]:
    """The timers that are past, in their order, whatever the layout of the heap: a best-first walk down it."""
    frontier = [(heap[0], 0)] if heap else []
    while frontier:
        timer, place = heappop(frontier)
        if timer[0] > now_ms:
            return
        yield timer
        for below in (2 * place + 1, 2 * place + 2):
            if below < len(heap):
                heappush(frontier, (heap[below], below))


def _is_due(state: State, timer: tuple[int, int]) -> bool:
    """Whether the clock has to do something to the timer's job now. One that is left over from an earlier time of the job, as
    a restored state has none, decides nothing."""
    return timer[0] <= state.now_ms and state.is_timed(timer)


def _is_over(state: State, job: Job) -> bool:
    return 0 < job.deadline_ms <= state.now_ms


def _exceed(job: Job) -> Iterator[Event]:
    active = job.active_attempts or {}
    waiting = job.counts[TaskState.PENDING]
    yield JobDeadlineExceeded(job.id, waiting, tuple(sorted(index for index in active if not active[index].stopping)))
    if not active:
        after = list(job.counts)
        after[TaskState.PENDING] -= waiting
        after[TaskState.DEADLINE_EXCEEDED] += waiting
        yield JobEnded(job.id, derive_state(after, job.count, job.cancelling))


def evolve_due(state: State, event: JobDue) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    job.not_before_ms = 0


def evolve_exceeded(state: State, event: JobDeadlineExceeded) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    job.exceeded = Exceeded(state.now_ms, state.index)
    job.not_before_ms = 0
    state.end_waiting(job, TaskState.DEADLINE_EXCEEDED)
    attempts = job.active_attempts or {}
    for index in event.stopping:
        active = attempts[index]
        active.stopping = True
        active.changed_ms = state.now_ms
        active.log_index = state.index
    state.settle(job)


def drop_past(state: State) -> None:
    """Forget the timers that have done what they were for."""
    timers = state.job_timers
    while timers and timers[0][0] <= state.now_ms and not _is_due(state, timers[0]):
        heappop(timers)
