"""The calls of templates and executions, as `calls.py` has the others."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from hasched.client.calls import PAGE_SIZE, Call, Document, path_of
from hasched.model.views import Submitted
from hasched.model.workflow_views import (
    ExecutionPage,
    ExecutionView,
    InstancePage,
    MemoPage,
    TemplatePage,
    TemplateView,
)


def templates(kind: str | None) -> Call[TemplatePage]:
    return Call("GET", path_of("/v1/templates", kind=kind), TemplatePage)


def template(kind: str, name: str, version: int | None) -> Call[TemplateView]:
    return Call("GET", path_of(_template_path(kind, name), version=version), TemplateView)


def put_template(kind: str, name: str, document: Document, if_version: int | None) -> Call[TemplateView]:
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return Call("PUT", path_of(_template_path(kind, name), if_version=if_version), TemplateView, body)


def revert_template(kind: str, name: str, version: int) -> Call[TemplateView]:
    body = msgspec.json.encode({"version": version})
    return Call("POST", f"{_template_path(kind, name)}/revert", TemplateView, body)


def delete_template(kind: str, name: str) -> Call[None]:
    return Call("DELETE", _template_path(kind, name), type(None))


def dispatch(
    name: str, parameters: Mapping[str, Any], namespace: str | None, submission_id: str | None
) -> Call[Submitted]:
    body = msgspec.json.encode({"parameters": dict(parameters), "namespace": namespace})
    submission_id = submission_id or uuid.uuid4().hex
    path = f"{_template_path('job', name)}/dispatch"
    call = Call("POST", path, Submitted, body, **{"Idempotency-Key": submission_id})
    call.submission_ids = (submission_id,)
    return call


def _template_path(kind: str, name: str) -> str:
    return f"/v1/templates/{quote(kind, safe='')}/{quote(name, safe='')}"


def execute(
    workflow: str | Mapping[str, Any],
    parameters: Mapping[str, Any],
    timeout_ms: int,
    namespace: str | None,
    submission_id: str | None,
) -> Call[ExecutionView]:
    body = msgspec.json.encode(
        {"workflow": workflow, "parameters": dict(parameters), "timeout_ms": timeout_ms, "namespace": namespace}
    )
    submission_id = submission_id or uuid.uuid4().hex
    call = Call("POST", "/v1/executions", ExecutionView, body, **{"Idempotency-Key": submission_id})
    call.submission_ids = (submission_id,)
    return call


def executions(cursor: str, workflow: str | None, state: str | None, limit: int = PAGE_SIZE) -> Call[ExecutionPage]:
    path = path_of("/v1/executions", workflow=workflow, state=state, limit=limit, cursor=cursor)
    return Call("GET", path, ExecutionPage)


def execution(execution_id: int) -> Call[ExecutionView]:
    return Call("GET", f"/v1/executions/{execution_id}", ExecutionView)


def execution_task(execution_id: int, task: str, cursor: str) -> Call[InstancePage]:
    return Call("GET", path_of(_task_path(execution_id, task), cursor=cursor, limit=PAGE_SIZE), InstancePage)


def cancel_execution(execution_id: int, reason: str) -> Call[ExecutionView]:
    body = msgspec.json.encode({"reason": reason})
    return Call("POST", f"/v1/executions/{execution_id}/cancel", ExecutionView, body)


def retry_execution(execution_id: int) -> Call[ExecutionView]:
    return Call("POST", f"/v1/executions/{execution_id}/retry", ExecutionView)


def decide_approval(execution_id: int, task: str, approve: bool, comment: str) -> Call[ExecutionView]:
    body = msgspec.json.encode({"approve": approve, "comment": comment})
    return Call("POST", f"{_task_path(execution_id, task)}/approval", ExecutionView, body)


def delete_execution(execution_id: int) -> Call[None]:
    return Call("DELETE", f"/v1/executions/{execution_id}", type(None))


def memos(workflow: str | None, task: str, namespace: str | None, limit: int) -> Call[MemoPage]:
    path = path_of("/v1/memos", workflow=workflow, task=task or None, namespace=namespace, limit=limit)
    return Call("GET", path, MemoPage)


def forget_memos(workflow: str, task: str, key: str, namespace: str | None) -> Call[None]:
    path = path_of("/v1/memos", workflow=workflow, task=task or None, key=key or None, namespace=namespace)
    return Call("DELETE", path, type(None))


def _task_path(execution_id: int, task: str) -> str:
    return f"/v1/executions/{execution_id}/tasks/{quote(task, safe='')}"
