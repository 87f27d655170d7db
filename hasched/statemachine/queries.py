"""What the API shows of the state: pure functions from state to views.

Why a waiting job waits is the scheduler's to explain, so it is left out here, except that the job is suspended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from hasched.model.spec import Resources
from hasched.model.states import EndKind, TaskState
from hasched.model.views import (
    AttemptView,
    ClusterView,
    JobPage,
    JobView,
    LateReport,
    NodePage,
    NodeView,
    Reason,
    TaskPage,
    TaskView,
    UsageView,
)
from hasched.statemachine.job import IN_BACKOFF, ActiveAttempt, AttemptRecord, Cancel, Job
from hasched.statemachine.node import Node
from hasched.statemachine.state import State

MAX_PAGE = 1000
MAX_SCANNED = 20_000  # jobs looked at for one page: a rare match must not hold up the manager


class BadCursor(ValueError):
    """A cursor that no page has given out."""


# ── Jobs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def job_view(state: State, job_id: int, with_spec: bool = True) -> JobView | None:
    job = state.jobs.get(job_id)
    return show_job(state, job, with_spec) if job is not None else None


def show_job(state: State, job: Job, with_spec: bool) -> JobView:
    return JobView(
        id=job.id,
        name=job.name,
        state=job.state.name,
        queue=job.queue,
        priority=job.priority,
        actor=job.actor,
        submission_id=job.submission_id,
        count=job.count,
        tasks={state.name: count for state, count in zip(TaskState, job.counts, strict=True) if count},
        suspended=job.suspended,
        cancelling=job.cancelling and not job.ended,
        reason=_reason_of_job(state, job),
        submitted_ms=job.submitted_ms,
        started_ms=job.started_ms,
        ended_ms=job.ended_ms,
        submitted_index=job.submitted_index,
        log_index=job.log_index,
        exit_code=job.exit_code,
        spec=job.spec if with_spec else None,
    )


def _reason_of_job(state: State, job: Job) -> Reason | None:
    if not job.ended:
        if job.cancel is not None:
            return Reason(code="cancelling", text=_words_of(job.cancel, "is being cancelled"))
        return Reason(code="suspended", text="suspended until it is resumed") if job.suspended else None
    if job.state is TaskState.SUCCEEDED:
        return None
    if job.count == 1:
        return _describe_task(state, job, 0, False).reason
    if job.state is TaskState.CANCELLED and job.cancel is not None:
        return _cancelled(job.cancel)
    return Reason(
        code=job.state.name.lower(),
        text=f"{job.counts[job.state]} of {job.count} tasks ended as {job.state.name}",
    )


def list_jobs(
    state: State,
    *,
    states: Sequence[TaskState] = (),
    queue: str | None = None,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    actor: str | None = None,
    limit: int = 100,
    cursor: str = "",
) -> JobPage:
    """The newest jobs first. A page may hold fewer than `limit` and still have a next one. Raises BadCursor."""

    def matches(job: Job) -> bool:
        return (
            (not states or job.state in states)
            and (queue is None or job.queue == queue)
            and (name is None or job.name == name)
            and (actor is None or job.actor == actor)
            and (not labels or (job.labels is not None and labels.items() <= job.labels.items()))
        )

    limit = max(1, min(limit, MAX_PAGE))
    shown: list[JobView] = []
    seen_id = 0
    for job in islice(_jobs_before(state, _parse_cursor(cursor)), MAX_SCANNED):
        seen_id = job.id
        if matches(job):
            shown.append(show_job(state, job, with_spec=False))
            if len(shown) == limit:
                break
    oldest_id = next(iter(state.jobs), 0)
    return JobPage(jobs=shown, next_cursor=str(seen_id) if seen_id > oldest_id else "")


def _jobs_before(state: State, before_id: int | None) -> Iterator[Job]:
    """Jobs with smaller ids, descending."""
    if before_id is None:
        yield from reversed(state.jobs.values())
        return
    oldest_id = next(iter(state.jobs), 0)
    for job_id in range(min(before_id, state.next_job_id) - 1, oldest_id - 1, -1):
        job = state.jobs.get(job_id)
        if job is not None:
            yield job


def _parse_cursor(cursor: str) -> int | None:
    if not cursor:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20):
        raise BadCursor(f"{cursor[:40]!r} is not a cursor; pass on the next_cursor of a page")
    return int(cursor)


# ── Tasks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def task_view(state: State, job_id: int, index: int, with_attempts: bool = True) -> TaskView | None:
    job = state.jobs.get(job_id)
    if job is None or not 0 <= index < job.count:
        return None
    return _describe_task(state, job, index, with_attempts)


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
    after = _parse_cursor(cursor)
    start = 0 if after is None else after + 1
    limit = max(1, min(limit, MAX_PAGE))
    indices = list(islice(_indices(job, states, start), limit + 1))
    shown = indices[:limit]
    return TaskPage(
        tasks=[_describe_task(state, job, index, False) for index in shown],
        next_cursor=str(shown[-1]) if len(indices) > limit else "",
    )


def _indices(job: Job, states: Sequence[TaskState], start: int) -> Iterator[int]:
    if not states:
        yield from range(start, job.count)
        return
    phases = bytes([*states, *([IN_BACKOFF] if TaskState.PENDING in states else [])])
    for match in re.compile(b"[" + re.escape(phases) + b"]").finditer(job.phases, start):
        yield match.start()


def _describe_task(state: State, job: Job, index: int, with_attempts: bool) -> TaskView:
    history = job.history_of(index)
    active = job.attempt_of(index)
    ended = attempt_records(state, job, index)
    attempts = [_show_attempt(record, _cancel_of(job, index)) for record in ended] if with_attempts else []
    if active is not None:
        if with_attempts:
            attempts.append(_show_active(active))
        return _show_running_task(job, index, active, attempts)
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
            reason=_reason_of_waiting(job, not_before_ms),
            actor=job.actor,
            log_index=last.log_index if last is not None else job.submitted_index,
            changed_ms=last.changed_ms if last is not None else job.submitted_ms,
            not_before_ms=not_before_ms,
            attempts=attempts,
        )
    cancel = _cancel_of(job, index)
    if not ended or ended[-1].state is not task_state:
        assert cancel is not None, "only a cancelled task ends without an attempt"
        return TaskView(
            job_id=job.id,
            task_index=index,
            state=task_state.name,
            attempt=attempt,
            reason=_cancelled(cancel),
            actor=cancel.actor,
            log_index=cancel.log_index,
            changed_ms=cancel.requested_ms,
            ended_ms=cancel.requested_ms,
            attempts=attempts,
        )
    last = ended[-1]
    shown = _show_attempt(last, cancel)
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
    )


def _show_running_task(job: Job, index: int, active: ActiveAttempt, attempts: list[AttemptView]) -> TaskView:
    reason = None
    if active.stopping:
        cancel = active.cancel or job.cancel
        assert cancel is not None, "an attempt stops because somebody asked"
        reason = Reason(code="stopping", text=_words_of(cancel, "is being stopped"))
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
        stopping=active.stopping,
        attempts=attempts,
    )


def _reason_of_waiting(job: Job, not_before_ms: int) -> Reason | None:
    if job.suspended:
        return Reason(code="suspended", text="suspended until its job is resumed")
    if not_before_ms:
        return Reason(code="backoff", text="waits before it is tried again")
    return None


def attempt_records(state: State, job: Job, index: int) -> Sequence[AttemptRecord]:
    """The ended attempts of a task, oldest first, whichever way they are kept."""
    history = job.history_of(index)
    if history is not None:
        return history.attempts
    plain = job.plain_end_of(index)
    if plain is None:
        return ()
    ended_ms = job.submitted_ms + plain.ended_after_ms
    return (
        AttemptRecord(
            1,
            job.task_state(index),
            state.node_names[plain.node_number],
            EndKind(plain.kind),
            plain.code,
            "",
            job.submitted_ms + plain.scheduled_after_ms,
            ended_ms - plain.duration_ms,
            ended_ms,
            plain.cpu_ms,
            plain.peak_memory_bytes,
            ended_ms,
            job.submitted_index + plain.index_after,
        ),
    )


def _show_active(active: ActiveAttempt) -> AttemptView:
    return AttemptView(
        attempt=active.attempt,
        state=active.state.name,
        node_id=active.node_id,
        scheduled_ms=active.scheduled_ms,
        started_ms=active.started_ms,
    )


def _show_attempt(record: AttemptRecord, cancel: Cancel | None) -> AttemptView:
    late = record.late
    return AttemptView(
        attempt=record.attempt,
        state=record.state.name,
        node_id=record.node_id,
        reason=_reason_of_end(record, cancel),
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


def _reason_of_end(record: AttemptRecord, cancel: Cancel | None) -> Reason | None:
    match record.state:
        case TaskState.SUCCEEDED:
            return None
        case TaskState.CANCELLED if cancel is not None:
            return _cancelled(cancel)
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


def _cancel_of(job: Job, index: int) -> Cancel | None:
    """The request that cancelled a task: one of its own, or the whole job's."""
    history = job.history_of(index)
    return (history.cancel if history is not None else None) or job.cancel


