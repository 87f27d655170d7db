"""What happens to an execution, performed: `evolve_…` on the state, and the same on drafts, by which the engine looks ahead.

A step of the engine decides many things of which each depends on those before. So it performs them on a draft as they come,
by the very code that performs them on the state when all are decided.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import NamedTuple

from hasched.model.spec import MAX_OUTPUT_BYTES
from hasched.model.states import TaskState
from hasched.model.workflow import MAX_KEPT_BYTES, Role, TaskSpec
from hasched.statemachine import workflow_events as w
from hasched.statemachine.events import Event, JobEnded, JobSubmitted
from hasched.statemachine.execution import (
    Execution,
    ExecutionState,
    Phase,
    Row,
    RowState,
    Stage,
    Stop,
    read_parent,
)
from hasched.statemachine.job import Job
from hasched.statemachine.memos import Asked, Memo, Recalled
from hasched.statemachine.state import State

CUTS_SEEN_SINCE = 4  # the version of entries; before, an output that was cut was passed on as if it were whole
CUT = f"its output is cut to {MAX_OUTPUT_BYTES} bytes, and others ask for it: put what is large in files"


class Over(NamedTuple):
    """How the job or inner execution `made_id` has ended, and what it left."""

    made_id: int
    end: TaskState
    code: int | None
    output: bytes | None
    cut: bool = False  # there may have been more of it


class Book:
    """An execution that things happen to."""

    __slots__ = ("_edited", "execution")

    def __init__(self, execution: Execution, *, draft: bool) -> None:
        self.execution = execution
        self._edited: dict[int, None] | None = None
        if draft:
            self.execution = drafted = copy.copy(execution)
            self._edited = {}
            for name in ("rows", "looks", "blocked", "stops"):
                setattr(drafted, name, list(getattr(execution, name)))

    def row(self, number: int) -> Row:
        """A row to write to."""
        rows = self.execution.rows
        if self._edited is not None and number not in self._edited:
            self._edited[number] = None
            rows[number] = rows[number].copy()
        return rows[number]


# ── On the state ────────────────────────────────────────────────────────────────────────────────────────────────────


def evolve_execution(state: State, event: w.WorkflowEvent) -> None:
    """Any event of an execution but its start and what forgets it."""
    execution = state.executions[event.execution_id]  # type: ignore[union-attr]
    state.touch_execution(execution)
    kept = execution.kept_bytes
    take(Book(execution, draft=False), event, state.now_ms)
    state.execution_bytes += execution.kept_bytes - kept
    _remember(state, execution, event)
    if isinstance(event, w.ExecutionEnded):
        state.end_execution(execution)
        evolve_over(state, execution.parent, over_of_execution(execution))
    elif isinstance(event, w.ExecutionRetried):
        del state.ended_executions[execution.id]
        state.note_execution(execution)
    state.follow_execution(execution)


def evolve_started(state: State, event: w.ExecutionStarted) -> None:
    execution = begin(event, state.now_ms, state.index)
    state.add_execution(execution)
    state.follow_execution(execution)
    evolve_made(state, event.parent, event.execution_id)


def evolve_gone(state: State, event: w.ExecutionDeleted | w.ExecutionExpired) -> None:
    execution = state.executions[event.execution_id]
    state.touch_execution(execution)
    state.drop_execution(execution)


def evolve_made(state: State, parent: str, made_id: int) -> None:
    """An instance has a job, or an inner execution, from here on."""
    if (found := _find(state, parent)) is not None:
        execution, row, instance = found
        state.touch_execution(execution)
        take_made(Book(execution, draft=False), row, instance, made_id)
        state.follow_execution(execution)


def evolve_over(state: State, parent: str, over: Over) -> None:
    """The job or inner execution of an instance has ended."""
    if (found := _find(state, parent)) is not None:
        execution, row, instance = found
        state.touch_execution(execution)
        kept = execution.kept_bytes
        take_over(Book(execution, draft=False), row, instance, over)
        state.execution_bytes += execution.kept_bytes - kept
        if over.end is TaskState.SUCCEEDED:
            _keep_memos(state, execution, row, [instance])
        state.follow_execution(execution)


def _remember(state: State, execution: Execution, event: w.WorkflowEvent) -> None:
    """What an event of an execution has to do with memos."""
    row_of, namespace = execution.plan.row_of, execution.plan.spec.namespace
    match event:
        case w.ExecutionMemoAsked():
            name = (namespace, execution.workflow, event.task, event.key)
            state.memos.ask(Asked(execution.id, row_of[event.task], event.instance, name))
        case w.ExecutionMemoRecalled():
            recalled = Recalled(execution.id, row_of[event.task], event.instance, event.by_execution)
            state.memos.recall(recalled)
        case w.ExecutionInstancesJudged() if event.succeeded:
            _keep_memos(state, execution, row_of[event.task], event.instances)
        case w.ExecutionRetried():
            state.memos.begin_anew(execution.id, [row_of[name] for name in event.anew])
        case w.ExecutionEnded():
            state.memos.end(execution.id)


def _keep_memos(state: State, execution: Execution, number: int, instances: Iterable[int]) -> None:
    """Of instances that have succeeded, unless they left more than could be kept."""
    row = execution.rows[number]
    if execution.plan.spec.tasks[number].memo is None or row.dropped:
        return
    for instance in instances:
        if row.phases[instance] != Phase.SUCCEEDED:
            continue
        if (asked := state.memos.take_asked(execution.id, number, instance)) is not None:
            output = (row.outputs or {}).get(instance)
            state.memos.put(Memo(asked.name, output, execution.id, row.jobs[instance], state.now_ms))


def over_of_job(job: Job, end: TaskState, entry_version: int) -> Over:
    output = (job.outputs or {}).get(0) if job.count == 1 else None
    cut = output is not None and len(output) >= MAX_OUTPUT_BYTES and entry_version >= CUTS_SEEN_SINCE
    return Over(job.id, end, job.exit_code, output, cut)


def over_of_execution(execution: Execution) -> Over:
    ends = {ExecutionState.SUCCEEDED: TaskState.SUCCEEDED, ExecutionState.CANCELLED: TaskState.CANCELLED}
    return Over(execution.id, ends.get(execution.state, TaskState.FAILED), None, execution.output.encode())


def _find(state: State, parent: str) -> tuple[Execution, int, int] | None:
    place = read_parent(parent) if parent else None
    execution = state.executions.get(place[0]) if place is not None else None
    if place is None or execution is None or execution.ended:
        return None
    return execution, execution.plan.row_of[place[1]], place[2]


def begin(event: w.ExecutionStarted, now_ms: int, index: int) -> Execution:
    """The execution as it starts."""
    execution = Execution(
        id=event.execution_id,
        submission_id=event.submission_id,
        actor=event.actor,
        workflow=event.workflow,
        version=event.version,
        packed_spec=event.packed_spec,
        params=event.params,
        timeout_ms=event.timeout_ms,
        parent=event.parent,
        started_ms=now_ms,
        started_index=index,
        log_index=index,
        rows=[],
        left=0,
        looks=[],
        deadline_ms=now_ms + event.timeout_ms if event.timeout_ms else 0,
    )
    plan = execution.plan
    execution.rows = [Row() for _ in plan.spec.tasks]
    execution.left = len(plan.mains)
    execution.looks = [row for row in plan.mains if not plan.spec.tasks[row].after]
    return execution


# ── On the state and on drafts ──────────────────────────────────────────────────────────────────────────────────────


def take_made(book: Book, row: int, instance: int, made_id: int) -> None:
    made = book.row(row)
    made.phases[instance] = Phase.MADE
    made.jobs[instance] = made_id
    book.execution.running += 1


def take_over(book: Book, row: int, instance: int, over: Over) -> None:
    execution = book.execution
    made_id, end, code, output, cut = over
    known = execution.rows[row]
    if instance >= len(known.jobs) or known.jobs[instance] != made_id or known.phases[instance] != Phase.MADE:
        return
    held, task = book.row(row), execution.plan.spec.tasks[row]
    execution.running -= 1
    if code:
        held.codes = held.codes or {}
        held.codes[instance] = code
    if cut and task.keeps_output and end is TaskState.SUCCEEDED:  # what comes after must not go on with half of it
        end, output = TaskState.FAILED, None
        held.reason = held.reason or CUT
    if output is not None and task.keeps_output:
        _keep_output(execution, held, instance, output)
    match end:
        case TaskState.SUCCEEDED:
            held.phases[instance] = Phase.OVER if task.success or task.success_output else Phase.SUCCEEDED
        case TaskState.CANCELLED:
            held.phases[instance] = Phase.CANCELLED
        case _:
            held.phases[instance] = Phase.FAILED
    if end is not TaskState.SUCCEEDED and not held.reason:
        noun = "execution" if task.workflow is not None else "job"
        exited = f" (exit code {code})" if code else ""
        held.reason = f"{noun} {made_id} {end.name.lower().replace('_', ' ')}{exited}"
    execution.look(row)


def asked_bytes(task: TaskSpec, row: Row) -> int:
    """How much the question takes that is asked, with its values."""
    asks = task.approval and row.state is RowState.RUNNING and row.phases[0] == Phase.MADE
    return len(row.reason.encode()) if asks else 0


def _keep_output(execution: Execution, row: Row, instance: int, output: bytes) -> None:
    if execution.kept_bytes + len(output) > MAX_KEPT_BYTES:
        row.dropped = True
        return
    row.outputs = row.outputs or {}
    row.outputs[instance] = output
    execution.kept_bytes += len(output)


def take(book: Book, event: w.WorkflowEvent, now_ms: int) -> None:
    """Perform an event of this execution."""
    execution = book.execution
    plan = execution.plan
    match event:
        case w.ExecutionTaskStarted():
            row = book.row(plan.row_of[event.task])
            row.state, row.started_ms = RowState.RUNNING, now_ms
            row.phases, row.jobs, row.items = bytearray(event.count), [0] * event.count, event.items
            execution.instances += 0 if plan.spec.tasks[plan.row_of[event.task]].validates else event.count
        case w.ExecutionApprovalAsked():
            row = book.row(plan.row_of[event.task])
            row.phases[0], row.reason = Phase.MADE, event.question
            execution.kept_bytes += len(event.question.encode())
        case w.ExecutionApprovalDecided():
            number = plan.row_of[event.task]
            row = book.row(number)
            execution.kept_bytes -= asked_bytes(plan.spec.tasks[number], row)
            row.phases[0] = Phase.SUCCEEDED if event.approved else Phase.FAILED
            said = f": {event.comment}" if event.comment else ""
            row.reason = f"{'approved' if event.approved else 'refused'} by {event.actor}{said}"
            execution.look(number)
        case w.ExecutionMemoAsked():
            pass  # it is of the state's memos
        case w.ExecutionMemoRecalled():
            number = plan.row_of[event.task]
            row = book.row(number)
            row.phases[event.instance], row.jobs[event.instance] = Phase.SUCCEEDED, event.by_job
            if event.output is not None:
                _keep_output(execution, row, event.instance, event.output)
            execution.look(number)
        case w.ExecutionInstancesJudged():
            row = book.row(plan.row_of[event.task])
            for instance in event.instances:
                row.phases[instance] = Phase.SUCCEEDED if event.succeeded else Phase.FAILED
            row.reason = row.reason or event.reason
        case w.ExecutionTaskEnded():
            _take_task_ended(book, event, now_ms)
        case w.ExecutionInstancesStopped():
            execution.stops.remove(plan.row_of[event.task])
        case w.ExecutionStaged():
            _take_staged(book, event, now_ms)
        case w.ExecutionDelayed():
            execution.wake_ms, execution.reason = event.until_ms, event.reason
        case w.ExecutionStopRequested():
            execution.stop = Stop(event.state, event.actor, event.reason, now_ms, event.whole)
            if event.whole or execution.stage is Stage.MAIN:
                rows = enumerate(execution.rows)
                execution.looks = [number for number, row in rows if _is_of_stage(execution, number, row)]
                execution.stops += [
                    number
                    for number in execution.looks
                    if execution.rows[number].count(Phase.MADE) and number not in execution.stops
                ]
            execution.wake_ms, execution.reason = 0, ""
        case w.ExecutionRetried():
            _take_retried(book, event, now_ms)
        case w.ExecutionAdvanced():
            execution.looks, execution.blocked = list(event.looks), list(event.blocked)
        case w.ExecutionEnded():
            execution.stage, execution.state, execution.ended_ms = Stage.ENDED, event.state, now_ms
            execution.output, execution.reason = event.output, event.reason
            execution.looks, execution.blocked, execution.stops, execution.wake_ms = [], [], [], 0
            for number in (*plan.undos, *plan.finals):
                if execution.rows[number].state is RowState.WAITING:
                    book.row(number).state = RowState.SKIPPED
        case _:
            raise AssertionError(f"{type(event).__name__} is not about one execution as it goes on")


def _is_of_stage(execution: Execution, number: int, row: Row) -> bool:
    return not row.state.final and execution.plan.spec.tasks[number].role.value == execution.stage.value


def _take_task_ended(book: Book, event: w.ExecutionTaskEnded, now_ms: int) -> None:
    execution = book.execution
    plan = execution.plan
    number = plan.row_of[event.task]
    row = book.row(number)
    execution.kept_bytes -= asked_bytes(plan.spec.tasks[number], row)
    row.state, row.reason, row.ended_ms = event.state, event.reason, now_ms
    execution.ends += 1
    row.order = execution.ends
    execution.left -= 1
    if number in execution.blocked:
        execution.blocked.remove(number)
    if row.count(Phase.MADE) and number not in execution.stops:
        execution.stops.append(number)
    if event.state is RowState.FAILED and not execution.failing:
        execution.failing = True
        execution.look_at(execution.blocked)
        execution.blocked = []
    execution.look_at(plan.after_of[number])
    if plan.spec.tasks[number].role is Role.UNDO:
        execution.looks += next_undo(execution)


def next_undo(execution: Execution) -> list[int]:
    """The row that takes back what ended last of what is not taken back yet; none if there is none."""
    plan = execution.plan
    waiting = [row for row in plan.undos if not execution.rows[row].state.final]
    return sorted(waiting, key=lambda row: -execution.rows[plan.spec.tasks[row].of].order)[:1]


def _take_staged(book: Book, event: w.ExecutionStaged, now_ms: int) -> None:
    execution = book.execution
    plan = execution.plan
    for name in event.skipped:
        row = book.row(plan.row_of[name])
        row.state, row.ended_ms = RowState.SKIPPED, now_ms
    execution.stage = event.stage
    of_stage = [number for number, row in enumerate(execution.rows) if _is_of_stage(execution, number, row)]
    execution.left = len(of_stage)
    execution.looks = next_undo(execution) if event.stage is Stage.UNDO else of_stage


def _take_retried(book: Book, event: w.ExecutionRetried, now_ms: int) -> None:
    execution = book.execution
    plan = execution.plan
    anew = [plan.row_of[name] for name in event.anew]
    again = [plan.row_of[name] for name in event.again]
    for number in (*anew, *plan.undos, *plan.finals):
        execution.rows[number] = Row()
    for number in again:
        _reopen(book.row(number))
    execution.stage, execution.state, execution.stop, execution.failing = (
        Stage.MAIN,
        ExecutionState.RUNNING,
        None,
        False,
    )
    execution.round += 1
    execution.instances = sum(
        len(row.phases) for task, row in zip(plan.spec.tasks, execution.rows, strict=True) if not task.validates
    )
    execution.left = sum(not execution.rows[row].state.final for row in plan.mains)
    execution.looks = sorted(anew + again)
    execution.deadline_ms = now_ms + execution.timeout_ms if execution.timeout_ms else 0
    execution.output, execution.reason, execution.ended_ms = "", "", 0
    execution.kept_bytes = sum(len(each) for row in execution.rows for each in (row.outputs or {}).values())
    execution.kept_bytes += sum(map(asked_bytes, plan.spec.tasks, execution.rows))


def _reopen(row: Row) -> None:
    """Have the instances made again that didn't succeed."""
    for instance, phase in enumerate(row.phases):
        if phase != Phase.SUCCEEDED:
            row.phases[instance], row.jobs[instance] = Phase.UNMADE, 0
            (row.outputs or {}).pop(instance, None)
            (row.codes or {}).pop(instance, None)
    row.state, row.reason, row.ended_ms, row.dropped = RowState.RUNNING, "", 0, False


