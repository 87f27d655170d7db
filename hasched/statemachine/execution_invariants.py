"""What is true of executions and templates in every state that apply can reach, as `invariants.py` has it of the rest."""

from __future__ import annotations

from collections.abc import Iterator

from hasched.model.workflow import MAX_KEPT_BYTES
from hasched.statemachine.execution import Execution, Phase, RowState, parent_of
from hasched.statemachine.memos import MAX_MEMO_BYTES
from hasched.statemachine.rules.workflow_progress import asked_bytes
from hasched.statemachine.state import State


def check_executions(state: State) -> Iterator[str]:
    for execution_id, execution in state.executions.items():
        if execution.id != execution_id or not execution_id < state.next_execution_id:
            yield f"execution {execution_id} stands in another's place"
        yield from _check_execution(state, execution)
    ended = [each.id for each in state.executions.values() if each.ended]
    if sorted(state.ended_executions) != ended:
        yield "the table of ended executions doesn't agree"
    order = [(state.executions[each].ended_ms, each) for each in state.ended_executions]
    if order != sorted(order):
        yield "the table of ended executions isn't in the order of their ends"
    if sorted(state.ready_executions) != [each.id for each in state.executions.values() if each.due]:
        yield "the table of executions to advance doesn't agree"
    timers = {each.id: each.next_ms for each in state.executions.values() if each.next_ms}
    if state.execution_timers != timers or state.execution_due_ms != min(timers.values(), default=0):
        yield "an execution has a time that would never come"
    kept = sum(len(each.packed_spec) + each.kept_bytes for each in state.executions.values())
    if state.execution_bytes != kept:
        yield f"executions count {state.execution_bytes} bytes, and have {kept}"
    if state.execution_ids != {each.submission_id: each.id for each in state.executions.values()}:
        yield "the table of submission ids of executions doesn't agree"
    memos = state.memos
    if memos.size_bytes != sum(memo.size for memo in memos.kept.values()) or memos.size_bytes > MAX_MEMO_BYTES:
        yield f"memos count {memos.size_bytes} bytes, and have others"
    for table in (memos.asked, memos.recalled):
        if missing := [each for each in table if each not in state.executions]:
            yield f"memos know of execution {missing[0]}, which isn't there"
    if any(each in state.executions and state.executions[each].ended for each in memos.asked):
        yield "memos wait for an execution that has ended"
    if state.template_bytes != sum(template.size for template in state.templates.values()):
        yield "templates count other bytes than they have"


def _check_execution(state: State, execution: Execution) -> Iterator[str]:
    name = f"execution {execution.id}"
    spec = execution.plan.spec
    running = outputs = 0
    for task, row in zip(spec.tasks, execution.rows, strict=True):
        outputs += sum(map(len, (row.outputs or {}).values())) + asked_bytes(task, row)
        if row.state is RowState.WAITING and row.phases:
            yield f"{name} has instances of {task.name}, which has not begun"
        for instance, phase in enumerate(row.phases):
            if phase != Phase.MADE or task.approval:
                continue
            running += 1
            made_id = row.jobs[instance]
            made = state.executions.get(made_id) if task.workflow is not None else state.jobs.get(made_id)
            parent = parent_of(execution.id, task.name, instance, task.fans_out)
            if not execution.ended and (made is None or made.ended or made.parent != parent):
                yield f"{name} waits for {parent}, which isn't there or has ended"
    if not execution.ended and running != execution.running:
        yield f"{name} counts {execution.running} instances that run, and has {running}"
    if spec.parallelism and execution.running > spec.parallelism:
        yield f"{name} runs {execution.running} instances, and may {spec.parallelism}"
    of_stage = [
        row for task, row in zip(spec.tasks, execution.rows, strict=True) if task.role.value == execution.stage.value
    ]
    if not execution.ended and execution.left != sum(not row.state.final for row in of_stage):
        yield f"{name} counts {execution.left} tasks of its stage that have not ended"
    if outputs != execution.kept_bytes or outputs > MAX_KEPT_BYTES:
        yield f"{name} counts {execution.kept_bytes} bytes of outputs, and has {outputs}"
    idle = not (execution.due or execution.running or execution.wake_ms)
    asks = any(
        task.approval and row.state is RowState.RUNNING for task, row in zip(spec.tasks, execution.rows, strict=True)
    )
    if not execution.ended and idle and not asks:
        yield f"{name} would never go on"
