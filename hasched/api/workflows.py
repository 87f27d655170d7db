"""Templates and executions: documents that are kept, and workflows that are executed.

A document is read on a thread, for it may be long: consensus must not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from hasched.api.call import Call, Consistency
from hasched.api.jobs import MAX_JOB_BYTES, ReadOne, check_submission_id, show_submitted
from hasched.api.routing import Routes
from hasched.model.errors import BadRequest, HaschedError, MalformedBody, NotFound, OutcomeUnknown, TemplateInvalid
from hasched.model.kinds import MAX_PROBLEMS, suggest
from hasched.model.parameters import check_template, fill_template
from hasched.model.parse import parse_spec
from hasched.model.spec import DEFAULT_NAMESPACE
from hasched.model.units import MAX_INTEGER
from hasched.model.views import Submitted
from hasched.model.workflow import MAX_PARAMETERS
from hasched.model.workflow_text import Library, Parsed, parse_workflow
from hasched.model.workflow_views import (
    ExecutionPage,
    ExecutionView,
    InstancePage,
    MemoPage,
    TemplatePage,
    TemplateView,
)
from hasched.statemachine.commands import (
    CancelExecution,
    DecideApproval,
    DeleteExecution,
    DeleteTemplate,
    ForgetMemos,
    PutTemplate,
    RetryExecution,
    StartExecution,
    SubmitJob,
)
from hasched.statemachine.execution import Execution, ExecutionState
from hasched.statemachine.outcomes import ExecutionAccepted, JobAccepted
from hasched.statemachine.queries import executions as queries
from hasched.statemachine.queries.pages import MAX_PAGE, BadCursor
from hasched.statemachine.state import State
from hasched.statemachine.templates import MAX_DOCUMENT_BYTES, TEMPLATE_KINDS, Template, TemplateVersion

T = TypeVar("T")
STATES = tuple(state.name.lower() for state in ExecutionState)

routes = Routes("workflows")


class ListTemplates(msgspec.Struct, frozen=True, kw_only=True):
    kind: Annotated[str | None, msgspec.Meta(description="Only of this kind: job or workflow.")] = None
    consistency: Consistency = "linearizable"


class ShowTemplate(msgspec.Struct, frozen=True, kw_only=True):
    version: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None, msgspec.Meta(description="One before the latest.")
    ] = None
    consistency: Consistency = "linearizable"


class ChangeTemplate(msgspec.Struct, frozen=True, kw_only=True):
    if_version: Annotated[
        Annotated[int, msgspec.Meta(ge=0)] | None,
        msgspec.Meta(description="Only if the latest version is still this; 0: only if there is none."),
    ] = None


class RevertRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1)]


class DispatchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`namespace` is for a template that names none."""

    parameters: Annotated[dict[str, Any], msgspec.Meta(max_length=MAX_PARAMETERS)] = {}
    namespace: str | None = None


class StartRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`workflow` is the name of a workflow template, or a whole document. `namespace` is for one that names none."""

    workflow: str | dict[str, Any]
    parameters: Annotated[dict[str, Any], msgspec.Meta(max_length=MAX_PARAMETERS)] = {}
    timeout_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER // 1000, description="0: as the workflow says.")] = 0
    namespace: str | None = None


class ListExecutions(msgspec.Struct, frozen=True, kw_only=True):
    workflow: str | None = None
    state: Annotated[str | None, msgspec.Meta(description="Only in this state.")] = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100
    cursor: Annotated[str, msgspec.Meta(description="`next_cursor` of the page before.")] = ""
    consistency: Consistency = "linearizable"


class ListInstances(msgspec.Struct, frozen=True, kw_only=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 1000
    cursor: Annotated[str, msgspec.Meta(description="`next_cursor` of the page before.")] = ""
    consistency: Consistency = "linearizable"


class ListMemos(msgspec.Struct, frozen=True, kw_only=True):
    workflow: str | None = None
    task: str = ""
    namespace: str = DEFAULT_NAMESPACE
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100
    consistency: Consistency = "linearizable"


class ForgetRequest(msgspec.Struct, frozen=True, kw_only=True):
    workflow: str
    task: Annotated[str, msgspec.Meta(description="Only of this task.")] = ""
    key: Annotated[str, msgspec.Meta(description="Only under this key.")] = ""
    namespace: str = DEFAULT_NAMESPACE


class StopRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class ApprovalRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    approve: bool
    comment: Annotated[str, msgspec.Meta(max_length=1000)] = ""


# ── Templates ───────────────────────────────────────────────────────────────────────────────────────────────────────


@routes.add("GET", "/v1/templates")
async def list_templates(call: Call, query: ListTemplates) -> TemplatePage:
    """List the templates of jobs and workflows, each with its latest version."""
    if query.kind is not None:
        _check_kind(query.kind)
    return queries.list_templates(await call.read_state(query.consistency), query.kind)


@routes.add("GET", "/v1/templates/{kind}/{name}")
async def show_template(call: Call, kind: str, name: str, query: ShowTemplate) -> TemplateView:
    """Show a template with its document, the latest version or an earlier one that is kept."""
    template = _find_template(await call.read_state(query.consistency), kind, name)
    return queries.show_template(template, _find_version(template, query.version), with_document=True)


@routes.add("PUT", "/v1/templates/{kind}/{name}", body_bytes=MAX_DOCUMENT_BYTES, document="TemplateDocument")
async def put_template(call: Call, kind: str, name: str, query: ChangeTemplate, body: bytes) -> TemplateView:
    """Put a template: a new version, the latest from here on. What is the same as the latest changes nothing.

    The body is the document of a workflow (docs/workflows.md), or of a job with `parameters`, as JSON. It is read as it would
    be when it is used, so a cycle, an unknown task or a bad reference is refused with its place.
    """
    _check_kind(kind)
    document = _decode(body)
    state = await call.read_state("linearizable")
    await _read(call, lambda: _check_document(kind, name, document, library_of(state), call))
    await call.propose(
        PutTemplate(
            kind=kind, name=name, document=msgspec.json.encode(document), actor=call.actor, if_version=query.if_version
        )
    )
    return _latest(call, kind, name)


@routes.add("POST", "/v1/templates/{kind}/{name}/revert")
async def revert_template(call: Call, kind: str, name: str, body: RevertRequest) -> TemplateView:
    """Put an earlier version again, as a new one."""
    template = _find_template(await call.read_state("linearizable"), kind, name)
    document = _find_version(template, body.version).document
    await call.propose(PutTemplate(kind=kind, name=name, document=document, actor=call.actor))
    return _latest(call, kind, name)


@routes.add("DELETE", "/v1/templates/{kind}/{name}", status=204)
async def delete_template(call: Call, kind: str, name: str) -> None:
    """Delete a template with all its versions. What was made of it goes on."""
    await call.propose(DeleteTemplate(kind=kind, name=name, actor=call.actor))


@routes.add("POST", "/v1/templates/{kind}/{name}/dispatch", status=201)
async def dispatch_job(call: Call, kind: str, name: str, body: DispatchRequest) -> Submitted:
    """Submit the job that a job template makes with these parameters. `Idempotency-Key` is the submission id."""
    if kind != "job":
        raise BadRequest("only jobs are dispatched", "start an execution of a workflow by `POST /v1/executions`")
    submission_id = check_submission_id(call.request.headers.get("Idempotency-Key"))
    document = _decode(_find_template(await call.read_state("linearizable"), kind, name).latest.document)
    filled = {"name": name} | _within(body.namespace, fill_template(document, body.parameters))
    command = SubmitJob(submission_id=submission_id, actor=call.actor, spec=parse_spec(filled, call.context.defaults))
    outcome = await call.propose(command)
    assert isinstance(outcome, JobAccepted)
    if outcome.duplicate:
        call.status = 200
    return show_submitted(call, command, outcome)


def _check_kind(kind: str) -> None:
    if kind not in TEMPLATE_KINDS:
        hint = suggest(kind, TEMPLATE_KINDS) or f"there are: {', '.join(TEMPLATE_KINDS)}"
        raise NotFound(f"there is no kind of template called {kind[:40]!r}", hint, code="no_such_kind")


def _find_template(state: State, kind: str, name: str) -> Template:
    _check_kind(kind)
    template = state.templates.get((kind, name))
    if template is None:
        known = [each for of_kind, each in state.templates if of_kind == kind]
        hint = suggest(name, known) or f"see `hasched template list --kind {kind}`"
        raise NotFound(f"there is no {kind} template {name[:128]}", hint, code="no_such_template")
    return template


def _find_version(template: Template, version: int | None) -> TemplateVersion:
    found = template.latest if version is None else template.find(version)
    if found is None:
        kept = f"{template.versions[0].version} to {template.latest.version}"
        raise NotFound(
            f"{template.kind}/{template.name} has no version {version}", f"kept are {kept}", code="no_such_version"
        )
    return found


def _latest(call: Call, kind: str, name: str) -> TemplateView:
    template = call.context.replica.state.templates.get((kind, name))
    if template is None:
        raise OutcomeUnknown("it was put, and deleted before it could be shown", "look again")
    return queries.show_template(template, template.latest, with_document=True)


def library_of(state: State) -> Library:
    """The templates as they are now."""
    kept = dict(state.templates)

    def find(kind: str, name: str) -> Mapping[str, Any] | None:
        template = kept.get((kind, name))
        return None if template is None else _decode(template.latest.document)

    return find


def _decode(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBody(f"this is not JSON: {error}", "send a JSON object") from None
    except RecursionError:
        raise MalformedBody("this JSON is nested too deeply") from None
    if not isinstance(document, dict):
        raise MalformedBody("a template is a JSON object")
    return document


def _check_document(kind: str, name: str, document: dict[str, Any], library: Library, call: Call) -> None:
    if kind == "workflow":
        if document.get("name", name) != name:
            raise BadRequest(
                f"the document is called {str(document['name'])[:60]!r}, not {name[:60]!r}", "put it under its own name"
            )
        parse_workflow(document, library=library, defaults=call.context.defaults)
    elif problems := check_template(document):
        raise TemplateInvalid(problems[:MAX_PROBLEMS])


async def _read(call: Call, read: Callable[[], T]) -> T:
    async with call.context.yaml_turn:
        return await asyncio.to_thread(read)


def _within(namespace: str | None, document: dict[str, Any]) -> dict[str, Any]:
    return document if namespace is None else {"namespace": namespace} | document


# ── Executions ──────────────────────────────────────────────────────────────────────────────────────────────────────


@routes.add("POST", "/v1/executions", status=201, body_bytes=MAX_JOB_BYTES)
async def start_execution(call: Call, body: StartRequest) -> ExecutionView:
    """Execute a workflow: a template by its name, or a document.

    `Idempotency-Key` is the submission id: a repeated one is answered 200 with the execution that it made the first time.
    """
    submission_id = check_submission_id(call.request.headers.get("Idempotency-Key"))
    state = await call.read_state("linearizable")
    version = 0
    if isinstance(body.workflow, str):
        template = _find_template(state, "workflow", body.workflow)
        version, document = template.latest.version, _decode(template.latest.document)
    else:
        document = body.workflow
    document = _within(body.namespace, document)

    def parse() -> Parsed:
        return parse_workflow(
            document, given=body.parameters, library=library_of(state), defaults=call.context.defaults
        )

    parsed = await _read(call, parse)
    assert not parsed.guessed, "every parameter has its value, and every name was looked up"
    command = StartExecution(
        submission_id=submission_id,
        actor=call.actor,
        spec=parsed.spec,
        params=tuple(parsed.values.items()),
        version=version,
        timeout_ms=body.timeout_ms,
    )
    outcome = await call.propose(command)
    assert isinstance(outcome, ExecutionAccepted)
    if outcome.duplicate:
        call.status = 200
    return _show_now(call, outcome.execution_id)


@routes.add("GET", "/v1/executions")
async def list_executions(call: Call, query: ListExecutions) -> ExecutionPage:
    """List executions of workflows, the newest first, without those within others.

    A page may hold fewer than `limit` and still have a next one: go on until `next_cursor` is empty.
    """
    if query.state is not None and query.state.lower() not in STATES:
        raise BadRequest(f"there is no state {query.state[:40]!r}", f"known are: {', '.join(STATES)}")
    wanted = None if query.state is None else ExecutionState[query.state.upper()]
    state = await call.read_state(query.consistency)
    try:
        return queries.list_executions(
            state, workflow=query.workflow, execution_state=wanted, limit=query.limit, cursor=query.cursor
        )
    except BadCursor as error:
        raise BadRequest(str(error)) from None


@routes.add("GET", "/v1/executions/{execution_id}")
async def show_execution(call: Call, execution_id: int, query: ReadOne) -> ExecutionView:
    """Show an execution with its tasks."""
    state = await call.read_state(query.consistency)
    recalled = state.memos.recalled.get(execution_id)
    return queries.show_execution(find_execution(state, execution_id), with_tasks=True, recalled=recalled)


@routes.add("GET", "/v1/executions/{execution_id}/tasks/{task}")
async def show_execution_task(call: Call, execution_id: int, task: str, query: ListInstances) -> InstancePage:
    """Show a task of an execution with its instances: of a fan-out, one for each item."""
    state = await call.read_state(query.consistency)
    execution = find_execution(state, execution_id)
    row = execution.plan.row_of.get(task)
    if row is None:
        hint = suggest(task, execution.plan.row_of)
        raise NotFound(f"execution {execution_id} has no task {task[:64]!r}", hint, code="no_such_task")
    try:
        recalled = state.memos.recalled.get(execution_id)
        return queries.show_instances(execution, row, limit=query.limit, cursor=query.cursor, recalled=recalled)
    except BadCursor as error:
        raise BadRequest(str(error)) from None


@routes.add("POST", "/v1/executions/{execution_id}/cancel")
async def cancel_execution(call: Call, execution_id: int, body: StopRequest) -> ExecutionView:
    """Begin nothing more of an execution and stop what runs; what takes back and cleans up runs still.

    Asked again, it ends that, too.
    """
    return await _steer(call, CancelExecution(execution_id=execution_id, actor=call.actor, reason=body.reason))


@routes.add("POST", "/v1/executions/{execution_id}/retry")
async def retry_execution(call: Call, execution_id: int) -> ExecutionView:
    """Run again what failed of an execution that has ended, and everything after it. What has succeeded stays as it is."""
    return await _steer(call, RetryExecution(execution_id=execution_id, actor=call.actor))


@routes.add("POST", "/v1/executions/{execution_id}/tasks/{task}/approval")
async def decide_approval(call: Call, execution_id: int, task: str, body: ApprovalRequest) -> ExecutionView:
    """Say yes or no where a task with `approval` asks."""
    command = DecideApproval(
        execution_id=execution_id, task=task, approve=body.approve, actor=call.actor, comment=body.comment
    )
    return await _steer(call, command)


@routes.add("DELETE", "/v1/executions/{execution_id}", status=204)
async def delete_execution(call: Call, execution_id: int) -> None:
    """Forget an execution that has ended."""
    await call.propose(DeleteExecution(execution_id=execution_id, actor=call.actor))


async def _steer(call: Call, command: CancelExecution | RetryExecution | DecideApproval) -> ExecutionView:
    await call.propose(command)
    return _show_now(call, command.execution_id)


def _show_now(call: Call, execution_id: int) -> ExecutionView:
    try:
        return queries.show_execution(find_execution(call.context.replica.state, execution_id), with_tasks=True)
    except HaschedError:  # That would say that nothing was done.
        raise OutcomeUnknown(
            "it was done, and the execution was deleted before it could be shown", "look again"
        ) from None


def find_execution(state: State, execution_id: int) -> Execution:
    execution = state.executions.get(execution_id)
    if execution is None:
        raise NotFound(
            f"there is no execution {execution_id}",
            "it may have been deleted, or have passed its retention",
            code="no_such_execution",
        )
    return execution


# ── Memos ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@routes.add("GET", "/v1/memos")
async def list_memos(call: Call, query: ListMemos) -> MemoPage:
    """List what memoised tasks have left, the latest first."""
    state = await call.read_state(query.consistency)
    return queries.list_memos(
        state, namespace=query.namespace, workflow=query.workflow, task=query.task, limit=query.limit
    )


@routes.add("DELETE", "/v1/memos", status=204)
async def forget_memos(call: Call, query: ForgetRequest) -> None:
    """Forget what memoised tasks of a workflow have left, so that they run again."""
    await call.propose(
        ForgetMemos(
            namespace=query.namespace, workflow=query.workflow, task=query.task, key=query.key, actor=call.actor
        )
    )
