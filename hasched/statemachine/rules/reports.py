"""Reports: what agents say of attempts.

An attempt's number is its fence. Only the attempt that the state holds as current can decide about its task; what any
other reports is refused, whatever it says, so a task's outcome is recorded once even if its command ran twice.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from hasched.model.states import TaskState
from hasched.model.units import MAX_INTEGER
from hasched.model.wire import AttemptCheckpointed as CheckpointReport
from hasched.model.wire import AttemptEnded as EndedReport
from hasched.model.wire import AttemptReport
from hasched.model.wire import AttemptStarted as StartedReport
from hasched.statemachine.events import AttemptCheckpointed, AttemptStarted, Event, LateReportRefused
from hasched.statemachine.job import Job, Late
from hasched.statemachine.rules.ends import decide_end, judge
from hasched.statemachine.state import State

_NOTHING: list[Event] = []


def decide_report(state: State, node_id: str, report: AttemptReport) -> tuple[list[Event], bool]:
    """What a report makes happen, and whether it counts. A repeated report counts and makes nothing happen."""
    job = state.jobs.get(report.job_id)
    if job is None or not 0 <= report.index < job.count or not _is_sound(report):
        return _NOTHING, False
    active = job.attempt_of(report.index)
    if active is None or active.attempt != report.attempt:
        return _decide_past_report(state, job, node_id, report)
    if active.node_id != node_id:
        return _NOTHING, False
    match report:
        case EndedReport():
            return decide_end(state, job, active, report), True
        case StartedReport():
            if active.state is TaskState.RUNNING:
                return _NOTHING, True
            started = AttemptStarted(job.id, report.index, report.attempt, active.node_id, report.started_ms)
            return [started], True
        case CheckpointReport(checkpoint_ms=checkpoint_ms):
            if checkpoint_ms <= job.checkpoint_of(report.index):
                return _NOTHING, True
            return [
                AttemptCheckpointed(job.id, report.index, report.attempt, active.node_id, checkpoint_ms),
            ], True
        case _:
            assert_never(report)


def _is_sound(report: AttemptReport) -> bool:
    """Whether its numbers can be: what is recorded has to fit every snapshot and every answer."""
    if isinstance(report, CheckpointReport):
        return 0 < report.checkpoint_ms <= MAX_INTEGER
    if not 0 <= report.started_ms <= MAX_INTEGER:
        return False
    return not isinstance(report, EndedReport) or (
        0 <= report.ended_ms <= MAX_INTEGER
        and 0 <= report.checkpoint_ms <= MAX_INTEGER
        and -MAX_INTEGER <= report.code <= MAX_INTEGER
        and 0 <= report.usage.cpu_ms <= MAX_INTEGER
        and 0 <= report.usage.peak_memory_bytes <= MAX_INTEGER
    )


def _decide_past_report(state: State, job: Job, node_id: str, report: AttemptReport) -> tuple[list[Event], bool]:
    """A report of an attempt that isn't current: a repeat of what is recorded, a late one of a lost attempt, or nonsense."""
    history = job.history_of(report.index)
    if history is None:
        plain = job.plain_end_of(report.index)
        repeated = plain is not None and report.attempt == 1 and state.node_names[plain.node_number] == node_id
        return _NOTHING, repeated
    place = history.place_of(report.attempt)
    if place < 0:
        return _NOTHING, False
    record = history.attempts[place]
    if record.node_id != node_id:
        return _NOTHING, False
    if record.reported:
        return _NOTHING, True
    if record.late is not None or not isinstance(report, EndedReport):
        return _NOTHING, False
    late_state = judge(job, None, report.kind, report.code)
    return [
        LateReportRefused(job.id, report.index, report.attempt, node_id, late_state, report.kind, report.code)
    ], False


def evolve_started(state: State, event: AttemptStarted) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    active = job.attempt_of(event.index)
    assert active is not None, "only a current attempt starts"
    active.state = TaskState.RUNNING
    active.started_ms = event.started_ms
    active.changed_ms = state.now_ms
    active.log_index = state.index
    state.note_start(job, event.started_ms)
    state.move_task(job, event.index, TaskState.RUNNING)
    state.settle(job)


def evolve_checkpointed(state: State, event: AttemptCheckpointed) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    job.checkpoints = job.checkpoints or {}
    job.checkpoints[event.index] = event.checkpoint_ms


def evolve_late_report(state: State, event: LateReportRefused) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    history = job.history_of(event.index)
    assert history is not None, "a lost attempt is in its task's history"
    late = Late(event.state, event.kind, event.code, state.now_ms, state.index)
    place = history.place_of(event.attempt)
    history.attempts[place] = msgspec.structs.replace(history.attempts[place], late=late)
