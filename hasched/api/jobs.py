"""Jobs: submitted, shown, and steered.

Every write goes through the log, from whichever manager it reached, and is answered once this manager has applied it: who
asks the same manager next sees it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from hasched.api.call import Call, Consistency
from hasched.api.names import check_filter, find_slips
from hasched.api.problem import describe, refusal
from hasched.api.routing import Routes
from hasched.model.errors import (
    BadRequest,
    BodyTooLarge,
    ConfigInvalid,
    Conflict,
    FieldError,
    HaschedError,
    MalformedBody,
    NotFound,
    OutcomeUnknown,
    SpecInvalid,
)
from hasched.model.parse import parse_spec, parse_update
from hasched.model.policy import PolicyKind
from hasched.model.spec import MAX_TASKS
from hasched.model.states import TaskState
from hasched.model.units import MAX_INTEGER
from hasched.model.views import JobPage, JobView, Problem, Submitted
from hasched.model.yaml_text import read_documents
from hasched.scheduler.explain import pending_reason
from hasched.scheduler.keeping import Kept
from hasched.statemachine import queries
from hasched.statemachine.commands import (
    CancelJob,
    DeleteJob,
    PreemptTasks,
    ResumeJob,
    SubmitJob,
    SuspendJob,
    UpdateJob,
)
from hasched.statemachine.outcomes import JobAccepted, Outcome, Rejected
from hasched.statemachine.rules.deadlines import warnings_of
from hasched.statemachine.state import State

MAX_JOB_BYTES = 4 * 1024 * 1024  # its spec may hold 512 KiB, and JSON may need six bytes for one
MAX_YAML_BYTES = 512 * 1024  # YAML takes a hundred times as long to read as JSON
MAX_BATCH = 10_000
MAX_BATCH_BYTES = 16 * 1024 * 1024
PARSED_AT_ONCE = 128  # specs read between two turns of the loop: consensus must not wait for a batch
PROPOSED_AT_ONCE = 1000
MAX_REASON_CHARS = 1000

_SUBMISSION_ID = re.compile(r"[!-~]{1,128}")

routes = Routes("jobs")


class ListJobs(msgspec.Struct, frozen=True, kw_only=True):
    state: Annotated[list[str], msgspec.Meta(description="Only jobs in this state; may be repeated.")] = []
    namespace: str | None = None
    queue: str | None = None
    name: str | None = None
    label: Annotated[list[str], msgspec.Meta(description="`KEY=VALUE`; of several, all must match.")] = []
    actor: Annotated[str | None, msgspec.Meta(description="Only jobs that this user submitted.")] = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=queries.MAX_PAGE)] = 100
    cursor: Annotated[str, msgspec.Meta(description="`next_cursor` of the page before.")] = ""
    consistency: Consistency = "linearizable"


class ReadOne(msgspec.Struct, frozen=True, kw_only=True):
    consistency: Consistency = "linearizable"


class SubmitQuery(msgspec.Struct, frozen=True, kw_only=True):
    if_index: Annotated[
        int,
        msgspec.Meta(
            ge=0, le=MAX_INTEGER, description="Only while a plan with this `check_index` holds, else `plan_outdated`."
        ),
    ] = 0


class StatusQuery(msgspec.Struct, frozen=True, kw_only=True):
    id: Annotated[int, msgspec.Meta(ge=1)]


class CancelRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without `tasks`, the whole job."""

    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)] = ""
    tasks: Annotated[list[Annotated[int, msgspec.Meta(ge=0, lt=MAX_TASKS)]], msgspec.Meta(max_length=10_000)] = []


class BatchItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A submission id is made where none is given; then a failed request can't be repeated safely."""

    spec: msgspec.Raw
    submission_id: str | None = None


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    jobs: Annotated[list[BatchItem], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class BatchResults(msgspec.Struct, frozen=True, kw_only=True):
    """A `Submitted` or a `Problem` for each job, in order."""

    results: list[Any]


@routes.add("POST", "/v1/jobs", status=201, aliases=("/jobs/create", "/jobs/schedule"), body_bytes=MAX_JOB_BYTES)
async def submit_job(call: Call, query: SubmitQuery, body: bytes) -> Submitted:
    """Submit a job.

    The body is the job's document (docs/jobs.md) as JSON, or as up to 512 KiB of YAML with `Content-Type: application/yaml`.
    It is accepted when a majority of managers has it on disk. `Idempotency-Key` is the submission id: a repeated one is
    answered 200 with the job that it made the first time, so after any failure repeat the request with the same key.
    """
    headers = call.request.headers
    yaml = "yaml" in headers.get("Content-Type", "")
    spec = parse_spec(await _read_yaml(call, body) if yaml else body, call.context.defaults)
    submission_id = check_submission_id(headers.get("Idempotency-Key"))
    if query.if_index:
        await _check_index(call, query.if_index)
    command = SubmitJob(submission_id=submission_id, actor=call.actor, spec=spec, if_index=query.if_index)
    outcome = await call.propose(command)
    assert isinstance(outcome, JobAccepted)
    submitted = show_submitted(call, command, outcome)
    if outcome.duplicate:
        call.status = 200
        return submitted
    slips = find_slips(call.context.replica.state, spec)
    return msgspec.structs.replace(submitted, warnings=[*submitted.warnings, *slips]) if slips else submitted


async def _check_index(call: Call, if_index: int) -> None:
    """Whether a plan can have been made there: nothing outdates one of an entry to come. Logs may hold such submissions, so it
    is no rule of the state machine. Raises Conflict.
    """
    newest = (await call.read_state("linearizable")).index
    if if_index > newest:
        raise Conflict(
            f"no plan was made at index {if_index}: the latest entry is {newest}",
            "submit with the check index that the plan printed",
            code="plan_outdated",
        )


@routes.add("POST", "/v1/jobs/batch", body_bytes=MAX_BATCH_BYTES)
async def submit_jobs(call: Call, body: BatchRequest) -> BatchResults:
    """Submit up to 10,000 jobs in one request.

    Each is accepted or refused by itself, and has its result at its place: what `POST /v1/jobs` answers, or a problem.
    """
    results: list[Submitted | Problem] = []
    for start in range(0, len(body.jobs), PROPOSED_AT_ONCE):
        try:
            results += await _submit_some(call, body.jobs[start : start + PROPOSED_AT_ONCE])
        except HaschedError as error:
            if start == 0:
                raise
            raise OutcomeUnknown(
                f"the first {start} jobs of the batch are decided, the others may be: {error.cause}",
                "repeat the batch with the same submission ids",
            ) from None
    return BatchResults(results=results)


async def _submit_some(call: Call, items: Sequence[BatchItem]) -> list[Submitted | Problem]:
    """One result for each item; those that can be proposed travel together."""
    commands: list[SubmitJob] = []
    refused: dict[int, Problem] = {}
    for place, item in enumerate(items):
        if place % PARSED_AT_ONCE == PARSED_AT_ONCE - 1:
            await asyncio.sleep(0)
        try:
            submission_id = check_submission_id(item.submission_id)
            spec = parse_spec(item.spec, call.context.defaults)
        except HaschedError as error:
            refused[place] = describe(error)
        else:
            commands.append(SubmitJob(submission_id=submission_id, actor=call.actor, spec=spec))
    decided = iter(zip(commands, await call.context.replica.propose_many(commands), strict=True))
    return [refused.get(place) or _result(call, *next(decided)) for place in range(len(items))]


def _result(call: Call, command: SubmitJob, outcome: Outcome) -> Submitted | Problem:
    if isinstance(outcome, Rejected):
        return describe(refusal(outcome))
    assert isinstance(outcome, JobAccepted)
    return show_submitted(call, command, outcome)


@routes.add("GET", "/v1/jobs")
async def list_jobs(call: Call, query: ListJobs) -> JobPage:
    """List jobs, the newest first.

    A page may hold fewer than `limit` jobs and still have a next one: go on until `next_cursor` is empty.
    """
    states = [state_named(name) for name in query.state]
    labels: dict[str, str] = {}
    for text in query.label:
        key, value = _pair(text)
        if key in labels:
            raise BadRequest(f"the label {key[:80]!r} is given twice", "give each once")
        labels[key] = value
    state = await call.read_state(query.consistency)
    check_filter(state, PolicyKind.NAMESPACE, query.namespace)
    check_filter(state, PolicyKind.QUEUE, query.queue)
    try:
        return queries.list_jobs(
            state,
            states=states,
            namespace=query.namespace,
            queue=query.queue,
            name=query.name,
            labels=labels,
            actor=query.actor,
            limit=query.limit,
            cursor=query.cursor,
        )
    except queries.BadCursor as error:
        raise BadRequest(str(error)) from None


@routes.add("GET", "/v1/jobs/{job_id}")
async def show_job(call: Call, job_id: int, query: ReadOne) -> JobView:
    """Show a job with its spec; a waiting one says why it waits."""
    return view_job(await call.read_state(query.consistency), job_id, call.context.hub.kept(), with_spec=True)


@routes.add("GET", "/jobs/status")
async def show_job_status(call: Call, query: StatusQuery) -> JobView:
    """The same as `GET /v1/jobs/{job_id}`, without the spec."""
    return view_job(await call.read_state("linearizable"), query.id, call.context.hub.kept(), with_spec=False)


@routes.add("POST", "/v1/jobs/{job_id}/cancel")
async def cancel_job(call: Call, job_id: int, body: CancelRequest) -> JobView:
    """End a job, or some of its tasks: waiting ones at once, running ones by TERM, their grace, KILL."""
    indices = tuple(body.tasks)
    return await _steer(call, CancelJob(job_id=job_id, actor=call.actor, reason=body.reason, indices=indices))


@routes.add("POST", "/v1/jobs/{job_id}/preempt")
async def preempt_tasks(call: Call, job_id: int, body: CancelRequest) -> JobView:
    """Have the running tasks of a job, or some of them, make room: they are warned, stopped, and wait for their next start.

    No retry is used. Of a gang, all tasks make room.
    """
    indices = tuple(body.tasks)
    return await _steer(call, PreemptTasks(job_id=job_id, actor=call.actor, reason=body.reason, indices=indices))


@routes.add("POST", "/v1/jobs/{job_id}/suspend")
async def suspend_job(call: Call, job_id: int) -> JobView:
    """Start nothing more of a job and freeze what runs; its resources stay allocated."""
    return await _steer(call, SuspendJob(job_id=job_id, actor=call.actor))


@routes.add("POST", "/v1/jobs/{job_id}/resume")
async def resume_job(call: Call, job_id: int) -> JobView:
    """Let a suspended job go on."""
    return await _steer(call, ResumeJob(job_id=job_id, actor=call.actor))


@routes.add("PATCH", "/v1/jobs/{job_id}", document="JobUpdate")
async def update_job(call: Call, job_id: int, body: bytes) -> JobView:
    """Change a job that has not ended: its `priority` or `priority_class`, its `queue`, `not_before`, `deadline`, and, before it
    starts, its `dependency`.

    What is left out stays as it is, and a time of 0 is none. Its place among those that wait is the new one at once.
    """
    return await _steer(call, UpdateJob(job_id=job_id, actor=call.actor, **parse_update(body)))


@routes.add("DELETE", "/v1/jobs/{job_id}", status=204)
async def delete_job(call: Call, job_id: int) -> None:
    """Forget a job that has ended."""
    await call.propose(DeleteJob(job_id=job_id, actor=call.actor))


def view_job(state: State, job_id: int, kept: Kept, *, with_spec: bool) -> JobView:
    """`kept`: by free GPUs, as far as this manager knows. Raises NotFound."""
    job = state.jobs.get(job_id)
    if job is None:
        raise no_such_job(job_id)
    view = queries.show_job(state, job, with_spec)
    if with_spec:
        cost = queries.estimate(state, job.spec)
        view = msgspec.structs.replace(view, used=queries.usage_of_job(job), estimate=cost if cost.priced else None)
    if view.reason is None and (reason := pending_reason(state, job, kept)) is not None:
        return msgspec.structs.replace(view, reason=reason)
    return view


def no_such_job(job_id: int) -> NotFound:
    return NotFound(
        f"there is no job {job_id}", "it may have been deleted, or have passed its retention", code="no_such_job"
    )


async def _steer(call: Call, command: CancelJob | PreemptTasks | SuspendJob | ResumeJob | UpdateJob) -> JobView:
    await call.propose(command)
    try:
        return view_job(call.context.replica.state, command.job_id, call.context.hub.kept(), with_spec=False)
    except NotFound:  # That would say that nothing was done.
        raise OutcomeUnknown("it was done, and the job was deleted before it could be shown", "look again") from None


async def _read_yaml(call: Call, body: bytes) -> Any:
    """The one document of a body, read on a thread, one at a time: consensus must not wait for it."""
    if len(body) > MAX_YAML_BYTES:
        raise BodyTooLarge(f"YAML may be {MAX_YAML_BYTES} bytes long, and not {len(body)}", "send JSON")
    try:
        async with call.context.yaml_turn:
            documents = await asyncio.to_thread(lambda: read_documents(body.decode(), "body"))
    except (ConfigInvalid, UnicodeDecodeError) as error:
        raise MalformedBody(f"this is not YAML: {error}") from None
    if len(documents) != 1:
        raise MalformedBody(f"the body holds {len(documents)} YAML documents", "submit one job in one request")
    if not isinstance(documents[0].value, dict):
        raise SpecInvalid([FieldError("", "a job is a mapping of keys")])
    return documents[0].value


def check_submission_id(given: str | None) -> str:
    """The submission id, made here if the client gives none."""
    if given is None:
        return secrets.token_hex(16)
    if _SUBMISSION_ID.fullmatch(given) is None:
        raise BadRequest("a submission id has 1 to 128 printable ASCII characters without blanks", "send a UUID")
    return given


def show_submitted(call: Call, command: SubmitJob, accepted: JobAccepted) -> Submitted:
    job = None if accepted.duplicate else call.context.replica.state.jobs.get(accepted.job_id)
    return Submitted(
        id=accepted.job_id,
        submission_id=command.submission_id,
        duplicate=accepted.duplicate,
        log_index=accepted.log_index,
        warnings=warnings_of(job, command.spec) if job is not None else [],
    )


def state_named(name: str) -> TaskState:
    try:
        return TaskState[name.upper()]
    except KeyError:
        known = ", ".join(state.name for state in TaskState)
        raise BadRequest(f"there is no state {name[:40]!r}", f"known are: {known}") from None


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise BadRequest(f"the label {text[:80]!r} is not KEY=VALUE", "write it as label=KEY=VALUE")
    return key, value
