"""Slots: what becomes of each when it is due. It is fired, waits for an earlier run, or is skipped with its reason, once.

A slot stands in `pending` from when it is planned until it is settled; what is settled is told by an event and a row of the
ledger. Slots that are later than the grace were missed by everybody: which of them are fired is the schedule's `catch_up`, and
they are held until the leader has planned all that is due, for only then is it known which are the latest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

import msgspec

from hasched.model.schedule import CatchUp, Overlap, SlotOutcome, SlotRun, gather
from hasched.model.states import TaskState
from hasched.model.times import format_time
from hasched.statemachine.commands import CancelJob
from hasched.statemachine.events import (
    Event,
    JobDeadlineExceeded,
    JobSubmitted,
    ScheduleLate,
    ScheduleMissing,
    SlotFired,
    SlotsQueued,
    SlotsSkipped,
)
from hasched.statemachine.execution import Execution, ExecutionState
from hasched.statemachine.job import Job
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules import jobs
from hasched.statemachine.rules.submissions import Submissions
from hasched.statemachine.schedules import (
    OUTCOMES,
    SCHEDULE_VARIABLE,
    SLOT_VARIABLE,
    SLOTS_TOLD_SINCE,
    Pending,
    Row,
    Schedule,
    Waiting,
    due_of,
    late_kept,
    outcome_of,
    parent_of,
    parse_parent,
    submission_of,
)
from hasched.statemachine.state import State
from hasched.statemachine.workflow_events import ExecutionStarted, ExecutionStopRequested

MAX_SCHEDULES_PER_STEP = 500
MAX_FIRED_PER_STEP = 500


def decide_backlog(schedule: Schedule, pending: Sequence[Pending], now_ms: int) -> list[SlotsSkipped]:
    """What of the slots that are due is settled without being fired, whatever runs."""
    spec = schedule.spec
    due = due_of(pending, now_ms)
    if schedule.pause is None and all(each.fire_ms >= now_ms - spec.grace_ms and not each.verdict for each in due):
        return []  # it is in time
    late = [each for each in due if outcome_of(each.verdict) is None and each.fire_ms < now_ms - spec.grace_ms]
    kept = late_kept(spec)
    if spec.catch_up is CatchUp.LATEST and any(
        outcome_of(each.verdict) is None and each.fire_ms >= now_ms - spec.grace_ms for each in due
    ):
        kept = 0
    missed = {each.slot_ms: None for each in late[: max(0, len(late) - kept)]}
    outcomes: list[tuple[int, int]] = []
    for each in due:
        outcome = outcome_of(each.verdict)
        if outcome is None and schedule.pause is not None:
            outcome = SlotOutcome.PAUSED
        elif outcome is None and each.slot_ms in missed:
            outcome = SlotOutcome.MISSED
        if outcome is not None:
            outcomes.append((each.slot_ms, outcome))
    return [
        SlotsSkipped(schedule.name, run.first_ms, run.step_ms, run.number, SlotOutcome(run.verdict))
        for run in gather(sorted(outcomes))
    ]


def sort_out_past(
    schedule: Schedule, runs: Sequence[SlotRun], now_ms: int
) -> tuple[tuple[SlotRun, ...], list[SlotsSkipped]]:
    """Of slots that are planned, those that are to wait for their time, and those that are over: later than the grace by far, and
    not among the last that are fired nonetheless. So a month of seconds that nobody fired is never held one by one."""
    spec = schedule.spec
    left: list[SlotRun] = []
    past: list[SlotRun] = []
    for run in runs:
        before, after = run.split(now_ms - spec.grace_ms - spec.jitter_ms)
        past += [before] if before is not None else []
        left += [after] if after is not None else []
    missed = sum(run.number for run in past if outcome_of(run.verdict) is None)
    missed -= 0 if schedule.pause is not None else min(late_kept(spec), missed)
    kept: list[SlotRun] = []
    skipped: list[SlotsSkipped] = []
    for run in past:
        outcome, over, due = outcome_of(run.verdict), run, None
        if outcome is None:
            outcome = SlotOutcome.MISSED if schedule.pause is None else SlotOutcome.PAUSED
            first, due = run.cut(missed)
            missed -= first.number if first is not None else 0
            kept += [due] if due is not None else []
            if first is None:
                continue
            over = first
        skipped.append(SlotsSkipped(schedule.name, over.first_ms, over.step_ms, over.number, outcome, past=True))
    return (*kept, *left), skipped


def decide_due(state: State, before: Sequence[Event], submissions: Submissions) -> list[Event]:
    """What is due of all schedules, those that are due first first, bounded; the rest is due at once in the next step.

    `before` is what else the step does, first: jobs that it stops are not to be cancelled as well.
    """
    found: list[Event] = []
    budget = MAX_FIRED_PER_STEP
    stopped = {event.job_id: None for event in before if isinstance(event, JobDeadlineExceeded)}
    for name in _due_schedules(state):
        events = list(_decide(state, state.schedules[name], stopped, submissions, budget))
        budget -= sum(isinstance(event, SlotFired) for event in events)
        found += events
        if budget <= 0:
            break
    return found


def _due_schedules(state: State) -> Iterator[str]:
    """The names of schedules that the clock has something to do for, in the order of their times, whatever the heap's layout."""
    heap = state.schedule_timers
    frontier = [(heap[0], 0)] if heap else []
    found: dict[str, None] = {}
    while frontier and len(found) < MAX_SCHEDULES_PER_STEP:
        (due_ms, name), place = heappop(frontier)
        if due_ms > state.now_ms:
            return
        if state.is_schedule_timed((due_ms, name)) and name not in found:
            found[name] = None
            yield name
        for below in (2 * place + 1, 2 * place + 2):
            if below < len(heap):
                heappush(frontier, (heap[below], below))


