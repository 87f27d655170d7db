"""Submissions: the one way in for jobs that schedules and workflows make, and for executions.

Such a job is checked as everybody's is. Its submission id holds a blank, which the API takes from nobody: so no client can be
there first, and as whoever makes it knows what it has made, the id is forgotten together with the job.
"""

from __future__ import annotations

from typing import Any

from hasched.model.spec import JobSpec
from hasched.model.workflow import WorkflowSpec, pack_workflow
from hasched.statemachine import state as tables
from hasched.statemachine.events import JobSubmitted
from hasched.statemachine.job import OF_EXECUTIONS
from hasched.statemachine.limits import PartKey
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.quotas import QUEUED_JOBS, QUEUED_TASKS
from hasched.statemachine.rules import jobs, notifications
from hasched.statemachine.state import State
from hasched.statemachine.workflow_events import ExecutionStarted


class Submissions:
    """What one decision submits: each job has the next id, and is admitted as if those before it were in already.

    It only reads the state. A new one for every decision; all events it gives have to happen, in their order.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._next_job_id = state.next_job_id
        self._made: dict[str, None] = {}
        self._limits = state.usage.limits
        self._uncounted: list[tuple[PartKey, int]] = []  # of whom, and how many tasks
        self._started = self._started_bytes = 0

    def submit(self, spec: JobSpec, submission_id: str, actor: str, parent: str) -> JobSubmitted | Rejected:
        """The event that makes the job, or why it may not come in. `submission_id` has a blank; `parent` is not empty."""
        assert " " in submission_id and parent, "it is told from what clients submit"
        if submission_id in self._state.submissions or submission_id in self._made:
            return Rejected("submitted_before", f"there is a job of {submission_id} already", "it is made once")
        self._count()
        admitted = jobs.admit(self._state, submission_id, actor, spec, self._limits, parent=parent)
        if isinstance(admitted, Rejected):
            return admitted
        event = JobSubmitted(self._next_job_id, submission_id, actor, admitted, parent)
        self._next_job_id += 1
        self._made[submission_id] = None
        self._uncounted.append(((admitted.namespace, actor, parent.startswith(OF_EXECUTIONS)), admitted.count))
        return event

    def start(
        self,
        spec: WorkflowSpec,
        params: tuple[tuple[str, Any], ...],
        *,
        submission_id: str,
        actor: str,
        parent: str = "",
        version: int = 0,
        timeout_ms: int = 0,
    ) -> ExecutionStarted | Rejected:
        """The event that starts an execution, or why it may not. `timeout_ms` 0: as the spec says."""
        state, packed = self._state, pack_workflow(spec)
        if submission_id in state.execution_ids:
            return Rejected("submitted_before", f"there is an execution of {submission_id} already", "it is made once")
        if refused := notifications.refuse_unknown_within(state, spec):
            return refused
        if state.running_executions + self._started >= tables.MAX_RUNNING_EXECUTIONS:
            most = tables.MAX_RUNNING_EXECUTIONS
            return Rejected("too_many_executions", f"{most} executions run already", "wait until one has ended")
        if state.execution_bytes + self._started_bytes + len(packed) > tables.MAX_EXECUTION_BYTES:
            return Rejected("too_many_executions", "executions take all the memory that they may", "delete ended ones")
        execution_id = state.next_execution_id + self._started
        self._started += 1
        self._started_bytes += len(packed)
        timeout_ms = timeout_ms or spec.timeout_ms
        return ExecutionStarted(
            execution_id, submission_id, actor, spec.name, version, packed, params, timeout_ms, parent
        )

    def _count(self) -> None:
        """Only what waits is counted when a job comes in, and only quotas count it."""
        limits = self._state.usage.limits
        if not (limits.any_quotas and self._uncounted):
            return
        if self._limits is limits:
            self._limits = limits.blank()
            self._limits.copy_use(limits)
        for part, tasks in self._uncounted:
            for dimension, amount in ((QUEUED_JOBS, 1), (QUEUED_TASKS, tasks)):
                self._limits.count(part, dimension, amount)
        self._uncounted.clear()
