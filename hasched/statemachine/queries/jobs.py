"""Jobs, one or a page of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from hasched.model.states import TaskState
from hasched.model.views import JobPage, JobView, Reason
from hasched.statemachine.job import Job
from hasched.statemachine.queries.attempts import cancelled, words_of
from hasched.statemachine.queries.pages import MAX_PAGE, MAX_SCANNED, jobs_before, parse_cursor
from hasched.statemachine.queries.tasks import show_task
from hasched.statemachine.state import State


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
        priority_class=job.priority_class,
        actor=job.actor,
        submission_id=job.submission_id,
        count=job.count,
        tasks={state.name: count for state in TaskState if (count := job.counts[state])},
        suspended=job.suspended,
        cancelling=job.cancelling and not job.ended,
        reason=_reason_of_job(state, job),
        submitted_ms=job.submitted_ms,
        started_ms=job.started_ms,
        ended_ms=job.ended_ms,
        submitted_index=job.submitted_index,
        log_index=job.log_index,
        exit_code=job.exit_code,
        not_before_ms=job.not_before_ms,
        deadline_ms=job.deadline_ms,
        namespace=job.namespace,
        parent=job.parent,
        spec=job.spec if with_spec else None,
    )


def _reason_of_job(state: State, job: Job) -> Reason | None:
    if not job.ended:
        if job.cancel is not None:
            return Reason(code="cancelling", text=words_of(job.cancel, "is being cancelled"))
        if job.exceeded is not None:
            return Reason(code="deadline", text="its deadline has come: what runs is being stopped")
        return Reason(code="suspended", text="suspended until it is resumed") if job.suspended else None
    if job.state is TaskState.SUCCEEDED:
        return None
    if job.count == 1:
        return show_task(state, job, 0, False).reason
    if job.state is TaskState.CANCELLED and job.cancel is not None:
        return cancelled(job.cancel)
    return Reason(
        code=job.state.name.lower(),
        text=f"{job.counts[job.state]} of {job.count} tasks ended as {job.state.name}",
    )


def list_jobs(
    state: State,
    *,
    states: Sequence[TaskState] = (),
    namespace: str | None = None,
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
            and (namespace is None or job.namespace == namespace)
            and (queue is None or job.queue == queue)
            and (name is None or job.name == name)
            and (actor is None or job.actor == actor)
            and (not labels or (job.labels is not None and labels.items() <= job.labels.items()))
        )

    limit = max(1, min(limit, MAX_PAGE))
    shown: list[JobView] = []
    seen_id = 0
    for job in islice(jobs_before(state, parse_cursor(cursor)), MAX_SCANNED):
        seen_id = job.id
        if matches(job):
            shown.append(show_job(state, job, with_spec=False))
            if len(shown) == limit:
                break
    oldest_id = next(iter(state.jobs), 0)
    return JobPage(jobs=shown, next_cursor=str(seen_id) if seen_id > oldest_id else "")
