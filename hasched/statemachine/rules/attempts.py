"""Attempts: placed on nodes, started, ended, tried again.

An attempt's number is its fence. Only the attempt that the state holds as current can decide about its task; what any
other reports is refused, whatever it says, so a task's outcome is recorded once even if its command ran twice.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from hasched.model.spec import MAX_OUTPUT_BYTES, Backoff
from hasched.model.states import BackoffKind, EndKind, NodeState, RestartPolicy, TaskState
from hasched.model.wire import AttemptEnded as EndedReport
from hasched.model.wire import AttemptReport, Usage
from hasched.model.wire import AttemptStarted as StartedReport
from hasched.statemachine import columns
from hasched.statemachine.commands import Placement
from hasched.statemachine.events import (
    AttemptEnded,
    AttemptStarted,
    Event,
    JobEnded,
    LateReportRefused,
    TasksEligible,
    TasksScheduled,
)
from hasched.statemachine.job import IN_BACKOFF, ActiveAttempt, AttemptRecord, Job, Late, TaskHistory, derive_state
from hasched.statemachine.node import Node
from hasched.statemachine.state import State

MAX_REASON_LENGTH = 1000
NO_USAGE = Usage()
_NOTHING: list[Event] = []


# ── Placement ───────────────────────────────────────────────────────────────────────────────────────────────────────


def decide_placement(state: State, placement: Placement) -> TasksScheduled | None:
    """As many of the placement's tasks as may start there now, in its order; None if none may."""
    job = state.jobs.get(placement.job_id)
    node = state.nodes.get(placement.node_id)
    if job is None or node is None or node.state is not NodeState.HEALTHY or job.suspended or job.cancelling:
        return None
    indices = [index for index in dict.fromkeys(placement.indices) if job.is_eligible(index)]
    room = node.room_for(job.resources, len(indices))
    if job.max_running:
        room = min(room, job.max_running - job.active)
    if room <= 0 or not indices:
        return None
    placed = tuple(indices[:room])
    return TasksScheduled(job.id, node.id, placed, tuple(job.attempts_made(index) + 1 for index in placed))


def evolve_scheduled(state: State, event: TasksScheduled) -> None:
    job = state.jobs[event.job_id]
    node = state.nodes[event.node_id]
    state.touch(job)
    if job.active_attempts is None:
        job.active_attempts = {}
    for index, attempt in zip(event.indices, event.attempts, strict=True):
        state.move_task(job, index, TaskState.SCHEDULED)
        job.active_attempts[index] = ActiveAttempt(
            attempt, node.id, TaskState.SCHEDULED, state.now_ms, state.index, state.now_ms
        )
        node.attempts[job.id, index] = attempt
    node.allocate(job.resources, len(event.indices))
    state.settle(job)


# ── Reports ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def decide_report(state: State, node_id: str, report: AttemptReport) -> tuple[list[Event], bool]:
    """What a report makes happen, and whether it counts. A repeated report counts and makes nothing happen."""
    job = state.jobs.get(report.job_id)
    if job is None or not 0 <= report.index < job.count:
        return _NOTHING, False
    active = job.attempt_of(report.index)
    if active is None or active.attempt != report.attempt:
        return _decide_past_report(state, job, node_id, report)
    if active.node_id != node_id:
        return _NOTHING, False
    match report:
        case EndedReport():
            return _decide_end(state, job, active, report), True
        case StartedReport():
            if active.state is TaskState.RUNNING:
                return _NOTHING, True
            started = AttemptStarted(job.id, report.index, report.attempt, active.node_id, report.started_ms)
            return [started], True
        case _:
            assert_never(report)


def _decide_past_report(state: State, job: Job, node_id: str, report: AttemptReport) -> tuple[list[Event], bool]:
    """A report of an attempt that isn't current: a repeat of what is recorded, a late one of a lost attempt, or nonsense."""
    history = job.history_of(report.index)
    if history is None:
        plain = job.plain_end_of(report.index)
        repeated = plain is not None and report.attempt == 1 and state.node_names[plain.node_number] == node_id
        return _NOTHING, repeated
    if not 1 <= report.attempt <= len(history.attempts):
        return _NOTHING, False
    record = history.attempts[report.attempt - 1]
    if record.node_id != node_id:
        return _NOTHING, False
    if record.reported:
        return _NOTHING, True
    if record.late is not None or not isinstance(report, EndedReport):
        return _NOTHING, False
    late_state = _judge(job, False, report.kind, report.code)
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
    job.started_ms = job.started_ms or event.started_ms
    state.move_task(job, event.index, TaskState.RUNNING)
    state.settle(job)


