"""What the asynchronous client does with templates and executions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hasched.client import workflow_calls
from hasched.client.aio_wire import AsyncWire
from hasched.client.calls import Document
from hasched.model.views import Submitted
from hasched.model.workflow_views import (
    ExecutionPage,
    ExecutionView,
    InstancePage,
    MemoPage,
    TemplatePage,
    TemplateView,
)


class AsyncWorkflowClient(AsyncWire):
    """A part of `AsyncClient`; as `WorkflowClient`, a page at a time."""

    async def templates(self, kind: str | None = None) -> TemplatePage:
        return await self._do(workflow_calls.templates(kind))

    async def template(self, kind: str, name: str, version: int | None = None) -> TemplateView:
        return await self._do(workflow_calls.template(kind, name, version))

    async def put_template(
        self, kind: str, name: str, document: Document, if_version: int | None = None
    ) -> TemplateView:
        return await self._do(workflow_calls.put_template(kind, name, document, if_version))

    async def revert_template(self, kind: str, name: str, version: int) -> TemplateView:
        return await self._do(workflow_calls.revert_template(kind, name, version))

    async def delete_template(self, kind: str, name: str) -> None:
        await self._do(workflow_calls.delete_template(kind, name))

    async def dispatch(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        namespace: str | None = None,
        submission_id: str | None = None,
    ) -> Submitted:
        return await self._do(workflow_calls.dispatch(name, parameters or {}, namespace, submission_id))

    async def execute(
        self,
        workflow: str | Mapping[str, Any],
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout_ms: int = 0,
        namespace: str | None = None,
        submission_id: str | None = None,
    ) -> ExecutionView:
        return await self._do(workflow_calls.execute(workflow, parameters or {}, timeout_ms, namespace, submission_id))

    async def executions_page(
        self, cursor: str = "", workflow: str | None = None, state: str | None = None
    ) -> ExecutionPage:
        return await self._do(workflow_calls.executions(cursor, workflow, state))

    async def execution(self, execution_id: int) -> ExecutionView:
        return await self._do(workflow_calls.execution(execution_id))

    async def instances_page(self, execution_id: int, task: str, cursor: str = "") -> InstancePage:
        return await self._do(workflow_calls.execution_task(execution_id, task, cursor))

    async def cancel_execution(self, execution_id: int, reason: str = "") -> ExecutionView:
        return await self._do(workflow_calls.cancel_execution(execution_id, reason))

    async def retry_execution(self, execution_id: int) -> ExecutionView:
        return await self._do(workflow_calls.retry_execution(execution_id))

    async def decide_approval(self, execution_id: int, task: str, approve: bool, comment: str = "") -> ExecutionView:
        return await self._do(workflow_calls.decide_approval(execution_id, task, approve, comment))

    async def memos(
        self, workflow: str | None = None, task: str = "", namespace: str | None = None, limit: int = 100
    ) -> MemoPage:
        return await self._do(workflow_calls.memos(workflow, task, namespace, limit))

    async def forget_memos(self, workflow: str, task: str = "", key: str = "", namespace: str | None = None) -> None:
        await self._do(workflow_calls.forget_memos(workflow, task, key, namespace))

    async def delete_execution(self, execution_id: int) -> None:
        await self._do(workflow_calls.delete_execution(execution_id))
