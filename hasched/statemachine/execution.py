"""An execution of a workflow: for each row of its spec how far it is, and which of its instances have which job.

What has to be looked at next stands in it (`looks`, `blocked`, `stops`), so a new leader goes on with exactly that.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

import msgspec

from hasched.model.workflow import Plan, plan_of
from hasched.statemachine.job import OF_EXECUTIONS


class RowState(IntEnum):
    """The numbers are part of the snapshot format and never change."""

    WAITING = 0
    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    SKIPPED = 4
    CANCELLED = 5

    @property
    def final(self) -> bool:
        return self >= RowState.SUCCEEDED


class Phase(IntEnum):
    """Of an instance. The numbers are part of the snapshot format and never change."""

    UNMADE = 0
    MADE = 1  # its job, its inner execution or its approval has not ended
    SUCCEEDED = 2
    FAILED = 3
    CANCELLED = 4
    OVER = 5  # its job has succeeded; whether that is a success is to be judged


class Stage(IntEnum):
    """The numbers are part of the snapshot format and never change."""

    MAIN = 0
    UNDO = 1
    FINAL = 2
    ENDED = 3


class ExecutionState(IntEnum):
    """The numbers are part of the snapshot format and never change."""

    RUNNING = 0
    SUCCEEDED = 1
    FAILED = 2
    CANCELLED = 3
    TIMED_OUT = 4


class Row(msgspec.Struct, array_like=True, gc=False):
    """`order` counts the ends of the execution's rows: what ended last is taken back first."""

    state: RowState = RowState.WAITING
    phases: bytearray = bytearray()
    jobs: list[int] = []  # of each instance, its job or inner execution; 0: none
    items: bytes = b""  # the list of a fan-out, packed
    outputs: dict[int, bytes] | None = None
    codes: dict[int, int] | None = None  # exit codes, where they aren't 0
    dropped: bool = False  # some output was more than an execution keeps
    reason: str = ""
    started_ms: int = 0
    ended_ms: int = 0
    order: int = 0

    def count(self, phase: Phase) -> int:
        return self.phases.count(phase)

    def copy(self) -> Row:
        """One that can be changed and leaves this as it is."""
        return Row(
            self.state,
            self.phases[:],
            self.jobs[:],
            self.items,
            None if self.outputs is None else dict(self.outputs),
            None if self.codes is None else dict(self.codes),
            self.dropped,
            self.reason,
            self.started_ms,
            self.ended_ms,
            self.order,
        )


class Stop(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why nothing more is begun. `whole`: nor what would take back and clean up."""

    state: ExecutionState
    actor: str
    reason: str
    requested_ms: int
    whole: bool = False

    @property
    def words(self) -> str:
        if self.state is ExecutionState.TIMED_OUT:
            return self.reason
        return f"cancelled by {self.actor}" + (f": {self.reason}" if self.reason else "")


class Execution(msgspec.Struct, array_like=True, gc=False, kw_only=True):
    """Read it freely; only `evolve` writes. The field order is the snapshot format: new ones go last, with a default."""

    id: int
    submission_id: str
    actor: str
    workflow: str
    version: int  # of the workflow template; 0: it came with its document
    packed_spec: bytes
    params: tuple[tuple[str, Any], ...]
    timeout_ms: int
    parent: str  # the instance that executes it; empty: somebody has asked for it
    started_ms: int
    started_index: int
    log_index: int  # of its last change
    rows: list[Row]
    left: int  # rows of this stage that have not ended
    looks: list[int]  # rows that something has happened to
    state: ExecutionState = ExecutionState.RUNNING
    stage: Stage = Stage.MAIN
    blocked: list[int] = []  # rows with instances to make, once fewer run
    stops: list[int] = []  # rows whose instances are to be stopped
    running: int = 0  # instances that have been made and are not over
    failing: bool = False
    stop: Stop | None = None
    round: int = 0  # how often it was begun again
    ends: int = 0
    deadline_ms: int = 0
    wake_ms: int = 0  # nothing is made before, because the cluster takes no job of it; 0: it does
    reason: str = ""
    instances: int = 0  # of all rows that have begun
    kept_bytes: int = 0  # of outputs, and of what people are asked now
    output: str = ""
    ended_ms: int = 0

    @property
    def plan(self) -> Plan:
        return plan_of(self.packed_spec)

    @property
    def ended(self) -> bool:
        return self.stage is Stage.ENDED

    @property
    def has_room(self) -> bool:
        """Whether one more instance may run."""
        most = self.plan.spec.parallelism
        return not most or self.running < most

    @property
    def due(self) -> bool:
        """Whether there is something to advance now."""
        if self.ended:
            return False
        if self.looks or self.stops or not (self.left or self.running):
            return True
        return bool(self.blocked) and self.has_room and not self.wake_ms

    @property
    def next_ms(self) -> int:
        """When something comes due for it, 0 if nothing will."""
        if self.ended:
            return 0
        timed = self.deadline_ms and self.stop is None and self.stage is Stage.MAIN
        times = [each for each in (self.deadline_ms if timed else 0, self.wake_ms) if each]
        return min(times, default=0)

    @property
    def result(self) -> ExecutionState:
        """What it would end as, as things are."""
        if self.stop is not None:
            return self.stop.state
        return ExecutionState.FAILED if self.failing else ExecutionState.SUCCEEDED

    @property
    def fault(self) -> str:
        """Why it would not end as succeeded, as things are; empty if it would."""
        if self.stop is not None:
            return self.stop.words
        if not self.failing:
            return ""
        failed = next((row for row, each in enumerate(self.rows) if each.state is RowState.FAILED), None)
        return "" if failed is None else f"{self.plan.spec.tasks[failed].name}: {self.rows[failed].reason}"

    @property
    def validating(self) -> bool:
        """Whether nothing of it begins before it is known that the cluster could run it."""
        check = self.plan.check
        return check >= 0 and not self.rows[check].state.final

    @property
    def refused(self) -> bool:
        """Whether the cluster could never run all of it, so nothing of it runs."""
        check = self.plan.check
        return check >= 0 and self.rows[check].state is RowState.FAILED

    def look(self, row: int) -> None:
        if row not in self.looks:
            self.looks.append(row)

    def look_at(self, rows: Iterable[int]) -> None:
        """At each of these, too; there may be thousands."""
        self.looks = list(dict.fromkeys([*self.looks, *rows]))


def parent_of(execution_id: int, task: str, instance: int, fans_out: bool) -> str:
    """What a job of an execution names as its parent."""
    return f"{OF_EXECUTIONS}{execution_id}/{task}" + (f"[{instance}]" if fans_out else "")


def read_parent(parent: str) -> tuple[int, str, int] | None:
    """(execution, task, instance), None if there is no parent, or it is something else."""
    if not parent.startswith(OF_EXECUTIONS):
        return None
    number, _, name = parent.removeprefix(OF_EXECUTIONS).partition("/")
    task, bracket, instance = name.removesuffix("]").partition("[")
    return int(number), task, int(instance) if bracket else 0
