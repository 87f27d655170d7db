"""What the API shows of templates and executions; as `views.py` does of the rest."""

from __future__ import annotations

from typing import Any

import msgspec


class _View(msgspec.Struct, frozen=True, kw_only=True):
    pass


class TemplateView(_View, frozen=True):
    """One version of a template. `document` is left out of lists."""

    kind: str  # job, workflow
    name: str
    version: int
    versions: list[int]  # that are kept
    actor: str
    put_ms: int
    log_index: int
    document: dict[str, Any] | None = None


class TemplatePage(_View, frozen=True):
    templates: list[TemplateView]


class TaskBefore(_View, frozen=True):
    task: str
    when: str  # ok, failed, any


class ExecutionTaskView(_View, frozen=True):
    """A task of a workflow in one execution. `instances` counts them by state; a task without for_each has one, a check as many
    as there are jobs to look at."""

    name: str
    state: str  # waiting, running, succeeded, failed, skipped, cancelled
    role: str  # main, undo, final
    kind: str  # job, approval, workflow, check, webhook
    after: list[TaskBefore]
    reason: str = ""
    count: int = 0  # 0: its turn has not come
    instances: dict[str, int] = {}
    job: int = 0  # of a task that has one instance: its job, or inner execution
    output: str | None = None  # of such a task, where something in the workflow asks for it
    fans_out: bool = False
    memoised: int = 0  # so many instances did not run: they left what an earlier execution had
    memo_of: int = 0  # of a task that has one instance: that execution
    approval: str = ""
    started_ms: int = 0
    ended_ms: int = 0


class ExecutionView(_View, frozen=True):
    id: int
    workflow: str
    version: int  # of the workflow template; 0: it came with its document
    namespace: str
    state: str  # running, succeeded, failed, cancelled, timed_out
    stage: str  # main, undo, final, ended
    actor: str
    submission_id: str
    tasks_by_state: dict[str, int]
    parameters: dict[str, Any]
    parent: str = ""  # the task that executes it, `execution/ID/TASK`
    reason: str = ""
    output: str = ""
    round: int = 0  # how often it was begun again
    stopping: bool = False
    started_ms: int = 0
    ended_ms: int = 0
    deadline_ms: int = 0  # 0: none
    log_index: int = 0
    tasks: list[ExecutionTaskView] | None = None  # only where one execution is shown


class ExecutionPage(_View, frozen=True):
    executions: list[ExecutionView]
    next_cursor: str = ""


class InstanceView(_View, frozen=True):
    index: int
    state: str  # unmade, made, succeeded, failed, cancelled, over
    item: Any = None
    job: int = 0
    memo_of: int = 0  # the execution whose job has left what it leaves; 0: it has run itself
    exit_code: int = 0


class MemoView(_View, frozen=True):
    """What a task has left under a key, for executions that come to it again."""

    workflow: str
    task: str
    key: str
    namespace: str
    execution: int
    job: int
    output_bytes: int
    made_ms: int


class MemoPage(_View, frozen=True):
    """The latest first. `total` counts those that aren't shown too."""

    memos: list[MemoView]
    total: int


class InstancePage(_View, frozen=True):
    """The instances of a task, in order; `next_cursor` is where the next page begins."""

    task: ExecutionTaskView
    instances: list[InstanceView]
    next_cursor: str = ""