def _cancelled(cancel: Cancel) -> Reason:
    return Reason(code="cancelled", text=_words_of(cancel, "cancelled"))


def _words_of(cancel: Cancel, what: str) -> str:
    return f"{what} (by {cancel.actor}{': ' + cancel.reason if cancel.reason else ''})"


# ── Nodes and the cluster ───────────────────────────────────────────────────────────────────────────────────────────


def node_view(state: State, node_id: str) -> NodeView | None:
    """`connected` and `usage` are known to the leader's streams alone."""
    node = state.nodes.get(node_id)
    return _show_node(node) if node is not None else None


def list_nodes(state: State) -> NodePage:
    return NodePage(nodes=[_show_node(node) for _, node in sorted(state.nodes.items())])


def _show_node(node: Node) -> NodeView:
    return NodeView(
        id=node.id,
        state=node.state.value,
        reason=Reason(code=node.state.value, text=node.reason) if node.reason else None,
        hostname=node.info.hostname,
        agent_version=node.info.agent_version,
        isolation=node.info.isolation,
        labels=node.info.labels,
        total=node.total,
        allocated=node.allocated,
        gpus=list(node.info.gpus),
        running=len(node.attempts),
        connected=False,
        registered_ms=node.registered_ms,
        changed_ms=node.changed_ms,
        log_index=node.log_index,
    )


