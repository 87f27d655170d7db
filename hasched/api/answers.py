"""Answers: what would be, and when what waits will start. Nothing here changes anything.

Any manager answers from its own state, brought up to date first. Forecasts, plans and what-ifs are worked out beside it
(`rehearsals.py`), one at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any

import msgspec

from hasched.api.call import Call, Consistency
from hasched.api.jobs import MAX_JOB_BYTES, no_such_job
from hasched.api.names import check_label
from hasched.api.routing import Routes
from hasched.model.answers import HORIZON_MS, Forecast, JobForecast, Plan, ResourcesView, WhatIf, Why
from hasched.model.errors import BadRequest, NotFound, Overloaded
from hasched.model.parse import parse_spec
from hasched.model.policy import PolicyKind
from hasched.model.policy_text import parse_policy, write_policy
from hasched.model.spec import MAX_PRIORITY
from hasched.scheduler.explain import Known, count_ahead, explain_waiting, find_late, show_resources, view_blocker
from hasched.scheduler.hypotheses import (
    MAX_NEW_NODES,
    Hypothesis,
    JobAdded,
    JobGone,
    NodeGone,
    NodesAdded,
    NodesDrained,
    PolicyChanged,
    PriorityChanged,
)
from hasched.scheduler.order import ByPolicies
from hasched.scheduler.questions import AskForecast, AskPlan, AskWhatIf
from hasched.statemachine.queries.names import policy_hint
from hasched.statemachine.state import State

MAX_JOBS = 100  # in one question
DAY_MS = 24 * 3600 * 1000

Horizon = Annotated[int, msgspec.Meta(ge=0, le=HORIZON_MS, description="How far to look ahead, at most a week.")]

routes = Routes("answers")


class ForecastQuery(msgspec.Struct, frozen=True, kw_only=True):
    job: Annotated[
        list[int], msgspec.Meta(description="Only these jobs; may be repeated. By default all that wait.")
    ] = []
    horizon_ms: Horizon = HORIZON_MS


class WhyQuery(msgspec.Struct, frozen=True, kw_only=True):
    forecast: Annotated[
        bool, msgspec.Meta(description="Also when it will start, which may take a while to find out.")
    ] = False
    consistency: Consistency = "linearizable"


class ResourcesQuery(msgspec.Struct, frozen=True, kw_only=True):
    by: Annotated[str, msgspec.Meta(description="`all`, `pool`, `class`, `gpu_model` or `label.NAME`.")] = "all"
    consistency: Consistency = "linearizable"


class PlanRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Jobs as `POST /v1/jobs` takes them; each is planned as if those before it had been submitted."""

    jobs: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MAX_JOBS)]
    horizon_ms: Horizon = DAY_MS


class SupposedNodes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many more nodes with the inventory, labels and taints of `like`."""

    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_NEW_NODES)]
    like: str


class SupposedDrain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node by its name, or all with a label. With `wait_ms`, what still runs then is stopped and started elsewhere."""

    node: str = ""
    label: str = ""
    value: str = ""
    wait_ms: Annotated[int, msgspec.Meta(ge=0)] | None = None


class WhatIfRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes made together, in this order. `quotas`, `queues` and `caps` are keyed `NAME.KEY`, as in their documents."""

    add_nodes: list[SupposedNodes] = []
    remove_nodes: list[str] = []
    drain: list[SupposedDrain] = []
    quotas: dict[str, Any] = {}
    queues: dict[str, Any] = {}
    caps: dict[str, Any] = {}
    priorities: dict[int, Annotated[int, msgspec.Meta(ge=0, le=MAX_PRIORITY)]] = {}
    add_jobs: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_JOBS)] = []
    without_jobs: list[int] = []
    horizon_ms: Horizon = DAY_MS


@routes.add("GET", "/v1/forecast")
async def show_forecast(call: Call, query: ForecastQuery) -> Forecast:
    """Foresee when what waits starts.

    The cluster is rehearsed in virtual time, with its own planner and rules. A task is taken to run as long as those of its
    name did, else to its time limit; one of which neither is known is taken to run on, and counted in `endless`.
    """
    await call.read_state("linearizable")
    if not query.job and query.horizon_ms == HORIZON_MS:
        return await call.context.rehearsals.forecast()
    asked = call.context.rehearsals.question(AskForecast, query.horizon_ms, job_ids=tuple(query.job))
    return await call.context.rehearsals.ask(asked, Forecast)


@routes.add("GET", "/v1/jobs/{job_id}/why", by_leader=True)
async def explain_job(call: Call, job_id: int, query: WhyQuery) -> Why:
    """Say why a job waits: everything that is in its way at once, and the smallest changes that would start it.

    Nodes are told of by class: alike in inventory, pool, taints, GPUs and state. Each of the `remedies` alone is enough. The
    leader answers, for it alone knows which nodes it reaches and which its planner keeps for jobs at the head of the line.
    """
    state = await call.read_state("linearizable")
    job = state.jobs.get(job_id)
    if job is None:
        raise no_such_job(job_id)
    hub = call.context.hub
    for _ in chain(state.neighbours.prepare(state, job), hub.node_classes.follow(state)):
        await asyncio.sleep(0)
    answer = explain_waiting(state, job, hub.node_classes, Known(hub.held_nodes(), hub.taking_work, hub.kept()))
    if not answer.waiting:
        return answer
    ahead = 0
    for so_far in hub.count_ahead(job) if hub.count_ahead is not None else count_ahead(state, job, ByPolicies()):
        ahead = so_far
        await asyncio.sleep(0)
    foreseen = await _foresee(call, job_id) if query.forecast else None
    late = find_late(state, job, foreseen)
    blockers = answer.blockers if late is None else [*answer.blockers, view_blocker(late)]
    return msgspec.structs.replace(answer, blockers=blockers, ahead=ahead, forecast=foreseen)


async def _foresee(call: Call, job_id: int) -> JobForecast | None:
    """What the forecast of all that waits says of a job, or one of its own; None while others wait for theirs."""
    answering = call.context.rehearsals
    try:
        jobs = {job.job_id: job for job in (await answering.forecast()).jobs}
        if job_id not in jobs:
            asked = answering.question(AskForecast, HORIZON_MS, job_ids=(job_id,))
            jobs = {job.job_id: job for job in (await answering.ask(asked, Forecast)).jobs}
    except Overloaded:
        return None
    return jobs.get(job_id)


@routes.add("GET", "/v1/jobs/{job_id}/forecast")
async def show_job_forecast(call: Call, job_id: int) -> Forecast:
    """Foresee when the waiting tasks of one job start."""
    if job_id not in (await call.read_state("linearizable")).jobs:
        raise no_such_job(job_id)
    asked = call.context.rehearsals.question(AskForecast, HORIZON_MS, job_ids=(job_id,))
    return await call.context.rehearsals.ask(asked, Forecast)


@routes.add("GET", "/v1/resources")
async def show_all_resources(call: Call, query: ResourcesQuery) -> ResourcesView:
    """Show what there is of each resource: in all, allocated, held, unusable and free, and the largest task that would start."""
    state = await call.read_state(query.consistency)
    check_label(state, query.by)
    try:
        return show_resources(state, query.by, call.context.hub.node_classes, call.context.now_ms())
    except ValueError as error:
        raise BadRequest(str(error)) from None


@routes.add("POST", "/v1/plan", body_bytes=MAX_JOB_BYTES)
async def plan_jobs(call: Call, body: PlanRequest) -> Plan:
    """Say what would come of jobs if they were submitted now: what starts where, and until when the rest waits.

    Nothing is submitted. A submission with `if_index` set to the `check_index` of the answer is refused as `plan_outdated` if
    meanwhile a job came or was resumed, a task has to be tried again, or a node or a policy changed; it isn't for what started
    or ended, which the plan has counted with or which leaves only more free.
    """
    specs = tuple(parse_spec(spec, call.context.defaults) for spec in body.jobs)
    await call.read_state("linearizable")
    asked = call.context.rehearsals.question(AskPlan, body.horizon_ms, specs=specs, actor=call.actor)
    return await call.context.rehearsals.ask(asked, Plan)


@routes.add("POST", "/v1/what-if", body_bytes=MAX_JOB_BYTES)
async def compare_what_if(call: Call, body: WhatIfRequest) -> WhatIf:
    """Compare who starts when, as things are and as they would be.

    Both are rehearsed from the same state; only jobs whose starts differ are listed. Nothing is changed.
    """
    state = await call.read_state("linearizable")
    hypotheses = tuple(_hypotheses(call, state, body))
    if not hypotheses:
        raise BadRequest("nothing is supposed", "name at least one change; see /v1/openapi.json")
    asked = call.context.rehearsals.question(AskWhatIf, body.horizon_ms, hypotheses=hypotheses)
    return await call.context.rehearsals.ask(asked, WhatIf)


def _hypotheses(call: Call, state: State, body: WhatIfRequest) -> Iterator[Hypothesis]:
    for nodes in body.add_nodes:
        yield NodesAdded(count=nodes.count, like=nodes.like)
    for node_id in body.remove_nodes:
        yield NodeGone(node_id=node_id)
    for drain in body.drain:
        if bool(drain.node) == bool(drain.label):
            raise BadRequest("a drain is of one node or of a label", "give `node`, or `label` and `value`")
        yield NodesDrained(node_id=drain.node, label=drain.label, value=drain.value, wait_ms=drain.wait_ms)
    of_kinds = ((PolicyKind.QUOTA, body.quotas), (PolicyKind.QUEUE, body.queues), (PolicyKind.CAP, body.caps))
    for kind, changes in of_kinds:
        for place, value in changes.items():
            yield _change_policy(state, kind, place, value)
    for job_id, priority in body.priorities.items():
        yield PriorityChanged(job_id=job_id, priority=priority)
    for document in body.add_jobs:
        yield JobAdded(spec=parse_spec(document, call.context.defaults), actor=call.actor)
    for job_id in body.without_jobs:
        yield JobGone(job_id=job_id)


def _change_policy(state: State, kind: PolicyKind, place: str, value: Any) -> PolicyChanged:
    """The policy with one key of its document set; of a quota, `NAME.gpus` is short for `NAME.limits.gpus`."""
    name, path = _find_policy(state, kind, place)
    document = write_policy(state.policies[kind][name].body)
    if kind is PolicyKind.QUOTA and path[0] not in _BESIDE_LIMITS:
        path = ["limits", *path]
    inner = document
    for key in path[:-1]:
        below = inner.get(key)
        inner[key] = inner = dict(below) if isinstance(below, dict) else {}
    inner[path[-1]] = value
    key = ".".join(path).removeprefix("limits.")
    _, changed = parse_policy(kind, name, document)
    return PolicyChanged(kind=kind, name=name, body=changed, text=f"{kind} {name} with {key} {value}")


_COUNTABLES = "countables"
_MAX_PLACE_CHARS = 500
_BESIDE_LIMITS = ("limits", "borrow", "lend", "parent", "cohort", "scope", "namespace", "user", "each_user")


def _find_policy(state: State, kind: PolicyKind, place: str) -> tuple[str, list[str]]:
    """The policy of which `place` begins with the name, which may have dots in it, and the keys behind it.

    Raises NotFound and BadRequest.
    """
    if len(place) > _MAX_PLACE_CHARS:
        raise BadRequest(f"{place[:60]!r}… is longer than {_MAX_PLACE_CHARS} characters", "write NAME.KEY=VALUE")
    words = place.split(".")
    for length in range(len(words) - 1, 0, -1):
        name = ".".join(words[:length])
        if name in state.policies[kind]:
            path = words[length:]
            if _COUNTABLES in path[:-1]:  # whose names may have dots as well
                at = path.index(_COUNTABLES) + 1
                path = [*path[:at], ".".join(path[at:])]
            return name, path
    name = place.rpartition(".")[0]
    hint = policy_hint(state, kind, name) if name else "write NAME.KEY=VALUE"
    raise NotFound(f"there is no {kind} {(name or place)[:100]!r}", hint, code="no_such_policy")
