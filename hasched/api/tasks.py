"""Tasks and their attempts."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hasched.api.call import Call, Consistency
from hasched.api.jobs import ReadOne, no_such_job, state_named
from hasched.api.routing import Routes
from hasched.model.errors import BadRequest, NotFound
from hasched.model.states import TaskState
from hasched.model.views import TaskPage, TaskView
from hasched.scheduler.explain import pending_reason
from hasched.scheduler.keeping import NOTHING, Kept
from hasched.statemachine import queries
from hasched.statemachine.state import State

routes = Routes("tasks")


class ListTasks(msgspec.Struct, frozen=True, kw_only=True):
    state: Annotated[list[str], msgspec.Meta(description="Only tasks in this state; may be repeated.")] = []
    limit: Annotated[int, msgspec.Meta(ge=1, le=queries.MAX_PAGE)] = 100
    cursor: Annotated[str, msgspec.Meta(description="`next_cursor` of the page before.")] = ""
    consistency: Consistency = "linearizable"


@routes.add("GET", "/v1/jobs/{job_id}/tasks")
async def list_tasks(call: Call, job_id: int, query: ListTasks) -> TaskPage:
    """List the tasks of a job by index, without their attempts."""
    states = [state_named(name) for name in query.state]
    state = await call.read_state(query.consistency)
    try:
        page = queries.list_tasks(state, job_id, states=states, limit=query.limit, cursor=query.cursor)
    except queries.BadCursor as error:
        raise BadRequest(str(error)) from None
    if page is None:
        raise no_such_job(job_id)
    return page


@routes.add("GET", "/v1/jobs/{job_id}/tasks/{index}")
async def show_task(call: Call, job_id: int, index: int, query: ReadOne) -> TaskView:
    """Show a task with all its attempts; a waiting one says why it waits."""
    return view_task(await call.read_state(query.consistency), job_id, index, call.context.hub.kept())


def view_task(state: State, job_id: int, index: int, kept: Kept = NOTHING) -> TaskView:
    """`kept`: by free GPUs, as far as this manager knows. Raises NotFound."""
    job = state.jobs.get(job_id)
    if job is None:
        raise no_such_job(job_id)
    view = queries.task_view(state, job_id, index)
    if view is None:
        raise NotFound(f"job {job_id} has the tasks 0 to {job.count - 1}", "name one of them", code="no_such_task")
    if view.reason is None and view.state == TaskState.PENDING.name:
        return msgspec.structs.replace(view, reason=pending_reason(state, job, kept))
    return view