def evolve_late_report(state: State, event: LateReportRefused) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    history = job.history_of(event.index)
    assert history is not None, "a lost attempt is in its task's history"
    late = Late(event.state, event.kind, event.code, state.now_ms, state.index)
    place = event.attempt - 1
    history.attempts[place] = msgspec.structs.replace(history.attempts[place], late=late)


# ── Ends ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _judge(job: Job, stopping: bool, kind: EndKind, code: int) -> TaskState:
    """What an attempt's end makes of it. Success counts even where a stop was on its way."""
    if kind is EndKind.EXITED and code in job.success_exit_codes:
        return TaskState.SUCCEEDED
    if stopping:
        return TaskState.CANCELLED
    match kind:
        case EndKind.EXITED | EndKind.SIGNALED | EndKind.LAUNCH_FAILED:
            return TaskState.FAILED
        case EndKind.TIMED_OUT:
            return TaskState.TIMED_OUT
        case EndKind.OUT_OF_MEMORY:
            return TaskState.OUT_OF_MEMORY
        case EndKind.STOPPED | EndKind.LOST:
            # Nobody asked for a stop, so the agent ended it when its lease ran out: the node's fault, not the task's.
            return TaskState.NODE_LOST
        case _:
            assert_never(kind)


def _decide_end(state: State, job: Job, active: ActiveAttempt, report: EndedReport) -> list[Event]:
    end = _judge(job, active.stopping, report.kind, report.code)
    task_state, not_before_ms = (end, 0) if end is TaskState.SUCCEEDED else _what_next(state, job, report.index, end)
    ended = AttemptEnded(
        job.id,
        report.index,
        report.attempt,
        active.node_id,
        end,
        task_state,
        report.kind,
        report.code,
        report.reason[:MAX_REASON_LENGTH],
        report.usage,
        report.output[:MAX_OUTPUT_BYTES],
        report.started_ms,
        report.ended_ms,
        not_before_ms,
    )
    if not task_state.final or job.count - sum(job.counts[TaskState.SUCCEEDED :]) > 1:
        return [ended]
    if job.count == 1:
        return [ended, JobEnded(job.id, task_state)]
    after = list(job.counts)
    after[active.state] -= 1
    after[task_state] += 1
    return [ended, JobEnded(job.id, derive_state(after, job.count, job.cancelling))]


def decide_losses(state: State, node: Node, reason: str) -> list[Event]:
    """Give up every attempt on a node: tried again elsewhere where the job's budget allows, else NODE_LOST for good."""
    events: list[Event] = []
    counts_of: dict[int, list[int]] = {}
    for job_id, index in sorted(node.attempts):
        job = state.jobs[job_id]
        active = job.attempt_of(index)
        assert active is not None, "a node holds only current attempts"
        end = TaskState.CANCELLED if active.stopping else TaskState.NODE_LOST
        task_state, not_before_ms = _what_next(state, job, index, end)
        events.append(
            AttemptEnded(
                job_id,
                index,
                active.attempt,
                node.id,
                end,
                task_state,
                EndKind.LOST,
                0,
                reason,
                NO_USAGE,
                b"",
                active.started_ms,
                state.now_ms,
                not_before_ms,
                reported=False,
            )
        )
        counts = counts_of.setdefault(job_id, list(job.counts))
        counts[active.state] -= 1
        counts[task_state] += 1
        if sum(counts[TaskState.SUCCEEDED :]) == job.count:
            events.append(JobEnded(job_id, derive_state(counts, job.count, job.cancelling)))
    return events


def _what_next(state: State, job: Job, index: int, end: TaskState) -> tuple[TaskState, int]:
    """The task's state after an attempt that didn't succeed, and when it may be tried again (0: at once)."""
    if end is TaskState.CANCELLED:
        return end, 0
    spec = job.spec
    if spec.restart is RestartPolicy.NEVER:
        return end, 0
    history = job.history_of(index)
    if end is TaskState.NODE_LOST:
        losses = history.node_losses if history is not None else 0
        return (TaskState.PENDING, 0) if losses < spec.retries.node_lost else (end, 0)
    failures = history.own_failures if history is not None else 0
    if failures >= spec.retries.max:
        return end, 0
    wait_ms = backoff_ms(spec.retries.backoff, failures + 1)
    return TaskState.PENDING, state.now_ms + wait_ms if wait_ms else 0