def _decide(
    state: State, schedule: Schedule, stopped: dict[int, None], submissions: Submissions, budget: int
) -> Iterator[Event]:
    """One schedule whose time has come. Where runs may not overlap, one slot is met in a step: each meets what really runs."""
    now_ms, spec = state.now_ms, schedule.spec
    skipped = decide_backlog(schedule, schedule.pending, now_ms)
    yield from skipped
    if schedule.pause is not None:
        return
    free = spec.overlap is Overlap.ALLOW
    to_fire = _to_fire(schedule, skipped, now_ms)[: budget if free else 1]
    for slot in to_fire:
        yield from _meet(state, schedule, slot, stopped, submissions)
    if free or not (to_fire or state.runs_of_schedule(schedule.name)):
        for waiting in schedule.waiting[: budget if free else 1]:
            yield from _fire(state, schedule, waiting.slot_ms, SlotOutcome(waiting.outcome), submissions, waited=True)
    overdue = spec.missing_ms and schedule.watched_ms + spec.missing_ms <= now_ms
    if overdue and not schedule.missing:
        yield ScheduleMissing(schedule.name, schedule.watched_ms)


def _to_fire(schedule: Schedule, skipped: Sequence[SlotsSkipped], now_ms: int) -> list[Pending]:
    """What is due and not skipped; what is late only if all that is due is known."""
    gone = {slot_ms: None for each in skipped for slot_ms in SlotRun(each.first_ms, each.step_ms, each.count).slots()}
    since_ms = 0 if schedule.planned_ms >= now_ms else now_ms - schedule.spec.grace_ms
    return [each for each in due_of(schedule.pending, now_ms) if each.fire_ms >= since_ms and each.slot_ms not in gone]