def desired_attempts(state: State, node_id: str) -> Iterator[tuple[int, int, int, bool, bool]]:
    """What should be on a node: (job, index, attempt, stopping, frozen)."""
    node = state.nodes.get(node_id)
    if node is None:
        return
    for (job_id, index), attempt in node.attempts.items():
        job = state.jobs[job_id]
        active = job.attempt_of(index)
        assert active is not None, "a node holds only current attempts"
        yield job_id, index, attempt, active.stopping, job.suspended and not active.stopping


def cluster_view(state: State, *, cluster: str, leader: str | None, term: int) -> ClusterView:
    nodes: dict[str, int] = {}
    for node in state.nodes.values():
        nodes[node.state.value] = nodes.get(node.state.value, 0) + 1
    return ClusterView(
        cluster=cluster,
        leader=leader,
        term=term,
        applied_index=state.index,
        now_ms=state.now_ms,
        jobs={state.name: count for state, count in zip(TaskState, state.job_counts, strict=True) if count},
        tasks={state.name: count for state, count in zip(TaskState, state.task_counts, strict=True) if count},
        nodes=nodes,
        total=_sum([node.total for node in state.nodes.values()]),
        allocated=_sum([node.allocated for node in state.nodes.values()]),
    )


def _sum(amounts: Sequence[Resources]) -> Resources:
    countables: dict[str, int] = {}
    for amount in amounts:
        for name, units in amount.countables:
            countables[name] = countables.get(name, 0) + units
    return Resources(
        cpu_milli=sum(amount.cpu_milli for amount in amounts),
        memory_bytes=sum(amount.memory_bytes for amount in amounts),
        gpus=sum(amount.gpus for amount in amounts),
        countables=tuple(sorted(countables.items())),
    )
