"""Executions: started, steered, begun again, and forgotten after their end. What they do by themselves is in `workflows.py`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from hasched.model.ids import is_name
from hasched.model.kinds import suggest
from hasched.model.workflow import (
    MAX_NESTING,
    MAX_PARAMETERS,
    MAX_ROWS,
    MAX_WORKFLOW_BYTES,
    Role,
    WorkflowSpec,
    pack_workflow,
)
from hasched.statemachine import state as tables
from hasched.statemachine import workflow_events as w
from hasched.statemachine.commands import (
    CancelExecution,
    DecideApproval,
    DeleteExecution,
    ForgetMemos,
    RetryExecution,
    StartExecution,
)
from hasched.statemachine.execution import Execution, ExecutionState, Phase, RowState, read_parent
from hasched.statemachine.outcomes import ExecutionAccepted, Rejected
from hasched.statemachine.rules import Decision
from hasched.statemachine.rules.notifications import TOLD_HELD_SINCE, refuse_unknown_within
from hasched.statemachine.rules.submissions import Submissions
from hasched.statemachine.rules.workflows import SKIPPED_BY_CONDITION
from hasched.statemachine.state import State

MAX_EXPIRED_PER_STEP = 100
MAX_NAME_LENGTH = 256
MAX_TIMEOUT_MS = 3660 * 86_400_000


def decide_start(state: State, command: StartExecution) -> Decision | Rejected:
    known = state.execution_ids.get(command.submission_id)
    if known is not None:
        return Decision([], ExecutionAccepted(known, duplicate=True))
    if fault := _fault_of(command):
        return Rejected("invalid_workflow", fault, "validate workflows with parse_workflow before they are proposed")
    started = Submissions(state).start(
        command.spec,
        command.params,
        submission_id=command.submission_id,
        actor=command.actor,
        version=command.version,
        timeout_ms=command.timeout_ms,
    )
    if isinstance(started, Rejected):
        return started
    return Decision([started], ExecutionAccepted(started.execution_id, duplicate=False))


def _fault_of(command: StartExecution) -> str:
    """What makes a start unsafe to hold. The edge has refused it long before, with more to say."""
    if not 0 < len(command.submission_id) <= MAX_NAME_LENGTH or len(command.actor) > MAX_NAME_LENGTH:
        return "the submission id or the actor is empty or too long"
    if not 0 <= command.timeout_ms <= MAX_TIMEOUT_MS or len(command.params) > MAX_PARAMETERS:
        return "the timeout or the number of parameters is out of bounds"
    return fault_of_workflow(command.spec)


def fault_of_workflow(spec: WorkflowSpec, depth: int = 0) -> str:
    """What makes a spec unsafe to hold, empty if nothing does."""
    if not depth and len(pack_workflow(spec)) > MAX_WORKFLOW_BYTES:
        return "the workflow is too large"
    if not 0 < len(spec.tasks) <= MAX_ROWS or not is_name(spec.name) or depth >= MAX_NESTING:
        return "a workflow has a name and tasks, and isn't nested deeply"
    if len(dict.fromkeys(task.name for task in spec.tasks)) != len(spec.tasks):
        return "two tasks have one name"
    mains = sum(task.role is Role.MAIN for task in spec.tasks)
    for row, task in enumerate(spec.tasks):
        kinds = (task.job is not None, bool(task.approval), task.workflow is not None, task.validates, bool(task.tells))
        if sum(kinds) != 1:
            return "a task has one of a job, an approval and a workflow, or is a check or a webhook"
        if (task.role is Role.MAIN) is not (row < mains) or not 0 <= task.of < max(1, mains):
            return "tasks are in another order than their roles"
        if any(not 0 <= each.row < mains for each in task.after) or min(task.parallelism, task.enough) < 0:
            return "a task comes after one that isn't there"
        if task.validates and (task.role is not Role.MAIN or task.after or task.fans_out or task.condition):
            return "a check stands before all other tasks"
        if task.tells and (task.role is Role.UNDO or task.fans_out):
            return "a webhook is told once, and takes nothing back"
        if task.workflow is not None and (fault := fault_of_workflow(task.workflow, depth + 1)):
            return fault
    checks = sum(task.validates for task in spec.tasks)
    if checks > 1 or (checks and not all(task.after or task.validates for task in spec.tasks[:mains])):
        return "all other tasks come after a check, and there is one at most"
    return (
        "" if mains and min(spec.parallelism, spec.timeout_ms) >= 0 else "a workflow has tasks, and no negative amounts"
    )


def _find(state: State, execution_id: int) -> Execution | Rejected:
    execution = state.executions.get(execution_id)
    if execution is None:
        return Rejected(
            "no_such_execution",
            f"there is no execution {execution_id}",
            "it may have been deleted, or have passed its retention",
        )
    return execution


def _find_running(state: State, execution_id: int) -> Execution | Rejected:
    execution = _find(state, execution_id)
    if isinstance(execution, Execution) and execution.ended:
        return Rejected(
            "execution_ended",
            f"execution {execution_id} has ended: {execution.state.name.lower()}",
            "`hasched workflow retry` runs again what failed",
        )
    return execution


def decide_cancel(state: State, command: CancelExecution) -> Decision | Rejected:
    execution = _find_running(state, command.execution_id)
    if isinstance(execution, Rejected):
        return execution
    whole = execution.stop is not None
    if execution.stop is not None and execution.stop.whole:
        return Decision([])
    ends_as = execution.stop.state if execution.stop is not None else ExecutionState.CANCELLED
    return Decision([w.ExecutionStopRequested(execution.id, ends_as, command.actor, command.reason[:1000], whole)])


def decide_retry(state: State, command: RetryExecution) -> Decision | Rejected:
    execution = _find(state, command.execution_id)
    if isinstance(execution, Rejected):
        return execution
    if not execution.ended:
        return Rejected("execution_active", f"execution {execution.id} has not ended", "cancel it first, or wait")
    if execution.state is ExecutionState.SUCCEEDED:
        return Rejected("execution_ended", f"execution {execution.id} has succeeded", "start another")
    if read_parent(execution.parent) is not None:
        return Rejected("execution_inner", f"execution {execution.id} is part of {execution.parent}", "retry that one")
    if state.running_executions >= tables.MAX_RUNNING_EXECUTIONS:
        most = tables.MAX_RUNNING_EXECUTIONS
        return Rejected("too_many_executions", f"{most} executions run already", "wait until one has ended")
    spec = execution.plan.spec
    if state.entry_version >= TOLD_HELD_SINCE and (refused := refuse_unknown_within(state, spec)):
        return refused
    anew, again = _rows_to_retry(execution)
    tasks = spec.tasks
    names_anew, names_again = (tuple(tasks[row].name for row in rows) for rows in (anew, again))
    return Decision([w.ExecutionRetried(execution.id, command.actor, names_anew, names_again)])


def _rows_to_retry(execution: Execution) -> tuple[list[int], list[int]]:
    """The rows that begin from nothing, and those of which only what failed is made again."""
    plan, rows = execution.plan, execution.rows
    undone = {plan.spec.tasks[row].of: None for row in plan.undos if rows[row].state is not RowState.SKIPPED}
    first = [
        row
        for row in plan.mains
        if rows[row].state in (RowState.FAILED, RowState.CANCELLED)
        or (rows[row].state is RowState.SKIPPED and rows[row].reason != SKIPPED_BY_CONDITION)
        or row in undone
    ]
    below: dict[int, None] = {}  # that come after one of these
    walk = [after for row in first for after in plan.after_of[row]]
    while walk:
        row = walk.pop()
        if row not in below:
            below[row] = None
            walk += plan.after_of[row]
    partly = [
        row
        for row in first
        if row not in below and row not in undone and plan.spec.tasks[row].fans_out and rows[row].count(Phase.SUCCEEDED)
    ]
    anew = sorted(dict.fromkeys([*(row for row in first if row not in partly), *below]))
    return anew, partly


def decide_approval(state: State, command: DecideApproval) -> Decision | Rejected:
    execution = _find_running(state, command.execution_id)
    if isinstance(execution, Rejected):
        return execution
    row = execution.plan.row_of.get(command.task)
    if row is None:
        hint = suggest(command.task, execution.plan.row_of)
        return Rejected("no_such_task", f"execution {execution.id} has no task {command.task[:64]}", hint)
    if not execution.plan.spec.tasks[row].approval:
        return Rejected("no_approval", f"{command.task} asks nobody", "only tasks with `approval` do")
    found = execution.rows[row]
    wanted = Phase.SUCCEEDED if command.approve else Phase.FAILED
    if found.phases and found.phases[0] == wanted:
        return Decision([])
    if found.state is not RowState.RUNNING or found.phases[0] != Phase.MADE:
        said = found.reason or f"it is {found.state.name.lower()}"
        return Rejected("not_asked", f"nothing is asked by {command.task}: {said}", "")
    return Decision(
        [w.ExecutionApprovalDecided(execution.id, command.task, command.approve, command.actor, command.comment[:1000])]
    )


def decide_delete(state: State, command: DeleteExecution) -> Decision | Rejected:
    execution = _find(state, command.execution_id)
    if isinstance(execution, Rejected):
        return execution
    if not execution.ended:
        return Rejected(
            "execution_active", f"execution {execution.id} has not ended", "cancel it first, and wait for its end"
        )
    return Decision([w.ExecutionDeleted(execution.id, command.actor)])


def decide_forget(state: State, command: ForgetMemos) -> Decision | Rejected:
    of = (command.namespace, command.workflow, command.task, command.key)
    if next(state.memos.select(*of), None) is None:
        return Rejected(
            "no_such_memo", f"nothing is remembered of that in {command.namespace[:64]}", "see `hasched workflow memos`"
        )
    return Decision([w.MemosForgotten(*of, command.actor)])


def evolve_forgotten(state: State, event: w.MemosForgotten) -> None:
    for memo in list(state.memos.select(event.namespace, event.workflow, event.task, event.key)):
        state.memos.drop(memo.name)


# ── Retention ───────────────────────────────────────────────────────────────────────────────────────────────────────


def are_overfull(state: State) -> bool:
    return (
        len(state.ended_executions) > tables.MAX_ENDED_EXECUTIONS or state.execution_bytes > tables.MAX_EXECUTION_BYTES
    )


def next_expiry(state: State) -> int:
    """When the retention of the execution that ended first is over; there is one."""
    return state.executions[next(iter(state.ended_executions))].ended_ms + tables.RETENTION_MS


def decide_expired(state: State) -> Iterator[w.ExecutionExpired]:
    """Those whose retention is over, or, where there are too many, some that ended first."""
    excess = len(state.ended_executions) - tables.MAX_ENDED_EXECUTIONS
    over = state.execution_bytes - tables.MAX_EXECUTION_BYTES
    for number, execution_id in enumerate(islice(state.ended_executions, MAX_EXPIRED_PER_STEP)):
        execution = state.executions[execution_id]
        if number >= excess and over <= 0 and execution.ended_ms + tables.RETENTION_MS > state.now_ms:
            return
        over -= len(execution.packed_spec) + execution.kept_bytes
        yield w.ExecutionExpired(execution_id)
