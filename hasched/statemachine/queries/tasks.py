"""Tasks, one or a page of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice

from hasched.model.states import TaskState
from hasched.model.times import format_time
from hasched.model.views import AttemptView, Reason, TaskPage, TaskView
from hasched.statemachine.job import IN_BACKOFF, ActiveAttempt, Job
from hasched.statemachine.queries.attempts import (
    cancel_of,
    cancelled,
    show_active,
    show_attempt,
    words_of,
)
from hasched.statemachine.queries.pages import MAX_PAGE, parse_cursor
from hasched.statemachine.records import attempt_records
from hasched.statemachine.rules.dependencies import tell_waits
from hasched.statemachine.rules.yields import words_of_yield
from hasched.statemachine.state import State


def task_view(state: State, job_id: int, index: int, with_attempts: bool = True) -> TaskView | None:
    job = state.jobs.get(job_id)
    if job is None or not 0 <= index < job.count:
        return None
    return show_task(state, job, index, with_attempts)


def list_tasks(
    state: State,
    job_id: int,
    *,
    states: Sequence[TaskState] = (),
    limit: int = 100,
    cursor: str = "",
) -> TaskPage | None:
    """Tasks by index. None: no such job. Raises BadCursor."""
    job = state.jobs.get(job_id)
    if job is None:
        return None
    after = parse_cursor(cursor)
    start = 0 if after is None else after + 1
    limit = max(1, min(limit, MAX_PAGE))
    indices = list(islice(_indices(job, states, start), limit + 1))
    shown = indices[:limit]
    return TaskPage(
        tasks=[show_task(state, job, index, False) for index in shown],
        next_cursor=str(shown[-1]) if len(indices) > limit else "",
    )


def _indices(job: Job, states: Sequence[TaskState], start: int) -> Iterator[int]:
    if not states:
        yield from range(start, job.count)
        return
    phases = bytes([*states, *([IN_BACKOFF] if TaskState.PENDING in states else [])])
    for match in re.compile(b"[" + re.escape(phases) + b"]").finditer(job.phases, start):
        yield match.start()


def show_task(state: State, job: Job, index: int, with_attempts: bool) -> TaskView:
    history = job.history_of(index)
    active = job.attempt_of(index)
    dropped = history.dropped if history is not None and with_attempts else 0
    ended = attempt_records(state, job, index)
    attempts = [show_attempt(record, cancel_of(job, index)) for record in ended] if with_attempts else []
    if active is not None:
        if with_attempts:
            attempts.append(show_active(active))
        return _show_running_task(job, index, active, attempts, dropped)
    task_state = job.task_state(index)
    attempt = ended[-1].attempt if ended else 0
    if task_state is TaskState.PENDING:
        last = ended[-1] if ended else None
        not_before_ms = history.not_before_ms if history is not None else 0
        return TaskView(
            job_id=job.id,
            task_index=index,
            state=task_state.name,
            attempt=attempt,
            reason=_reason_of_waiting(state, job, index, not_before_ms),
            actor=job.actor,
            log_index=last.log_index if last is not None else job.submitted_index,
            changed_ms=last.changed_ms if last is not None else job.submitted_ms,
            not_before_ms=not_before_ms,
            attempts=attempts,
            attempts_dropped=dropped,
        )
    if task_state is TaskState.DEADLINE_EXCEEDED and (not ended or ended[-1].state is not task_state):
        assert job.exceeded is not None, "no other end is a deadline's"
        return TaskView(
            job_id=job.id,
            task_index=index,
            state=task_state.name,
            attempt=attempt,
            reason=Reason(code="deadline", text="its job's deadline came while it waited"),
            actor=job.actor,
            log_index=job.exceeded.log_index,
            changed_ms=job.exceeded.noticed_ms,
            ended_ms=job.exceeded.noticed_ms,
            attempts=attempts,
            attempts_dropped=dropped,
        )
    cancel = cancel_of(job, index)
    if not ended or ended[-1].state is not task_state:
        assert cancel is not None, "only a cancelled task ends without an attempt"
        return TaskView(
            job_id=job.id,
            task_index=index,
            state=task_state.name,
            attempt=attempt,
            reason=cancelled(cancel),
            actor=cancel.actor,
            log_index=cancel.log_index,
            changed_ms=cancel.requested_ms,
            ended_ms=cancel.requested_ms,
            attempts=attempts,
            attempts_dropped=dropped,
        )
    last = ended[-1]
    shown = show_attempt(last, cancel)
    output = job.outputs.get(index) if job.outputs is not None else None
    return TaskView(
        job_id=job.id,
        task_index=index,
        state=task_state.name,
        attempt=attempt,
        node_id=last.node_id,
        reason=shown.reason,
        actor=cancel.actor if cancel is not None and task_state is TaskState.CANCELLED else job.actor,
        log_index=last.log_index,
        changed_ms=last.changed_ms,
        exit_code=shown.exit_code,
        signal=shown.signal,
        started_ms=last.started_ms,
        ended_ms=last.ended_ms,
        usage=shown.usage,
        output=output.decode(errors="replace") if output is not None else None,
        attempts=attempts,
        attempts_dropped=dropped,
    )


def _show_running_task(
    job: Job, index: int, active: ActiveAttempt, attempts: list[AttemptView], dropped: int
) -> TaskView:
    reason = None
    yielding = job.yield_of(index)
    if active.stopping:
        cancel = active.cancel or job.cancel
        why = "is being stopped at its job's deadline" if cancel is None else words_of(cancel, "is being stopped")
        reason = Reason(code="stopping", text=why)
    elif yielding is not None:
        reason = Reason(code="stopping", text=f"is being stopped: {words_of_yield(yielding)}")
    elif job.suspended:
        reason = Reason(code="suspended", text="frozen until its job is resumed")
    return TaskView(
        job_id=job.id,
        task_index=index,
        state=active.state.name,
        attempt=active.attempt,
        node_id=active.node_id,
        reason=reason,
        actor=job.actor,
        log_index=active.log_index,
        changed_ms=active.changed_ms,
        started_ms=active.started_ms,
        stopping=active.stopping or yielding is not None,
        holds=job.request_of(index) if job.placement is not None and job.placement.any_of else None,
        attempts=attempts,
        attempts_dropped=dropped,
    )


def _reason_of_waiting(state: State, job: Job, index: int, not_before_ms: int) -> Reason | None:
    if job.suspended:
        return Reason(code="suspended", text="suspended until its job is resumed")
    if job.not_before_ms:
        return Reason(code="not_before", text=f"may not start before {format_time(job.not_before_ms)}")
    if job.is_held_back(index):
        return Reason(code="dependency", text=tell_waits(state, job))
    if not_before_ms:
        return Reason(code="backoff", text="waits before it is tried again")
    return None