def _meet(
    state: State, schedule: Schedule, slot: Pending, stopped: dict[int, None], submissions: Submissions
) -> Iterator[Event]:
    """A slot is due: fire it, or do what the schedule wants where that would overlap."""
    spec, name = schedule.spec, schedule.name
    delay_ms = state.now_ms - slot.fire_ms
    outcome = SlotOutcome.CAUGHT_UP if delay_ms > spec.grace_ms else SlotOutcome.FIRED
    running = state.runs_of_schedule(name)
    due = [each for each in schedule.waiting if each.outcome != SlotOutcome.BACKFILLED]
    if spec.overlap is Overlap.ALLOW or not (running or due):
        yield from _fire(state, schedule, slot.slot_ms, outcome, submissions, waited=False)
        if spec.late_ms and delay_ms >= spec.late_ms and not schedule.late:
            yield ScheduleLate(name, slot.slot_ms, delay_ms)
        return
    if spec.overlap is Overlap.FORBID:
        yield SlotsSkipped(name, slot.slot_ms, 0, 1, SlotOutcome.OVERLAP)
        return
    if spec.overlap is Overlap.QUEUE and len(due) >= spec.queue_limit:
        yield SlotsSkipped(name, slot.slot_ms, 0, 1, SlotOutcome.QUEUE_FULL)
        return
    if spec.overlap is Overlap.REPLACE:
        yield from (SlotsSkipped(name, each.slot_ms, 0, 1, SlotOutcome.REPLACED, waited=True) for each in due)
        for job_id in [job_id for job_id in state.schedule_jobs.get(name, ()) if job_id not in stopped]:
            reason = f"replaced by the slot of {format_time(slot.slot_ms)}"
            decision = jobs.decide_cancel(state, CancelJob(job_id=job_id, actor=schedule.actor, reason=reason))
            yield from () if isinstance(decision, Rejected) else decision.events
        for execution_id in sorted(state.schedule_executions.get(name, ())):
            if state.executions[execution_id].stop is None:
                reason = f"replaced by the slot of {format_time(slot.slot_ms)}"
                yield ExecutionStopRequested(
                    execution_id, ExecutionState.CANCELLED, schedule.actor, reason, whole=False
                )
    yield SlotsQueued(name, (SlotRun(slot.slot_ms, 0, 1),), outcome)


def _fire(
    state: State, schedule: Schedule, slot_ms: int, outcome: SlotOutcome, submissions: Submissions, *, waited: bool
) -> Iterator[Event]:
    """The run of a slot. Its submission id is the slot's, so there is one at most; what was asked for again is told apart."""
    name = schedule.name
    again = f" {state.index}" if outcome is SlotOutcome.BACKFILLED else ""
    submitted = _submit(schedule, slot_ms, submission_of(name, slot_ms) + again, submissions)
    if isinstance(submitted, Rejected):
        text = f"{submitted.cause} ({submitted.code})"
        yield SlotsSkipped(name, slot_ms, 0, 1, SlotOutcome.REFUSED, waited, text)
        return
    yield submitted
    if isinstance(submitted, JobSubmitted):
        yield SlotFired(name, slot_ms, outcome, submitted.job_id, waited)
    else:
        told = submitted.execution_id if state.entry_version >= SLOTS_TOLD_SINCE else 0
        yield SlotFired(name, slot_ms, outcome, 0, waited, told)


def _submit(
    schedule: Schedule, slot_ms: int, submission_id: str, submissions: Submissions
) -> JobSubmitted | ExecutionStarted | Rejected:
    name, job, workflow = schedule.name, schedule.spec.job, schedule.spec.workflow
    parent = parent_of(name, slot_ms)
    if workflow is not None:
        return submissions.start(
            workflow.spec,
            workflow.params,
            submission_id=submission_id,
            actor=schedule.actor,
            parent=parent,
            version=workflow.version,
        )
    assert job is not None, "a schedule has a job or a workflow"
    env = {**job.env, SCHEDULE_VARIABLE: name, SLOT_VARIABLE: format_time(slot_ms)}
    return submissions.submit(msgspec.structs.replace(job, env=env), submission_id, schedule.actor, parent)


# ── Performing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def evolve_fired(state: State, event: SlotFired) -> None:
    schedule = state.schedules[event.schedule]
    late = schedule.late
    if not event.waited:
        fire_ms = next(each.fire_ms for each in schedule.pending if each.slot_ms == event.slot_ms)
        late = late and state.now_ms - fire_ms >= schedule.spec.late_ms
    row = Row(event.slot_ms, 0, state.now_ms, event.job_id or event.execution_id, 1, event.outcome)
    state.put_schedule(msgspec.structs.replace(_settled(schedule, row, event.waited), late=late))


