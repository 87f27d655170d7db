"""The workflow spec: what an execution does, in canonical form. `hasched.model.workflow_text` makes it from a document.

Its tasks are rows of one table, and refer to each other by their place in it. Rows of another role than MAIN stand after all
that are: what takes the effect of a task back, and what runs at the end whatever has happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import Any

import msgspec

from hasched.model.notices import NotifyRule, Topic
from hasched.model.spec import DEFAULT_NAMESPACE, JobSpec

MAX_ROWS = 5_000  # of a workflow, those of the workflows within it too
MAX_INSTANCES = 20_000  # of one execution: jobs, approvals and executions within it
MAX_NESTING = 4  # workflows within workflows
MAX_WORKFLOW_BYTES = 2 * 1024 * 1024
MAX_PARAMETERS = 64
MAX_PARAMETER_BYTES = 64 * 1024  # of all values of an execution together
MAX_KEPT_BYTES = 4 * 1024 * 1024  # of outputs that an execution keeps for its expressions, and of questions


class When(StrEnum):
    """How a task has to end so that one after it may start."""

    OK = "ok"
    FAILED = "failed"
    ANY = "any"


class OnFailure(StrEnum):
    STOP = "stop"  # start nothing more but what asks for a failure
    CONTINUE = "continue"  # start all that doesn't need what has failed


class Role(IntEnum):
    MAIN = 0
    UNDO = 1  # takes the effect of row `of` back, if that had succeeded and the execution doesn't
    FINAL = 2  # after all else, whatever happened


class After(msgspec.Struct, frozen=True, array_like=True, gc=False):
    row: int
    when: When = When.OK


class MemoTerms(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A task that doesn't run again for the same inputs, but leaves what it has left before."""

    key: str = ""  # a text with expressions: what is the same has the same; empty: the whole job with its values
    max_age_ms: int = 0  # 0: however long ago


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row. It has a job, a question for people (`approval`), or a workflow; or it `validates`, or `tells`."""

    name: str
    job: JobSpec | None = None
    approval: str = ""
    workflow: WorkflowSpec | None = None
    arguments: tuple[tuple[str, Any], ...] | None = (
        None  # what `params` means within its job or workflow; None: the same
    )
    after: tuple[After, ...] = ()
    condition: str = ""  # an expression that must hold when its turn has come, else it is skipped
    for_each: str = ""  # an expression that gives a list: an instance for each item
    fans_out: bool = False
    items: tuple[Any, ...] = ()  # the list itself, where it stands in the document
    parallelism: int = 0  # so many instances at once; 0: no cap
    enough: int = 0  # so many that succeed are enough, the others are stopped; 0: all have to
    success: str = ""  # an expression that must hold of an instance whose job has succeeded
    success_output: str = ""  # a pattern that its output must match
    role: Role = Role.MAIN
    of: int = 0  # of an UNDO row: the row that it undoes
    keeps_output: bool = False  # something asks for it
    memo: MemoTerms | None = None
    validates: bool = False  # before all others: whether the cluster could ever run each of their jobs
    tells: str = ""  # the notification policy that is told once its turn comes; that is all it does

    @property
    def kind(self) -> str:
        """As people are told of it."""
        if self.job is not None:
            return "job"
        if self.tells:
            return "webhook"
        return "check" if self.validates else "approval" if self.approval else "workflow"


class WorkflowSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    tasks: tuple[TaskSpec, ...]
    namespace: str = DEFAULT_NAMESPACE
    on_failure: OnFailure = OnFailure.STOP
    timeout_ms: int = 0  # 0: none
    parallelism: int = 0  # so many instances at once, of all tasks; 0: no cap
    output: str = ""  # an expression: what the execution leaves
    notify: NotifyRule | None = None


class Plan:
    """What follows from a spec, worked out once: which rows come after which."""

    __slots__ = ("after_of", "check", "finals", "mains", "row_of", "spec", "told", "undos")

    def __init__(self, spec: WorkflowSpec) -> None:
        self.spec = spec
        self.row_of = {task.name: row for row, task in enumerate(spec.tasks)}
        self.after_of: list[list[int]] = [[] for _ in spec.tasks]  # rows that wait for a row
        for row, task in enumerate(spec.tasks):
            for each in task.after:
                self.after_of[each.row].append(row)
        rules = told_within(spec)
        self.told = tuple(dict.fromkeys((target, namespace) for rule, namespace in rules for target in rule.targets))
        self.check = next((row for row, task in enumerate(spec.tasks) if task.validates), -1)
        self.mains, self.undos, self.finals = (
            [row for row, task in enumerate(spec.tasks) if task.role is role] for role in Role
        )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(WorkflowSpec)


def pack_workflow(spec: WorkflowSpec) -> bytes:
    return _encoder.encode(spec)


@lru_cache(maxsize=512)
def plan_of(packed: bytes) -> Plan:
    """The plan of a packed spec; of those asked for last it is kept."""
    return Plan(_decoder.decode(packed))


def jobs_of(spec: WorkflowSpec, within: str = "") -> Iterator[tuple[str, JobSpec]]:
    """The jobs of its tasks and of the workflows within it, in their order, each with the name of its task: `outer.inner`."""
    for task in spec.tasks:
        if task.job is not None:
            yield within + task.name, task.job
        elif task.workflow is not None:
            yield from jobs_of(task.workflow, f"{within}{task.name}.")


def told_within(spec: WorkflowSpec, *, jobs: bool = True) -> Iterator[tuple[NotifyRule, str]]:
    """Who is told of it, of its jobs and of the workflows within it, each with the namespace."""
    if spec.notify is not None:
        yield spec.notify, spec.namespace
    for task in spec.tasks:
        if jobs and task.job is not None and task.job.notify is not None:
            yield task.job.notify, task.job.namespace
        elif task.workflow is not None:
            yield from told_within(task.workflow, jobs=jobs)
        elif task.tells:
            yield NotifyRule((task.tells,), (Topic.WORKFLOW_HOOK.value,)), spec.namespace


def count_rows(spec: WorkflowSpec) -> int:
    """Its tasks and those of the workflows within it."""
    return sum(1 + (count_rows(task.workflow) if task.workflow is not None else 0) for task in spec.tasks)
