"""What the synchronous client does with templates and executions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hasched.client import calls, workflow_calls
from hasched.client.calls import Document
from hasched.client.wire import Wire
from hasched.model.errors import EventsCompacted, NotFound
from hasched.model.views import EventView, Submitted
from hasched.model.workflow_views import ExecutionView, InstanceView, MemoPage, TemplatePage, TemplateView


class WorkflowClient(Wire):
    """A part of `Client`."""

    def templates(self, kind: str | None = None) -> TemplatePage:
        """The templates, each with its latest version; `kind` is job or workflow."""
        return self._do(workflow_calls.templates(kind))

    def template(self, kind: str, name: str, version: int | None = None) -> TemplateView:
        return self._do(workflow_calls.template(kind, name, version))

    def put_template(self, kind: str, name: str, document: Document, if_version: int | None = None) -> TemplateView:
        """Put a template: a new version, unless it is what the latest is. Raises SpecInvalid, Conflict."""
        return self._do(workflow_calls.put_template(kind, name, document, if_version))

    def revert_template(self, kind: str, name: str, version: int) -> TemplateView:
        """Put an earlier version again, as a new one."""
        return self._do(workflow_calls.revert_template(kind, name, version))

    def delete_template(self, kind: str, name: str) -> None:
        self._do(workflow_calls.delete_template(kind, name))

    def dispatch(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        namespace: str | None = None,
        submission_id: str | None = None,
    ) -> Submitted:
        """Submit the job that a job template makes with these parameters."""
        return self._do(workflow_calls.dispatch(name, parameters or {}, namespace, submission_id))

    def execute(
        self,
        workflow: str | Mapping[str, Any],
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout_ms: int = 0,
        namespace: str | None = None,
        submission_id: str | None = None,
    ) -> ExecutionView:
        """Execute a workflow, a template by its name or a document; returns once a majority of managers has it on disk."""
        return self._do(workflow_calls.execute(workflow, parameters or {}, timeout_ms, namespace, submission_id))

    def executions(self, workflow: str | None = None, state: str | None = None) -> Iterator[ExecutionView]:
        """Executions, the latest first, read page by page as they are taken."""
        cursor = ""
        while True:
            page = self._do(workflow_calls.executions(cursor, workflow, state))
            yield from page.executions
            cursor = page.next_cursor
            if not cursor:
                return

    def execution(self, execution_id: int) -> ExecutionView:
        """One execution, with its tasks."""
        return self._do(workflow_calls.execution(execution_id))

    def instances(self, execution_id: int, task: str) -> Iterator[InstanceView]:
        """The instances of a task: of a fan-out, one for each item."""
        cursor = ""
        while True:
            page = self._do(workflow_calls.execution_task(execution_id, task, cursor))
            yield from page.instances
            cursor = page.next_cursor
            if not cursor:
                return

    def cancel_execution(self, execution_id: int, reason: str = "") -> ExecutionView:
        """Begin nothing more and stop what runs; asked again, also what takes back and cleans up."""
        return self._do(workflow_calls.cancel_execution(execution_id, reason))

    def retry_execution(self, execution_id: int) -> ExecutionView:
        """Run again what failed, and everything after it."""
        return self._do(workflow_calls.retry_execution(execution_id))

    def decide_approval(self, execution_id: int, task: str, approve: bool, comment: str = "") -> ExecutionView:
        return self._do(workflow_calls.decide_approval(execution_id, task, approve, comment))

    def memos(
        self, workflow: str | None = None, task: str = "", namespace: str | None = None, limit: int = 100
    ) -> MemoPage:
        """What memoised tasks have left, the latest first."""
        return self._do(workflow_calls.memos(workflow, task, namespace, limit))

    def forget_memos(self, workflow: str, task: str = "", key: str = "", namespace: str | None = None) -> None:
        """Forget what memoised tasks of a workflow have left, so that they run again."""
        self._do(workflow_calls.forget_memos(workflow, task, key, namespace))

    def delete_execution(self, execution_id: int) -> None:
        """Forget an execution that has ended."""
        self._do(workflow_calls.delete_execution(execution_id))

    def wait_for_execution(self, execution_id: int, timeout: float | None = None) -> ExecutionView:
        """The execution once it has ended; as it is after `timeout` seconds if it hasn't."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            execution = self.execution(execution_id)
            if execution.ended_ms or (deadline is not None and time.monotonic() >= deadline):
                return execution
            after = calls.after_index(execution.log_index)
            try:
                for _ in self.execution_events(execution_id, after, ENDS, deadline):
                    break
            except EventsCompacted:
                continue

    def execution_events(
        self, execution_id: int, after: str, types: Sequence[str] = (), deadline: float | None = None
    ) -> Iterator[EventView]:
        """What happens to an execution after the event `after`. Raises EventsCompacted, and NotFound when it is deleted."""
        for event in self._events(after, None, types, deadline, execution=execution_id):
            if event.type in ("ExecutionDeleted", "ExecutionExpired"):
                raise NotFound(f"execution {execution_id} was deleted", "its history is gone with it")
            yield event


ENDS = ("ExecutionEnded", "ExecutionDeleted", "ExecutionExpired")
