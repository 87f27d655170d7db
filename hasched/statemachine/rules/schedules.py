"""Schedules: put and deleted whole, paused and resumed, and planned ahead by the leader, every instant once.

`rules/slots.py` has what becomes of the slots.
"""

from __future__ import annotations

import msgspec

from hasched.model.ids import is_name
from hasched.model.policy import PolicyKind
from hasched.model.schedule import (
    MAX_CATCH_UP,
    MAX_JITTER_MS,
    MAX_QUEUE,
    NEVER_MS,
    ScheduleSpec,
    SlotOutcome,
    SlotRun,
    Verdict,
    jitter_of,
)
from hasched.model.units import MAX_INTEGER
from hasched.statemachine.commands import (
    BackfillSchedule,
    DeleteSchedule,
    PauseSchedule,
    PlanSlots,
    PutSchedule,
    ResumeSchedule,
)
from hasched.statemachine.events import (
    ScheduleDeleted,
    SchedulePaused,
    SchedulePut,
    ScheduleResumed,
    SlotsPlanned,
    SlotsQueued,
)
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules import Decision, slots
from hasched.statemachine.rules.executions import fault_of_workflow
from hasched.statemachine.schedules import Pause, Pending, Schedule
from hasched.statemachine.state import State

MAX_SCHEDULES = 10_000
MAX_PENDING = 20_000  # slots of a schedule that are planned and not settled
MAX_PLANNED = 10_000  # in one command
MAX_AHEAD_MS = 25 * 3_600_000
MAX_BACKFILL = 1000  # slots that wait in all
MAX_SPEC_BYTES = 1024 * 1024
MAX_BYTES = 128 * 1024 * 1024  # of what all schedules say
MAX_REASON = 1024

_encoder = msgspec.msgpack.Encoder()


def decide_put(state: State, command: PutSchedule) -> Decision | Rejected:
    present = state.schedules.get(command.name)
    if present is not None and present.spec == command.spec:
        return Decision([])
    index = present.revision if present is not None else 0
    if command.if_index is not None and command.if_index != index:
        seen = f"was put at {index}" if index else "is not there any more"
        cause = f"schedule {command.name[:100]} {seen}, and {command.if_index} was expected"
        return Rejected("schedule_changed", cause, "look at it, and try again")
    if present is None and len(state.schedules) >= MAX_SCHEDULES:
        return Rejected("too_many_schedules", f"a cluster has at most {MAX_SCHEDULES} schedules", "delete some")
    size = len(_encoder.encode(command.spec))
    if state.schedule_bytes + size - state.schedule_sizes.get(command.name, 0) > MAX_BYTES:
        return Rejected("too_many_schedules", f"schedules take {MAX_BYTES} bytes in all at most", "delete some")
    if fault := _fault_of(command, size):
        return Rejected("invalid_schedule", fault, "validate schedules with parse_schedule before they are proposed")
    namespace = command.spec.namespace
    if namespace not in state.policies[PolicyKind.NAMESPACE]:
        return Rejected("unknown_namespace", f"there is no namespace {namespace}", "see `hasched namespace list`")
    return Decision([SchedulePut(command.name, command.spec, command.actor)])