def backoff_ms(backoff: Backoff, retry: int) -> int:
    """How long retry number `retry` (from 1) waits."""
    if backoff.kind is BackoffKind.LINEAR:
        return min(backoff.initial_ms * retry, backoff.max_ms)
    wait_ms = backoff.initial_ms
    for _ in range(retry - 1):
        longer_ms = wait_ms * backoff.multiplier_milli // 1000
        if wait_ms >= backoff.max_ms or longer_ms <= wait_ms:
            break
        wait_ms = longer_ms
    return min(wait_ms, backoff.max_ms)


def evolve_attempt_ended(state: State, event: AttemptEnded) -> None:
    job = state.jobs[event.job_id]
    index = event.index
    state.touch(job)
    assert job.active_attempts is not None, "only a current attempt ends"
    active = job.active_attempts.pop(index)
    if not job.active_attempts:
        job.active_attempts = None
    node = state.nodes[active.node_id]
    del node.attempts[job.id, index]
    node.allocate(job.resources, -1)
    job.started_ms = job.started_ms or event.started_ms
    if not _record_plainly(state, job, active, node, event):
        _record_fully(state, job, active, event)
    if event.task_state is TaskState.PENDING:
        _requeue(state, job, event)
    else:
        state.move_task(job, index, event.task_state)
        if event.output:
            job.outputs = job.outputs or {}
            job.outputs[index] = event.output
        if job.exit_code is None and event.kind in (EndKind.EXITED, EndKind.SIGNALED) and _is_failure(event.task_state):
            job.exit_code = event.code if event.kind is EndKind.EXITED else 128 + event.code
    state.settle(job)


def _is_failure(state: TaskState) -> bool:
    return state is not TaskState.SUCCEEDED and state is not TaskState.CANCELLED


def _record_plainly(state: State, job: Job, active: ActiveAttempt, node: Node, event: AttemptEnded) -> bool:
    """Keep a first attempt that ended its task in the compact record, if all there is to tell fits."""
    if (
        active.attempt != 1
        or event.task_state is TaskState.PENDING
        or event.state is TaskState.NODE_LOST
        or event.reason
        or not event.reported
        or active.cancel is not None
        or not event.started_ms
    ):
        return False
    if job.finished is None:
        job.finished = columns.new_blocks(job.count)
    usage = event.usage
    return columns.put(
        job.finished,
        job.count,
        event.index,
        (
            active.scheduled_ms - job.submitted_ms,
            event.ended_ms - job.submitted_ms,
            event.ended_ms - event.started_ms,
            state.index - job.submitted_index,
            event.code,
            event.kind,
            node.number,
            usage.cpu_ms,
            usage.peak_memory_bytes,
        ),
    )


def _record_fully(state: State, job: Job, active: ActiveAttempt, event: AttemptEnded) -> None:
    if job.histories is None:
        job.histories = {}
    history = job.histories.setdefault(event.index, TaskHistory())
    history.attempts.append(
        AttemptRecord(
            event.attempt,
            event.state,
            active.node_id,
            event.kind,
            event.code,
            event.reason,
            active.scheduled_ms,
            event.started_ms,
            event.ended_ms,
            event.usage.cpu_ms,
            event.usage.peak_memory_bytes,
            state.now_ms,
            state.index,
            event.reported,
        )
    )
    history.cancel = active.cancel
    history.not_before_ms = 0


def _requeue(state: State, job: Job, event: AttemptEnded) -> None:
    history = job.history_of(event.index)
    assert history is not None, "a task that is tried again has a history"
    if event.state is TaskState.NODE_LOST:
        history.node_losses += 1
    else:
        history.own_failures += 1
    if not event.not_before_ms:
        state.move_task(job, event.index, TaskState.PENDING)
        return
    history.not_before_ms = event.not_before_ms
    state.move_task(job, event.index, IN_BACKOFF)
    state.add_backoff(event.not_before_ms, job.id, event.index)


def evolve_eligible(state: State, event: TasksEligible) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    for index in event.indices:
        state.move_task(job, index, TaskState.PENDING)
        history = job.history_of(index)
        assert history is not None, "a task in backoff has a history"
        history.not_before_ms = 0
