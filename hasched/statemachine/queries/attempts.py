"""Attempts, whichever way they are kept, and why they ended as they did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from hasched.model.states import EndKind, TaskState
from hasched.model.views import AttemptView, LateReport, Reason, UsageView
from hasched.model.wire import Resume
from hasched.statemachine.job import ActiveAttempt, AttemptRecord, Cancel, Job
from hasched.statemachine.records import OUTPUT_DROPPED
from hasched.statemachine.waits import ACTOR, NEVER


def resumed_tasks(job: Job, indices: Iterable[int]) -> Iterator[Resume]:
    """What the next attempts of these tasks are told of those before. Costs nothing where no task of the job ran before."""
    if job.histories is None and job.checkpoints is None:
        return
    for index in indices:
        history = job.history_of(index)
        last = history.attempts[-1] if history is not None and history.attempts else None
        preempted_from = last.node_id if last is not None and last.kind is EndKind.PREEMPTED else ""
        checkpoint_ms = job.checkpoint_of(index)
        if checkpoint_ms or preempted_from:
            yield Resume(index, checkpoint_ms, preempted_from)


def show_active(active: ActiveAttempt) -> AttemptView:
    return AttemptView(
        attempt=active.attempt,
        state=active.state.name,
        node_id=active.node_id,
        scheduled_ms=active.scheduled_ms,
        started_ms=active.started_ms,
    )


def show_attempt(record: AttemptRecord, cancel: Cancel | None) -> AttemptView:
    late = record.late
    return AttemptView(
        attempt=record.attempt,
        state=record.kind.name if record.state is TaskState.PENDING else record.state.name,
        node_id=record.node_id,
        reason=reason_of_end(record, cancel),
        exit_code=record.code if record.kind is EndKind.EXITED else None,
        signal=record.code if record.kind is EndKind.SIGNALED else None,
        scheduled_ms=record.scheduled_ms,
        started_ms=record.started_ms,
        ended_ms=record.ended_ms,
        usage=UsageView(cpu_ms=record.cpu_ms, peak_memory_bytes=record.peak_memory_bytes),
        late_report=LateReport(
            state=late.state.name, code=late.code, reported_ms=late.reported_ms, index=late.log_index
        )
        if late is not None
        else None,
    )


def reason_of_end(record: AttemptRecord, cancel: Cancel | None) -> Reason | None:
    """That an output was dropped is added to why the attempt ended, or stands alone where nothing else needs a reason."""
    if not record.reason.endswith(OUTPUT_DROPPED):
        return _reason_of(record, cancel)
    said = record.reason.removesuffix(OUTPUT_DROPPED).removesuffix("; ")
    reason = _reason_of(msgspec.structs.replace(record, reason=said), cancel)
    if reason is None:
        return Reason(code="output_dropped", text=OUTPUT_DROPPED)
    return Reason(code=reason.code, text=f"{reason.text}; {OUTPUT_DROPPED}")


def _reason_of(record: AttemptRecord, cancel: Cancel | None) -> Reason | None:
    match record.state:
        case TaskState.SUCCEEDED:
            return None
        case TaskState.CANCELLED if cancel is not None:
            return cancelled(cancel)
        case TaskState.PENDING:
            return Reason(code=record.kind.name.lower(), text=record.reason)
        case TaskState.DEADLINE_EXCEEDED:
            return Reason(code="deadline", text="stopped at its job's deadline")
        case TaskState.NODE_LOST if record.kind is EndKind.DEVICE_LOST:
            return Reason(code="device_lost", text=record.reason or "a device that it held is gone")
        case TaskState.NODE_LOST:
            return Reason(code="node_lost", text=record.reason or "its node was lost")
        case TaskState.TIMED_OUT:
            return Reason(code="timed_out", text=record.reason or "ran longer than its timeout")
        case TaskState.OUT_OF_MEMORY:
            return Reason(code="out_of_memory", text=record.reason or "used more memory than it asked for")
        case _ if record.kind is EndKind.LAUNCH_FAILED:
            return Reason(code="launch_failed", text=record.reason or "could not be started")
        case _ if record.kind is EndKind.SIGNALED:
            return Reason(code="signal", text=record.reason or f"killed by signal {record.code}")
        case _:
            return Reason(code="exit_code", text=record.reason or f"exited with code {record.code}")


def cancel_of(job: Job, index: int) -> Cancel | None:
    """The request that cancelled a task: one of its own, or the whole job's."""
    history = job.history_of(index)
    return (history.cancel if history is not None else None) or job.cancel


def cancelled(cancel: Cancel) -> Reason:
    by_itself = cancel.actor == ACTOR and cancel.reason.startswith(NEVER)
    return Reason(code=NEVER if by_itself else "cancelled", text=words_of(cancel, "cancelled"))


def words_of(cancel: Cancel, what: str) -> str:
    return f"{what} (by {cancel.actor}{': ' + cancel.reason if cancel.reason else ''})"