def _fault_of(command: PutSchedule, size: int) -> str:
    spec = command.spec
    if not is_name(command.name):
        return "the name is not a name"
    if sum(map(bool, (spec.cron, spec.every_ms, spec.at))) != 1:
        return "one of cron, every and at says when"
    times = (spec.every_ms, *spec.at, spec.start_ms, spec.end_ms, spec.grace_ms, spec.late_ms, spec.missing_ms)
    if any(not 0 <= time_ms <= MAX_INTEGER // 2 for time_ms in times) or list(spec.at) != sorted(spec.at):
        return "a time is out of bounds"
    if not 0 <= spec.jitter_ms <= MAX_JITTER_MS:
        return "the jitter is out of bounds"
    if not 0 < spec.catch_up_limit <= MAX_CATCH_UP or not 0 < spec.queue_limit <= MAX_QUEUE:
        return "a limit is out of bounds"
    if (spec.job is None) is (spec.workflow is None):
        return "one of job and workflow says what"
    if spec.workflow is not None and (fault := fault_of_workflow(spec.workflow.spec)):
        return fault
    if spec.job is not None and (spec.job.not_before_ms or spec.job.deadline_ms):
        return "the job of a schedule has no dates"
    return "the schedule is too large" if size > MAX_SPEC_BYTES else ""


def evolve_put(state: State, event: SchedulePut) -> None:
    """What was planned of the future is planned anew; what was due already stays due."""
    now_ms, present = state.now_ms, state.schedules.get(event.schedule)
    if present is None:
        schedule = Schedule(
            name=event.schedule,
            spec=event.spec,
            actor=event.actor,
            created_ms=now_ms,
            changed_ms=now_ms,
            revision=state.index,
            planned_ms=now_ms,
            log_index=state.index,
            watched_ms=now_ms,
        )
    else:
        schedule = msgspec.structs.replace(
            present,
            spec=event.spec,
            actor=event.actor,
            changed_ms=now_ms,
            revision=state.index,
            planned_ms=min(present.planned_ms, now_ms),
            pending=tuple(each for each in present.pending if each.slot_ms <= now_ms),
            watched_ms=now_ms,
            missing=False,
        )
    state.put_schedule(schedule)
    state.size_schedule(schedule)


def decide_delete(state: State, command: DeleteSchedule) -> Decision | Rejected:
    if command.name not in state.schedules:
        return no_such_schedule(command.name)
    return Decision([ScheduleDeleted(command.name, command.actor)])


def evolve_deleted(state: State, event: ScheduleDeleted) -> None:
    state.drop_schedule(event.schedule)


def decide_pause(state: State, command: PauseSchedule) -> Decision | Rejected:
    schedule = state.schedules.get(command.name)
    if schedule is None:
        return no_such_schedule(command.name)
    if len(command.reason) > MAX_REASON:
        return Rejected("invalid_reason", f"a reason has at most {MAX_REASON} characters", "say it shorter")
    if schedule.pause is not None:
        return Decision([])
    return Decision([SchedulePaused(command.name, command.actor, command.reason)])


def evolve_paused(state: State, event: SchedulePaused) -> None:
    pause = Pause(event.actor, event.reason, state.now_ms)
    state.put_schedule(msgspec.structs.replace(state.schedules[event.schedule], pause=pause, missing=False))


def decide_resume(state: State, command: ResumeSchedule) -> Decision | Rejected:
    schedule = state.schedules.get(command.name)
    if schedule is None:
        return no_such_schedule(command.name)
    if schedule.pause is None:
        return Decision([])
    return Decision(
        [*slots.decide_backlog(schedule, schedule.pending, state.now_ms), ScheduleResumed(command.name, command.actor)]
    )


def evolve_resumed(state: State, event: ScheduleResumed) -> None:
    schedule = state.schedules[event.schedule]
    state.put_schedule(msgspec.structs.replace(schedule, pause=None, watched_ms=state.now_ms))


def decide_plan(state: State, command: PlanSlots) -> Decision | Rejected:
    schedule = state.schedules.get(command.name)
    if schedule is None:
        return no_such_schedule(command.name)
    if command.revision != schedule.revision or command.after_ms != schedule.planned_ms:
        cause = f"slots of {command.name} are planned to {schedule.planned_ms}, of revision {schedule.revision}"
        return Rejected("plan_outdated", cause, "plan from there")
    if fault := _fault_of_runs(command.runs, command.after_ms, command.until_ms):
        return Rejected("invalid_plan", fault, "this is a bug in hasched; please report it")
    if not command.after_ms < command.until_ms <= state.now_ms + MAX_AHEAD_MS and command.until_ms != NEVER_MS:
        return Rejected("invalid_plan", f"{command.until_ms} is not a time to plan to", "plan less far ahead")
    runs, past = slots.sort_out_past(schedule, command.runs, state.now_ms)
    pending = tuple(sorted((*schedule.pending, *_pending_of(schedule, runs))))
    settled = slots.decide_backlog(schedule, pending, state.now_ms)
    if len(pending) - sum(each.count for each in settled) > MAX_PENDING:
        return Rejected("too_many_pending", f"{len(schedule.pending)} slots wait to be fired", "plan again later")
    skipped = sorted([*past, *settled], key=lambda each: each.first_ms)
    return Decision([SlotsPlanned(command.name, command.until_ms, runs), *skipped])


def _fault_of_runs(runs: tuple[SlotRun, ...], after_ms: int, until_ms: int) -> str:
    last_ms = after_ms
    for run in runs:
        if run.first_ms <= last_ms or run.number < 1 or run.step_ms < (run.number > 1) or run.last_ms > until_ms:
            return "the slots are not in their order, or not where they were planned"
        if run.verdict not in tuple(Verdict):
            return "a verdict is none"
        last_ms = run.last_ms
    return "there are too many slots" if sum(run.number for run in runs) > MAX_PLANNED else ""


def _pending_of(schedule: Schedule, runs: tuple[SlotRun, ...]) -> list[Pending]:
    jitter_ms = schedule.spec.jitter_ms
    return [
        Pending(slot_ms + jitter_of(schedule.name, slot_ms, jitter_ms), slot_ms, run.verdict)
        for run in runs
        for slot_ms in run.slots()
    ]


def evolve_planned(state: State, event: SlotsPlanned) -> None:
    schedule = state.schedules[event.schedule]
    added = _pending_of(schedule, event.runs)
    pending = tuple(sorted((*schedule.pending, *added))) if added else schedule.pending
    state.put_schedule(msgspec.structs.replace(schedule, planned_ms=event.until_ms, pending=pending))


def decide_backfill(state: State, command: BackfillSchedule) -> Decision | Rejected:
    schedule = state.schedules.get(command.name)
    if schedule is None:
        return no_such_schedule(command.name)
    if fault := _fault_of_runs(command.runs, -1, NEVER_MS):
        return Rejected("invalid_backfill", fault, "name slots of the past in their order")
    if command.runs and command.runs[-1].last_ms > min(state.now_ms, schedule.planned_ms):
        return Rejected("invalid_backfill", "a slot is not past", "it will be fired when it is due")
    taken = {each.slot_ms: None for each in schedule.pending} | {each.slot_ms: None for each in schedule.waiting}
    if not command.again:
        taken.update({row.first_ms: None for row in schedule.ledger() if row.outcome.fired})
    wanted = [slot_ms for run in command.runs for slot_ms in run.slots() if slot_ms not in taken]
    if len(schedule.waiting) + len(wanted) > MAX_BACKFILL:
        cause = f"{len(wanted)} slots, and {len(schedule.waiting)} wait already: at most {MAX_BACKFILL} may"
        return Rejected("too_many_slots", cause, "take a shorter range")
    if not wanted:
        return Decision([])
    runs = tuple(SlotRun(slot_ms, 0, 1) for slot_ms in wanted)
    return Decision([SlotsQueued(command.name, runs, SlotOutcome.BACKFILLED, command.actor)])


def no_such_schedule(name: str) -> Rejected:
    return Rejected("no_such_schedule", f"there is no schedule {name[:128]}", "see `hasched schedule list`")


def namespace_of(spec: ScheduleSpec) -> str:
    """Whose schedule it is."""
    return spec.namespace
