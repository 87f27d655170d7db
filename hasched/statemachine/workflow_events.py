"""Events of templates, and of executions of workflows. Tasks are called by their names; instances by their numbers from 0."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from hasched.statemachine.execution import ExecutionState, RowState, Stage


class _Event(msgspec.Struct, frozen=True, tag=True, gc=False):
    pass


class TemplatePut(_Event, frozen=True):
    """A version of a template of this kind (`job`, `workflow`), the latest from here on."""

    kind: str
    name: str
    version: int
    document: bytes
    actor: str


class TemplateDeleted(_Event, frozen=True):
    kind: str
    name: str
    actor: str


class ExecutionStarted(_Event, frozen=True):
    execution_id: int
    submission_id: str
    actor: str
    workflow: str
    version: int
    packed_spec: bytes
    params: tuple[tuple[str, Any], ...]
    timeout_ms: int
    parent: str


class ExecutionTaskStarted(_Event, frozen=True):
    """The task's turn has come, with so many instances; `items` is the packed list of a fan-out."""

    execution_id: int
    task: str
    count: int
    items: bytes


class ExecutionApprovalAsked(_Event, frozen=True):
    """Somebody has to decide about the task."""

    execution_id: int
    task: str
    question: str = ""  # with its values


class ExecutionApprovalDecided(_Event, frozen=True):
    execution_id: int
    task: str
    approved: bool
    actor: str
    comment: str


class ExecutionMemoAsked(_Event, frozen=True):
    """Nothing is known under this key: what the instance leaves will be kept under it."""

    execution_id: int
    task: str
    instance: int
    key: str


class ExecutionMemoRecalled(_Event, frozen=True):
    """The instance doesn't run: `by_job` of the execution `by_execution` has left `output` under its key at `made_ms`."""

    execution_id: int
    task: str
    instance: int
    key: str
    by_execution: int
    by_job: int
    made_ms: int
    output: bytes | None


class MemosForgotten(_Event, frozen=True):
    namespace: str
    workflow: str
    task: str
    key: str
    actor: str


class ExecutionInstancesJudged(_Event, frozen=True):
    """These instances never had a job, or had one that ended; `succeeded` says what they are. `reason` is that of the first."""

    execution_id: int
    task: str
    instances: tuple[int, ...]
    succeeded: bool
    reason: str


class ExecutionTaskEnded(_Event, frozen=True):
    execution_id: int
    task: str
    state: RowState
    reason: str


class ExecutionInstancesStopped(_Event, frozen=True):
    """What still ran of the task has been told to stop."""

    execution_id: int
    task: str


class ExecutionStaged(_Event, frozen=True):
    """All tasks have ended; what takes back, or cleans up, begins. The `skipped` tasks of it have nothing to do."""

    execution_id: int
    stage: Stage
    skipped: tuple[str, ...]


class ExecutionDelayed(_Event, frozen=True):
    """The cluster takes no job of it now; it asks again then."""

    execution_id: int
    until_ms: int
    reason: str


class ExecutionStopRequested(_Event, frozen=True):
    """`whole`: what takes back and cleans up is ended, too."""

    execution_id: int
    state: ExecutionState
    actor: str
    reason: str
    whole: bool


class ExecutionRetried(_Event, frozen=True):
    """It begins again: `anew` are the tasks that do so from nothing, `again` those that do what has failed of them."""

    execution_id: int
    actor: str
    anew: tuple[str, ...]
    again: tuple[str, ...]


class ExecutionAdvanced(_Event, frozen=True):
    """What is left to look at after a step."""

    execution_id: int
    looks: tuple[int, ...]
    blocked: tuple[int, ...]


class ExecutionEnded(_Event, frozen=True):
    execution_id: int
    state: ExecutionState
    output: str
    reason: str


class ExecutionDeleted(_Event, frozen=True):
    execution_id: int
    actor: str


class ExecutionExpired(_Event, frozen=True):
    """An ended execution was forgotten because its retention is over."""

    execution_id: int


WorkflowEvent: TypeAlias = (
    TemplatePut
    | TemplateDeleted
    | ExecutionStarted
    | ExecutionTaskStarted
    | ExecutionApprovalAsked
    | ExecutionApprovalDecided
    | ExecutionMemoAsked
    | ExecutionMemoRecalled
    | MemosForgotten
    | ExecutionInstancesJudged
    | ExecutionTaskEnded
    | ExecutionInstancesStopped
    | ExecutionStaged
    | ExecutionDelayed
    | ExecutionStopRequested
    | ExecutionRetried
    | ExecutionAdvanced
    | ExecutionEnded
    | ExecutionDeleted
    | ExecutionExpired
)