def see(book_of: dict[int, Book], state: State, event: Event) -> None:
    """Perform on the drafts what another event of the same step makes of executions. Drafts are added as they are needed."""
    match event:
        case JobSubmitted() if (place := read_parent(event.parent)) is not None:
            book = draft_of(book_of, state, place[0])
            if book is not None:
                take_made(book, book.execution.plan.row_of[place[1]], place[2], event.job_id)
        case JobEnded():
            job = state.jobs[event.job_id]
            place = read_parent(job.parent)
            book = draft_of(book_of, state, place[0]) if place is not None else None
            if book is not None and place is not None:
                row = book.execution.plan.row_of[place[1]]
                take_over(book, row, place[2], over_of_job(job, event.state, state.entry_version))
        case w.ExecutionStarted():
            book_of[event.execution_id] = Book(begin(event, state.now_ms, state.index), draft=True)
            place = read_parent(event.parent)
            book = draft_of(book_of, state, place[0]) if place is not None else None
            if book is not None and place is not None:
                take_made(book, book.execution.plan.row_of[place[1]], place[2], event.execution_id)
        case _ if (execution_id := getattr(event, "execution_id", 0)) and not isinstance(
            event, w.ExecutionDeleted | w.ExecutionExpired
        ):
            book = draft_of(book_of, state, execution_id)
            assert book is not None, "nothing happens to an execution that has ended"
            take(book, event, state.now_ms)  # type: ignore[arg-type]
            if isinstance(event, w.ExecutionEnded):
                inner = book.execution
                place = read_parent(inner.parent)
                outer = draft_of(book_of, state, place[0]) if place is not None else None
                if outer is not None and place is not None:
                    row = outer.execution.plan.row_of[place[1]]
                    take_over(outer, row, place[2], over_of_execution(inner))


def draft_of(book_of: dict[int, Book], state: State, execution_id: int) -> Book | None:
    """The draft of an execution that goes on."""
    book = book_of.get(execution_id)
    if book is None:
        execution = state.executions.get(execution_id)
        if execution is None or execution.ended:
            return None
        book = book_of[execution_id] = Book(execution, draft=True)
    return book
