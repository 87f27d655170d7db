"""The API's calls as values: what to send, and how to read the answer. Shared by both clients."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from hasched.client.policy import ATTEMPT_TIMEOUT_S
from hasched.client.problems import from_problem
from hasched.model.answers import Forecast, Plan, ResourcesView, WhatIf, Why
from hasched.model.errors import HaschedError
from hasched.model.taints import Taint
from hasched.model.views import (
    CheckAsked,
    ClusterView,
    EstimateView,
    FairShareView,
    JobPage,
    JobView,
    LeaderView,
    LimitPage,
    ManagerPage,
    ManagerView,
    NodePage,
    NodeView,
    PolicyPage,
    PolicyView,
    Problem,
    Submitted,
    TaskPage,
    TaskView,
    UsagePage,
)

T = TypeVar("T")
PAGE_SIZE = 1000
ANSWER_TIMEOUT_S = 60.0  # what would be is worked out first
Document = Mapping[str, Any] | bytes  # a job spec as the API takes it: a mapping, or JSON


class Call(Generic[T]):
    """One request. Every call may be sent twice: reads change nothing, and writes name what they want the end to be."""

    __slots__ = ("body", "decoder", "headers", "method", "path", "patience_s", "submission_ids", "writes")

    def __init__(self, method: str, path: str, answer: type[T], body: bytes = b"", **headers: str) -> None:
        self.method = method
        self.path = path
        self.body = body
        self.headers = {"Content-Type": "application/json", **headers} if body else headers
        self.submission_ids: Sequence[str] = ()
        self.patience_s = ATTEMPT_TIMEOUT_S
        self.writes = method != "GET"
        self.decoder: msgspec.json.Decoder[T] | None = None
        if answer is not type(None):
            self.decoder = msgspec.json.Decoder(answer)

    def decode(self, body: bytes) -> T:
        """The answer's content. Raises HaschedError if it isn't what it should be."""
        if self.decoder is None:
            return None  # type: ignore[return-value]
        try:
            return self.decoder.decode(body)
        except msgspec.DecodeError as error:
            raise HaschedError(
                f"the answer to {self.path} can't be understood: {error}", "is the manager older?"
            ) from None


class _BatchResults(msgspec.Struct):
    results: list[dict[str, Any]]


def path_of(path: str, **query: object) -> str:
    """A path with its query; None, False and what is empty are left out, sequences repeat the key."""
    pairs = [(key, value) for key, value in query.items() if value or (value == 0 and value is not False)]
    encoded = urlencode([(key, "true" if value is True else value) for key, value in pairs], doseq=True)
    return f"{path}?{encoded}" if encoded else path


def submit(document: Document, submission_id: str | None, if_index: int = 0) -> Call[Submitted]:
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    submission_id = submission_id or uuid.uuid4().hex
    path = path_of("/v1/jobs", if_index=if_index or None)
    call = Call("POST", path, Submitted, body, **{"Idempotency-Key": submission_id})
    call.submission_ids = (submission_id,)
    return call


def submit_many(documents: Sequence[tuple[str, Document]]) -> Call[_BatchResults]:
    jobs = [
        {"submission_id": submission_id, "spec": msgspec.Raw(spec) if isinstance(spec, bytes) else spec}
        for submission_id, spec in documents
    ]
    call = Call("POST", "/v1/jobs/batch", _BatchResults, msgspec.json.encode({"jobs": jobs}))
    call.submission_ids = [submission_id for submission_id, _ in documents]
    return call


def with_ids(documents: Iterable[Document | tuple[str, Document]]) -> list[tuple[str, Document]]:
    """Each document with its submission id, a new one where none was given."""
    return [each if isinstance(each, tuple) else (uuid.uuid4().hex, each) for each in documents]


def read_batch(results: _BatchResults) -> list[Submitted | HaschedError]:
    return [
        from_problem(msgspec.convert(each, Problem)) if "code" in each else msgspec.convert(each, Submitted)
        for each in results.results
    ]


def jobs_page(
    cursor: str,
    *,
    state: str | Sequence[str] | None,
    namespace: str | None,
    queue: str | None,
    name: str | None,
    labels: Mapping[str, str] | None,
    actor: str | None,
    limit: int,
    stale: bool,
) -> Call[JobPage]:
    return Call(
        "GET",
        path_of(
            "/v1/jobs",
            state=state,
            namespace=namespace,
            queue=queue,
            name=name,
            label=[f"{key}={value}" for key, value in (labels or {}).items()],
            actor=actor,
            limit=limit,
            cursor=cursor,
            consistency="stale" if stale else None,
        ),
        JobPage,
    )


def job(job_id: int) -> Call[JobView]:
    return Call("GET", f"/v1/jobs/{job_id}", JobView)


def cancel(job_id: int, reason: str, tasks: Sequence[int]) -> Call[JobView]:
    body = msgspec.json.encode({"reason": reason, **({"tasks": list(tasks)} if tasks else {})})
    return Call("POST", f"/v1/jobs/{job_id}/cancel", JobView, body)


def preempt(job_id: int, reason: str, tasks: Sequence[int]) -> Call[JobView]:
    body = msgspec.json.encode({"reason": reason, **({"tasks": list(tasks)} if tasks else {})})
    return Call("POST", f"/v1/jobs/{job_id}/preempt", JobView, body)


def suspend(job_id: int) -> Call[JobView]:
    return Call("POST", f"/v1/jobs/{job_id}/suspend", JobView)


def resume(job_id: int) -> Call[JobView]:
    return Call("POST", f"/v1/jobs/{job_id}/resume", JobView)


def update(job_id: int, changes: Mapping[str, Any]) -> Call[JobView]:
    return Call("PATCH", f"/v1/jobs/{job_id}", JobView, msgspec.json.encode(changes))


def delete(job_id: int) -> Call[None]:
    return Call("DELETE", f"/v1/jobs/{job_id}", type(None))


def forecast(job_ids: Sequence[int]) -> Call[Forecast]:
    return _asked(Call("GET", path_of("/v1/forecast", job=list(job_ids)), Forecast))


def why(job_id: int, with_forecast: bool) -> Call[Why]:
    call = Call("GET", path_of(f"/v1/jobs/{job_id}/why", forecast=with_forecast), Why)
    return _asked(call) if with_forecast else call


def resources(by: str) -> Call[ResourcesView]:
    return Call("GET", path_of("/v1/resources", by=by), ResourcesView)


def plan(documents: Sequence[Document], horizon_ms: int | None) -> Call[Plan]:
    jobs = [msgspec.Raw(each) if isinstance(each, bytes) else each for each in documents]
    return _asked(Call("POST", "/v1/plan", Plan, msgspec.json.encode({"jobs": jobs} | _horizon(horizon_ms))))


def what_if(changes: Mapping[str, Any], horizon_ms: int | None) -> Call[WhatIf]:
    return _asked(Call("POST", "/v1/what-if", WhatIf, msgspec.json.encode({**changes} | _horizon(horizon_ms))))


def _horizon(horizon_ms: int | None) -> dict[str, int]:
    return {} if horizon_ms is None else {"horizon_ms": horizon_ms}


def _asked(call: Call[T]) -> Call[T]:
    """A question, which changes nothing and whose answer takes its time."""
    call.writes, call.patience_s = False, ANSWER_TIMEOUT_S
    return call


def tasks_page(job_id: int, cursor: str, state: str | Sequence[str] | None) -> Call[TaskPage]:
    path = path_of(f"/v1/jobs/{job_id}/tasks", state=state, limit=PAGE_SIZE, cursor=cursor)
    return Call("GET", path, TaskPage)


def task(job_id: int, index: int) -> Call[TaskView]:
    return Call("GET", f"/v1/jobs/{job_id}/tasks/{index}", TaskView)


def nodes() -> Call[NodePage]:
    return Call("GET", "/v1/nodes", NodePage)


def node(node_id: str) -> Call[NodeView]:
    return Call("GET", f"/v1/nodes/{quote(node_id, safe='')}", NodeView)


def cordon_node(node_id: str, reason: str) -> Call[NodeView]:
    return _control_node(node_id, "cordon", {"reason": reason})


def uncordon_node(node_id: str) -> Call[NodeView]:
    return _control_node(node_id, "uncordon")


def drain_node(node_id: str, deadline_in_ms: int | None, reason: str) -> Call[NodeView]:
    return _control_node(node_id, "drain", {"reason": reason, "deadline_in_ms": deadline_in_ms})


def undrain_node(node_id: str) -> Call[NodeView]:
    return _control_node(node_id, "undrain")


def unquarantine_node(node_id: str) -> Call[NodeView]:
    return _control_node(node_id, "unquarantine")


def set_node_properties(
    node_id: str,
    pool: str,
    labels: Mapping[str, str | None],
    taints: Mapping[str, Taint | None],
    reset: bool,
) -> Call[NodeView]:
    marks = {
        key: None if taint is None else {"value": taint.value, "effect": taint.effect} for key, taint in taints.items()
    }
    body = {"pool": pool, "labels": dict(labels), "taints": marks, "reset": reset}
    return _control_node(node_id, "properties", body)


def _control_node(node_id: str, what: str, body: Mapping[str, Any] | None = None) -> Call[NodeView]:
    encoded = msgspec.json.encode(body) if body is not None else b""
    return Call("POST", f"/v1/nodes/{quote(node_id, safe='')}/{what}", NodeView, encoded)


def remove_node(node_id: str) -> Call[None]:
    return Call("DELETE", f"/v1/nodes/{quote(node_id, safe='')}", type(None))


def managers() -> Call[ManagerPage]:
    return Call("GET", "/v1/managers", ManagerPage)


def manager() -> Call[ManagerView]:
    return Call("GET", "/v1/managers/self", ManagerView)


def add_manager(manager_id: str, api_url: str, raft_address: str) -> Call[ManagerView]:
    body = msgspec.json.encode({"id": manager_id, "api_url": api_url, "raft_address": raft_address})
    return Call("POST", "/v1/managers", ManagerView, body)


def remove_manager(manager_id: str) -> Call[None]:
    return Call("DELETE", f"/v1/managers/{quote(manager_id, safe='')}", type(None))


def transfer(to: str | None) -> Call[LeaderView]:
    path = "/v1/managers/lead" if to is None else f"/v1/managers/{quote(to, safe='')}/lead"
    return Call("POST", path, LeaderView)


def check_managers() -> Call[CheckAsked]:
    return Call("POST", "/v1/managers/check", CheckAsked)


def fair_share() -> Call[FairShareView]:
    return Call("GET", "/v1/fairshare", FairShareView)


def policies(kind: str | None) -> Call[PolicyPage]:
    return Call("GET", path_of("/v1/policies", kind=kind), PolicyPage)


def policy(kind: str, name: str) -> Call[PolicyView]:
    return Call("GET", _policy_path(kind, name), PolicyView)


def put_policy(
    kind: str, name: str, document: Document, if_index: int | None, allow_unknown_nodes: bool
) -> Call[PolicyView]:
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    path = path_of(_policy_path(kind, name), if_index=if_index, allow_unknown_nodes=allow_unknown_nodes or None)
    return Call("PUT", path, PolicyView, body)


def check_policies(documents: Sequence[Mapping[str, Any]], allow_unknown_nodes: bool) -> Call[None]:
    body = {"policies": documents, "allow_unknown_nodes": allow_unknown_nodes}
    return _asked(Call("POST", "/v1/policies/check", type(None), msgspec.json.encode(body)))


def delete_policy(kind: str, name: str, if_index: int | None) -> Call[None]:
    return Call("DELETE", path_of(_policy_path(kind, name), if_index=if_index), type(None))


def _policy_path(kind: str, name: str) -> str:
    return f"/v1/policies/{quote(kind, safe='')}/{quote(name, safe='')}"


def usage(
    by: str, *, namespace: str | None, user: str | None, week: str | None, cursor: str, limit: int | None
) -> Call[UsagePage]:
    path = path_of("/v1/usage", by=by, namespace=namespace, user=user, week=week, cursor=cursor, limit=limit)
    return Call("GET", path, UsagePage)


def limits(kind: str | None, name: str | None) -> Call[LimitPage]:
    return Call("GET", path_of("/v1/limits", kind=kind, name=name), LimitPage)


def estimate(document: Document) -> Call[EstimateView]:
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return Call("POST", "/v1/usage/estimate", EstimateView, body)


def cluster() -> Call[ClusterView]:
    return Call("GET", "/v1/cluster", ClusterView)


def logs_path(
    job_id: int,
    index: int,
    *,
    stream: str,
    attempt: int | None,
    offset: int | None,
    limit: int | None,
    tail: int | None,
    follow: bool,
) -> str:
    return path_of(
        f"/v1/jobs/{job_id}/tasks/{index}/logs",
        stream=stream,
        attempt=attempt,
        offset=offset,
        limit=limit,
        tail=tail,
        follow=follow,
    )


def events_path(after: str | None, job: int | None, types: Sequence[str], execution: int | None = None) -> str:
    return path_of("/v1/events", after=after, job=job, execution=execution, type=list(types))


def after_index(log_index: int) -> str:
    """The event id that stands after every event of a log entry."""
    return f"{log_index}.{2**31 - 1}"
