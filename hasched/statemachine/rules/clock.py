"""The clock: what comes due without anybody asking. The leader proposes a `StepClock` at `next_deadline`.

Between two steps the heap and the two `…_due_ms` bounds may name what is no longer there; a step clears them, so a
deadline can be too early by one step and never too late.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice

from hasched.model.policy import PolicyKind, Reservation
from hasched.statemachine import state as tables
from hasched.statemachine.events import ClockStepped, Event, JobExpired, SubmissionsForgotten, TasksEligible, WeekBegan
from hasched.statemachine.job import IN_BACKOFF
from hasched.statemachine.rules import Decision, deadlines, executions, node_control, releases, slots, workflows
from hasched.statemachine.rules.deadlines import passed
from hasched.statemachine.rules.submissions import Submissions
from hasched.statemachine.state import State, Tombstone
from hasched.statemachine.weeks import start_of_week, week_of

MAX_RETRIES_PER_STEP = 2000
RETRIES_BOUNDED_SINCE = 2  # the version of entries; before, all that were due left their backoff in one step
MAX_FORGOTTEN_PER_STEP = 1000  # beyond it whatever shares the last one's time, so that no order among equals can matter


def next_deadline(state: State) -> int | None:
    """When the clock has to be stepped next, in ms since the epoch; None while nothing will come due. O(1)."""
    due = [state.backoffs[0][0]] if state.backoffs else []
    if state.ended:
        overfull = len(state.ended) > tables.MAX_ENDED_JOBS
        due.append(state.now_ms if overfull else state.ended_due_ms)
    if state.tombstones:
        overfull = len(state.tombstones) > tables.MAX_TOMBSTONES
        due.append(state.now_ms if overfull else state.tombstones_due_ms)
    if state.job_timers:
        due.append(state.job_timers[0][0])
    due += releases.next_due(state)
    if state.schedule_timers:
        due.append(state.schedule_timers[0][0])
    if state.node_due_ms:
        due.append(state.node_due_ms)
    if state.usage.limits.weekly:
        due.append(start_of_week(state.week + 1) if state.week else state.now_ms)
    if state.ready_executions:
        due.append(state.now_ms)
    if state.execution_due_ms:
        due.append(state.execution_due_ms)
    if state.ended_executions:
        due.append(state.now_ms if executions.are_overfull(state) else executions.next_expiry(state))
    reservations = state.policies[PolicyKind.RESERVATION]
    if reservations:  # nothing happens to the state at the end of one, but its nodes are free again for those who plan
        bodies = [record.body for record in reservations.values()]
        due += [body.end_ms for body in bodies if isinstance(body, Reservation) and body.end_ms > state.now_ms]
    return min(due, default=None)


def decide_step(state: State) -> Decision:
    events: list[Event] = []
    eligible: dict[int, list[int]] = {}
    for job_id, index in sorted(_due_retries(state)):
        eligible.setdefault(job_id, []).append(index)
    events.extend(TasksEligible(job_id, tuple(indices)) for job_id, indices in eligible.items())
    events.extend(deadlines.decide_due(state))
    events.extend(node_control.decide_due(state))
    submissions = Submissions(state)
    events.extend(slots.decide_due(state, events, submissions))
    events.extend(JobExpired(job_id) for job_id in sorted(_due_jobs(state)))
    if state.usage.limits.weekly and week_of(state.now_ms) > state.week:
        events.append(WeekBegan(week_of(state.now_ms)))
    forgotten = tuple(sorted(_due_tombstones(state)))
    if forgotten:
        events.append(SubmissionsForgotten(forgotten))
    events.extend(executions.decide_expired(state))
    if state.ready_executions or (state.execution_due_ms and state.execution_due_ms <= state.now_ms):
        events.extend(workflows.Step(state, events, submissions).run())  # it has to know what else happens
    events.extend(releases.decide_due(state, events))
    events.append(ClockStepped())
    return Decision(events)


def _due_retries(state: State) -> Iterator[tuple[int, int]]:
    """The (job, index) of backoffs that are over, the first `MAX_RETRIES_PER_STEP` of them; the rest is due at once, in the
    next step."""
    all_of_them = state.entry_version < RETRIES_BOUNDED_SINCE
    waiting = (
        (job_id, index)
        for _, job_id, index in passed(state.backoffs, state.now_ms)
        if _is_in_backoff(state, job_id, index)
    )
    yield from waiting if all_of_them else islice(waiting, MAX_RETRIES_PER_STEP)


def _is_in_backoff(state: State, job_id: int, index: int) -> bool:
    """A task leaves backoff only by a step of the clock or for good, by a cancel or with its gang's shrinking."""
    job = state.jobs.get(job_id)
    return job is not None and index < job.count and job.phases[index] == IN_BACKOFF


def _due_jobs(state: State) -> Iterator[int]:
    excess = len(state.ended) - tables.MAX_ENDED_JOBS
    last_ms = -1
    for number, job_id in enumerate(state.ended):
        ended_ms = state.jobs[job_id].ended_ms
        due = number < excess or ended_ms + tables.RETENTION_MS <= state.now_ms
        if ended_ms != last_ms and (not due or number >= MAX_FORGOTTEN_PER_STEP):
            return
        last_ms = ended_ms
        yield job_id


def _due_tombstones(state: State) -> Iterator[str]:
    excess = len(state.tombstones) - tables.MAX_TOMBSTONES
    last_ms = -1
    for number, (submission_id, packed) in enumerate(state.tombstones.items()):
        tombstone = Tombstone.unpack(packed)
        due = number < excess or tombstone.gone_ms + tables.SUBMISSION_MEMORY_MS <= state.now_ms
        if tombstone.gone_ms != last_ms and (not due or number >= MAX_FORGOTTEN_PER_STEP):
            return
        last_ms = tombstone.gone_ms
        yield submission_id


def evolve_week(state: State, event: WeekBegan) -> None:
    state.week = event.week


def evolve_forgotten(state: State, event: SubmissionsForgotten) -> None:
    for submission_id in event.submission_ids:
        del state.tombstones[submission_id]


def evolve_stepped(state: State) -> None:
    backoffs = state.backoffs
    while backoffs and backoffs[0][0] <= state.now_ms and not _is_in_backoff(state, *backoffs[0][1:]):
        heapq.heappop(backoffs)
    deadlines.drop_past(state)
    releases.settle(state)
    slots.renew_timers(state)
    renew_bounds(state)


def renew_bounds(state: State) -> None:
    """Set both bounds to when the first of each table is really due."""
    first_ended = next(iter(state.ended), None)
    if first_ended is not None:
        state.ended_due_ms = state.jobs[first_ended].ended_ms + tables.RETENTION_MS
    first_gone = next(iter(state.tombstones.values()), None)
    if first_gone is not None:
        state.tombstones_due_ms = Tombstone.unpack(first_gone).gone_ms + tables.SUBMISSION_MEMORY_MS