def evolve_skipped(state: State, event: SlotsSkipped) -> None:
    row = Row(event.first_ms, event.step_ms, state.now_ms, 0, event.count, event.outcome)
    schedule = _settled(state.schedules[event.schedule], row, event.waited, event.past)
    if event.text:
        schedule = msgspec.structs.replace(schedule, refusal=event.text)
    state.put_schedule(schedule)


def _settled(schedule: Schedule, row: Row, waited: bool, past: bool = False) -> Schedule:
    counts = list(schedule.counts) + [0] * (OUTCOMES - len(schedule.counts))
    counts[row.outcome] += row.number
    if past:
        return msgspec.structs.replace(schedule, rows=schedule.with_row(row), counts=tuple(counts))
    changes: dict[str, object] = {"rows": schedule.with_row(row), "counts": tuple(counts)}
    gone = dict.fromkeys(SlotRun(row.first_ms, row.step_ms, row.number).slots())
    if waited:
        changes["waiting"] = tuple(each for each in schedule.waiting if each.slot_ms not in gone)
    elif row.number == 1 and schedule.pending and schedule.pending[0].slot_ms == row.first_ms:  # as nearly always
        changes["pending"] = schedule.pending[1:]
    else:
        changes["pending"] = tuple(each for each in schedule.pending if each.slot_ms not in gone)
    return msgspec.structs.replace(schedule, **changes)


def evolve_queued(state: State, event: SlotsQueued) -> None:
    """Those that are due stand before those that somebody wants afterwards."""
    schedule = state.schedules[event.schedule]
    slots = [slot_ms for run in event.runs for slot_ms in run.slots()]
    added = tuple(Waiting(slot_ms, event.outcome) for slot_ms in slots)
    waiting = sorted((*schedule.waiting, *added), key=lambda each: each.outcome == SlotOutcome.BACKFILLED)
    pending = schedule.pending
    if not event.actor:
        pending = tuple(each for each in pending if each.slot_ms not in slots)
    state.put_schedule(msgspec.structs.replace(schedule, waiting=tuple(waiting), pending=pending))


def evolve_late(state: State, event: ScheduleLate) -> None:
    state.put_schedule(msgspec.structs.replace(state.schedules[event.schedule], late=True))


def evolve_missing(state: State, event: ScheduleMissing) -> None:
    state.put_schedule(msgspec.structs.replace(state.schedules[event.schedule], missing=True))


def note_end(state: State, job: Job) -> None:
    """A job has ended. If it was a schedule's, that one may go on."""
    found = parse_parent(job.parent) if job.parent else None
    if found is not None and state.drop_schedule_job(found[0], job.id):
        _go_on(state, found[0], job.state is TaskState.SUCCEEDED)


def note_execution_end(state: State, execution: Execution) -> None:
    """Likewise of an execution."""
    found = parse_parent(execution.parent)
    if found is not None and state.drop_schedule_execution(found[0], execution.id):
        _go_on(state, found[0], execution.state is ExecutionState.SUCCEEDED)


def _go_on(state: State, name: str, succeeded: bool) -> None:
    schedule = state.schedules.get(name)
    if schedule is None:
        return
    if succeeded:
        now_ms = state.now_ms
        schedule = msgspec.structs.replace(schedule, succeeded_ms=now_ms, watched_ms=now_ms, missing=False)
    state.put_schedule(schedule)


def renew_timers(state: State) -> None:
    """The clock was stepped: what was due is due at another time, or at once where some of it is left."""
    past: dict[str, None] = {}
    while state.schedule_timers and state.schedule_timers[0][0] <= state.now_ms:
        timer = heappop(state.schedule_timers)
        if state.is_schedule_timed(timer):
            past[timer[1]] = None
    for name in past:
        state.time_again(name)
