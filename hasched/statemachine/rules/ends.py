"""Ends: what an attempt's end makes of its task, and how it is remembered.

A failure is tried again after a backoff, within the job's `retries.max`. A lost node is nobody's failure: the task starts
elsewhere at once, within `retries.node_lost`. One that was told to yield starts again whatever its end and its budgets,
unless it has succeeded by then. A task that was cancelled or met its deadline is never
tried again.
"""

from __future__ import annotations

from typing import assert_never

from hasched.model.spec import MAX_JOB_OUTPUT_BYTES, MAX_OUTPUT_BYTES, Backoff, JobSpec
from hasched.model.states import BackoffKind, EndKind, RestartPolicy, TaskState
from hasched.model.wire import AttemptEnded as EndedReport
from hasched.model.wire import Usage
from hasched.statemachine import columns
from hasched.statemachine.events import AttemptEnded, Event, JobEnded, NodeDrained, TasksEligible
from hasched.statemachine.job import (
    ATTEMPTS_BOUNDED_SINCE,
    IN_BACKOFF,
    ActiveAttempt,
    AttemptRecord,
    Job,
    TaskHistory,
    derive_state,
)
from hasched.statemachine.node import Node
from hasched.statemachine.records import OUTPUT_DROPPED
from hasched.statemachine.rules import gangs
from hasched.statemachine.rules.charges import charge
from hasched.statemachine.rules.yields import MAX_REASON_LENGTH, words_of_yield
from hasched.statemachine.state import State
from hasched.statemachine.usage import USE_KEPT_SINCE

NO_USAGE = Usage()


def judge(job: Job, active: ActiveAttempt | None, kind: EndKind, code: int) -> TaskState:
    """What an attempt's end makes of it (`active`: if it is current). Success counts even where a stop was on its way."""
    if kind is EndKind.EXITED and code in job.success_exit_codes:
        return TaskState.SUCCEEDED
    if active is not None and active.stopping:
        return job.state_if_stopped(active)
    match kind:
        case EndKind.EXITED | EndKind.SIGNALED | EndKind.LAUNCH_FAILED:
            return TaskState.FAILED
        case EndKind.TIMED_OUT:
            return TaskState.TIMED_OUT
        case EndKind.OUT_OF_MEMORY:
            return TaskState.OUT_OF_MEMORY
        case EndKind.DEVICE_LOST:
            return TaskState.NODE_LOST
        case EndKind.STOPPED | EndKind.LOST | EndKind.PREEMPTED | EndKind.GANG_RESTARTED:
            # Nobody asked for a stop, so the agent ended it when its lease ran out: the node's fault, not the task's.
            return TaskState.NODE_LOST
        case _:
            assert_never(kind)


def decide_end(state: State, job: Job, active: ActiveAttempt, report: EndedReport) -> list[Event]:
    end = judge(job, active, report.kind, report.code)
    kind, reason, output = report.kind, report.reason[:MAX_REASON_LENGTH], report.output[:MAX_OUTPUT_BYTES]
    yielding = job.yield_of(report.index)
    task_state, not_before_ms = end, 0
    if end is TaskState.SUCCEEDED:
        pass
    elif yielding is not None and not active.stopping:
        end = task_state = TaskState.PENDING
        kind, reason, output = yielding.kind, words_of_yield(yielding), b""
    else:
        task_state, not_before_ms = _what_next(state, job, report.index, end)
    if output and task_state.final and state.output_bytes.get(job.id, 0) + len(output) > MAX_JOB_OUTPUT_BYTES:
        reason, output = f"{reason}; {OUTPUT_DROPPED}" if reason else OUTPUT_DROPPED, b""
    ended = AttemptEnded(
        job.id,
        report.index,
        report.attempt,
        active.node_id,
        end,
        task_state,
        kind,
        report.code,
        reason,
        report.usage,
        output,
        report.started_ms or active.started_ms,  # an agent that lost the attempt doesn't know when it began; we do
        report.ended_ms,
        not_before_ms,
        checkpoint_ms=report.checkpoint_ms,
    )
    events: list[Event] = [ended]
    if job.is_gang:
        events = gangs.decide_follow(job, [ended])
    elif task_state.final and job.count - sum(job.counts[TaskState.SUCCEEDED :]) == 1:
        after = list(job.counts)
        after[active.state] -= 1
        after[task_state] += 1
        events.append(JobEnded(job.id, derive_state(after, job.count, job.cancelling)))
    node = state.nodes[active.node_id]
    if node.drain is not None and len(node.attempts) == 1:
        events.append(NodeDrained(node.id))
    return events


def decide_losses(state: State, node: Node, reason: str) -> list[Event]:
    """Give up every attempt on a node: tried again elsewhere where the job's budget allows, else NODE_LOST for good."""
    events: list[Event] = []
    counts_of: dict[int, list[int]] = {}
    used_by_gangs: dict[int, tuple[int, int]] = {}
    of_gangs: dict[int, list[AttemptEnded]] = {}
    specs: dict[int, JobSpec] = {}
    for job_id, index in sorted(node.attempts):
        job = state.jobs[job_id]
        active = job.attempt_of(index)
        assert active is not None, "a node holds only current attempts"
        end = job.state_if_stopped(active) if active.stopping else TaskState.NODE_LOST
        kind, why = EndKind.LOST, reason
        yielding = job.yield_of(index)
        if yielding is not None and not active.stopping:
            end = TaskState.PENDING
            kind, why = yielding.kind, f"{words_of_yield(yielding)}; {reason}"[:MAX_REASON_LENGTH]
        if job.is_gang and job_id not in used_by_gangs:
            used_by_gangs[job_id] = _used_retries(job, index)
        spec = specs.get(job_id) or specs.setdefault(job_id, job.spec)
        task_state, not_before_ms = _what_next(state, job, index, end, spec=spec, used=used_by_gangs.get(job_id))
        ended = AttemptEnded(
            job_id,
            index,
            active.attempt,
            node.id,
            end,
            task_state,
            kind,
            0,
            why,
            NO_USAGE,
            b"",
            active.started_ms,
            state.now_ms,
            not_before_ms,
            reported=False,
        )
        if job.is_gang:
            of_gangs.setdefault(job_id, []).append(ended)
            continue
        events.append(ended)
        counts = counts_of.setdefault(job_id, list(job.counts))
        counts[active.state] -= 1
        counts[task_state] += 1
        if sum(counts[TaskState.SUCCEEDED :]) == job.count:
            events.append(JobEnded(job_id, derive_state(counts, job.count, job.cancelling)))
    for job_id, ends in of_gangs.items():
        events += gangs.decide_follow(state.jobs[job_id], ends)
    if events and node.drain is not None:
        events.append(NodeDrained(node.id))
    return events


def _what_next(
    state: State,
    job: Job,
    index: int,
    end: TaskState,
    *,
    spec: JobSpec | None = None,
    used: tuple[int, int] | None = None,
) -> tuple[TaskState, int]:
    """The task's state after an attempt that didn't succeed, and when it may be tried again (0: at once). `spec`, and `used`,
    its retries, where they are known already."""
    if end in (TaskState.CANCELLED, TaskState.DEADLINE_EXCEEDED, TaskState.PENDING):
        return end, 0
    spec = spec or job.spec
    if spec.restart is RestartPolicy.NEVER:
        return end, 0
    failures, losses = _used_retries(job, index) if used is None else used
    if end is TaskState.NODE_LOST:
        return (TaskState.PENDING, 0) if losses < spec.retries.node_lost else (end, 0)
    if failures >= spec.retries.max:
        return end, 0
    wait_ms = backoff_ms(spec.retries.backoff, failures + 1)
    return TaskState.PENDING, state.now_ms + wait_ms if wait_ms else 0


def _used_retries(job: Job, index: int) -> tuple[int, int]:
    """How often the task has failed, and how often it was lost; of a gang, whose tasks share their fate, any of them."""
    if job.is_gang:
        histories = (job.histories or {}).values()
        return sum(each.own_failures for each in histories), sum(each.node_losses for each in histories)
    history = job.history_of(index)
    return (history.own_failures, history.node_losses) if history is not None else (0, 0)


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
        state.usage.stop_job(job)
    node = state.nodes[active.node_id]
    del node.attempts[job.id, index]
    if state.entry_version >= USE_KEPT_SINCE:
        charge(state, job, index, active, event.usage.cpu_ms)
    state.release(job, node, job.request_of(index), active)
    if job.choices is not None and job.choices.pop(index, None) is not None and not job.choices:
        job.choices = None
    _drop_marks(job, event)
    state.note_start(job, event.started_ms)
    if not _record_plainly(state, job, active, node, event):
        _record_fully(state, job, active, event)
    if event.task_state is TaskState.PENDING:
        _requeue(state, job, event)
    else:
        state.move_task(job, index, event.task_state)
        state.dependants.note_tasks(job.id, (index,))
        if event.output:
            state.keep_output(job, index, event.output)
        if job.exit_code is None and event.kind in (EndKind.EXITED, EndKind.SIGNALED) and _is_failure(event.task_state):
            job.exit_code = event.code if event.kind is EndKind.EXITED else 128 + event.code
    state.settle(job)


def _drop_marks(job: Job, event: AttemptEnded) -> None:
    """Why it had to yield goes with the attempt. A checkpoint stays with a task that starts again."""
    index = event.index
    if job.yields is not None and job.yields.pop(index, None) is not None and not job.yields:
        job.yields = None
    if event.task_state is TaskState.PENDING and event.checkpoint_ms > job.checkpoint_of(index):
        job.checkpoints = job.checkpoints or {}
        job.checkpoints[index] = event.checkpoint_ms


def _is_failure(state: TaskState) -> bool:
    return state not in (TaskState.SUCCEEDED, TaskState.CANCELLED, TaskState.DEADLINE_EXCEEDED)


def _record_plainly(state: State, job: Job, active: ActiveAttempt, node: Node, event: AttemptEnded) -> bool:
    """Keep a first attempt that ended its task in the compact record, if all there is to tell fits."""
    if (
        active.attempt != 1
        or event.task_state is TaskState.PENDING
        or event.state is TaskState.NODE_LOST
        or event.reason not in ("", OUTPUT_DROPPED)
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
            columns.pack_kind(event.kind, output_dropped=bool(event.reason)),
            node.number,
            usage.cpu_ms,
            usage.peak_memory_bytes,
        ),
    )


def _record_fully(state: State, job: Job, active: ActiveAttempt, event: AttemptEnded) -> None:
    if job.histories is None:
        job.histories = {}
    history = job.histories.setdefault(event.index, TaskHistory())
    history.add(
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
        ),
        bounded=state.entry_version >= ATTEMPTS_BOUNDED_SINCE,
    )
    history.cancel = active.cancel
    history.not_before_ms = 0


def _requeue(state: State, job: Job, event: AttemptEnded) -> None:
    history = job.history_of(event.index)
    assert history is not None, "a task that is tried again has a history"
    if event.state is TaskState.NODE_LOST:
        history.node_losses += 1
    elif event.state is not TaskState.PENDING:
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
