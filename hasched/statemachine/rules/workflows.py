"""The engine of workflows: at each step of the clock, what executions do next, a bounded piece of it.

A row's turn comes when all rows before it have ended. Then its instances are made: jobs, submitted like everybody's, inner
executions, or a question to people. What has happened to a row puts it among the `looks` of its execution, and an execution
with any is due at once; so nothing is polled, and an execution goes on with the next leader exactly where it was.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from hasched.model.expressions import evaluate as evaluate_expression
from hasched.model.expressions import holds
from hasched.model.interpolation import fill
from hasched.model.values import ExpressionError, to_text
from hasched.model.workflow import MAX_INSTANCES, MAX_KEPT_BYTES, OnFailure, Role, TaskSpec, When, WorkflowSpec, jobs_of
from hasched.statemachine import workflow_events as w
from hasched.statemachine.commands import CancelJob
from hasched.statemachine.events import Event
from hasched.statemachine.execution import (
    Execution,
    ExecutionState,
    Phase,
    RowState,
    Stage,
    parent_of,
    read_parent,
)
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules import jobs
from hasched.statemachine.rules.submissions import Submissions
from hasched.statemachine.rules.workflow_checks import Checks
from hasched.statemachine.rules.workflow_progress import Book, draft_of, see
from hasched.statemachine.rules.workflow_scope import (
    Scope,
    Slot,
    arguments_of,
    fill_job,
    list_items,
    meets,
    memo_key,
)
from hasched.statemachine.schedules import SLOTS_TOLD_SINCE, parse_parent
from hasched.statemachine.state import State

MAX_EVENTS_PER_STEP = 128
MAX_JUDGED_AT_ONCE = 128
DELAY_MS = 10_000
MAX_OUTPUT_CHARS = 16 * 1024
ACTOR = "workflow"
MAX_QUESTION_CHARS = 4096
QUESTIONS_FILLED_SINCE = 4  # the version of entries; before, they were asked as they are written
NOT_NOW = ("quota_exceeded", "queue_closed")  # refusals that pass

SKIPPED_BY_CONDITION = "its condition does not hold"
STOPPED = "another task has failed"
REFUSED = "the cluster could not run all of the workflow"

_LOCAL_FAILURES = (MemoryError, RecursionError)  # of this process: other managers don't share them
_encode = msgspec.msgpack.Encoder().encode


class Step:
    """What executions do in one step of the clock. `events` are those that it adds, to be performed in their order."""

    def __init__(self, state: State, before: Iterable[Event], submissions: Submissions) -> None:
        self._state = state
        self._submissions = submissions
        self._books: dict[int, Book] = {}
        self._advanced: dict[int, None] = {}
        self._checks = Checks(state)
        self.events: list[Event] = []
        for event in before:
            self._see(event)

    def run(self) -> list[Event]:
        for execution_id in self._due_timers():
            self._tick(execution_id)
        while len(self.events) < MAX_EVENTS_PER_STEP:
            ready = self._ready()
            if not ready:
                break
            share = max(1, (MAX_EVENTS_PER_STEP - len(self.events)) // len(ready))
            for execution_id in ready:
                if len(self.events) >= MAX_EVENTS_PER_STEP:
                    break
                self._advance_safely(execution_id, len(self.events) + share)
        for execution_id in self._advanced:
            execution = self._books[execution_id].execution
            if not execution.ended:
                looks, blocked = tuple(execution.looks), tuple(execution.blocked)
                self.events.append(w.ExecutionAdvanced(execution_id, looks, blocked))
        return self.events

    def _see(self, event: Event) -> None:
        see(self._books, self._state, event)

    def _happen(self, event: Event) -> None:
        self._see(event)
        self.events.append(event)

    def _ready(self) -> list[int]:
        ids = dict.fromkeys([*self._state.ready_executions, *self._books])
        return sorted(each for each in ids if (book := self._book(each)) is not None and self._goes_on(book.execution))

    def _goes_on(self, execution: Execution) -> bool:
        """Whether there is something to advance in this step; what is long to look at goes on in the next."""
        return execution.due and not (self._checks.spent and execution.validating)

    def _book(self, execution_id: int) -> Book | None:
        return draft_of(self._books, self._state, execution_id)

    # ── Timers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _due_timers(self) -> list[int]:
        due = (each for each, due_ms in self._state.execution_timers.items() if due_ms <= self._state.now_ms)
        return sorted(due)[:MAX_EVENTS_PER_STEP]

    def _tick(self, execution_id: int) -> None:
        book = self._book(execution_id)
        if book is None or book.execution.ended:
            return
        execution, now_ms = book.execution, self._state.now_ms
        if execution.deadline_ms and execution.deadline_ms <= now_ms and execution.stop is None:
            if execution.stage is Stage.MAIN:
                reason = "its timeout is over"
                self._happen(w.ExecutionStopRequested(execution_id, ExecutionState.TIMED_OUT, ACTOR, reason, False))
        elif execution.wake_ms and execution.wake_ms <= now_ms:
            self._happen(w.ExecutionDelayed(execution_id, 0, ""))

    # ── One execution ───────────────────────────────────────────────────────────────────────────────────────────────

    def _advance_safely(self, execution_id: int, most: int) -> None:
        """A bug that one execution meets ends that one, and holds up neither the others nor the clock."""
        try:
            self._advance(execution_id, most)
        except _LOCAL_FAILURES:
            raise
        except Exception as error:
            reason = f"this is a bug in hasched; please report it: {type(error).__name__}: {error}"
            self._happen(w.ExecutionEnded(execution_id, ExecutionState.FAILED, "", reason[:1000]))

    def _advance(self, execution_id: int, most: int) -> None:
        """Go on with it until nothing is left to do, or there are so many events."""
        execution = self._books[execution_id].execution
        self._advanced[execution_id] = None
        slot = self._slot_of(execution)
        scope = Scope(execution, slot)
        while self._goes_on(execution) and len(self.events) < most:
            if execution.stops:
                self._stop(execution, execution.stops[0], most)
            elif execution.looks:
                self._look(execution, scope, execution.looks.pop(0), most)
            elif not (execution.left or execution.running):
                self._next_stage(execution, scope)
                scope = Scope(execution, slot)
            else:
                self._look(execution, scope, execution.blocked.pop(0), most)

    def _slot_of(self, execution: Execution) -> Slot | None:
        """The slot that it was made for, or the outermost of the executions that it is part of. None in old entries: what tasks
        are given of an execution had no slot."""
        if self._state.entry_version < SLOTS_TOLD_SINCE:
            return None
        outer: Execution | None = execution
        while outer is not None and (place := read_parent(outer.parent)) is not None:
            book = self._books.get(place[0])
            outer = self._state.executions.get(place[0]) if book is None else book.execution
        made_for = parse_parent(outer.parent) if outer is not None else None
        return Slot("", execution.started_ms) if made_for is None else Slot(*made_for)

    def _look(self, execution: Execution, scope: Scope, row: int, most: int) -> None:
        task = execution.plan.spec.tasks[row]
        if task.role.value != execution.stage.value or execution.rows[row].state.final:
            return
        if task.validates:
            self._validate(execution, row, task)
            return
        if execution.rows[row].state is RowState.WAITING:
            self._begin(execution, scope, row, task)
        if execution.rows[row].state is RowState.RUNNING:
            self._go_on(execution, scope, row, task, most)

    def _validate(self, execution: Execution, row: int, task: TaskSpec) -> None:
        """Whether the cluster could ever run each job of it, as far as this step has time for that."""
        if self._is_stopped(execution):
            self._end(execution, task, RowState.CANCELLED, execution.fault)
            return
        jobs = list(jobs_of(execution.plan.spec))
        if execution.rows[row].state is RowState.WAITING:
            self._happen(w.ExecutionTaskStarted(execution.id, task.name, len(jobs), b""))
        first = execution.rows[row].count(Phase.SUCCEEDED)
        fitting = first
        for name, job in jobs[first:]:
            if self._checks.spent:
                break
            if lack := self._checks.find_lack(job, execution.actor):
                self._end(execution, task, RowState.FAILED, f"{name}: {lack}")
                return
            fitting += 1
        if fitting > first:
            self._happen(w.ExecutionInstancesJudged(execution.id, task.name, tuple(range(first, fitting)), True, ""))
        if fitting == len(jobs):
            self._end(execution, task, RowState.SUCCEEDED)
        else:
            execution.looks.insert(0, row)

    def _end(self, execution: Execution, task: TaskSpec, state: RowState, reason: str = "") -> None:
        self._happen(w.ExecutionTaskEnded(execution.id, task.name, state, reason[:1000]))

    def _is_stopped(self, execution: Execution) -> bool:
        """Whether nothing more of this stage is begun, by somebody's will or the timeout."""
        stop = execution.stop
        return stop is not None and (execution.stage is Stage.MAIN or stop.whole)

    def _is_halted(self, execution: Execution, task: TaskSpec) -> bool:
        """Whether nothing more of the row is begun because another has failed."""
        return (
            execution.failing
            and task.role is Role.MAIN
            and execution.plan.spec.on_failure is OnFailure.STOP
            and all(each.when is When.OK for each in task.after)
        )

    def _begin(self, execution: Execution, scope: Scope, row: int, task: TaskSpec) -> None:
        if self._is_stopped(execution):
            self._end(execution, task, RowState.CANCELLED, execution.fault)
            return
        if not all(execution.rows[each.row].state.final for each in task.after):
            return
        if execution.refused:
            self._end(execution, task, RowState.SKIPPED, REFUSED)
            return
        for each in task.after:
            before = execution.rows[each.row].state
            if not _is_met(each.when, before):
                name = execution.plan.spec.tasks[each.row].name
                self._end(execution, task, RowState.SKIPPED, f"{name} {before.name.lower()}")
                return
        if self._is_halted(execution, task):
            self._end(execution, task, RowState.SKIPPED, STOPPED)
            return
        try:
            if task.condition and not holds(task.condition, scope.names(row)):
                self._end(execution, task, RowState.SKIPPED, SKIPPED_BY_CONDITION)
                return
            items = list_items(task, scope, row) if task.fans_out else None
            question = self._question_of(execution, task, scope, row)
        except ExpressionError as error:
            self._end(execution, task, RowState.FAILED, str(error))
            return
        count = 1 if items is None else len(items)
        if count + execution.instances > MAX_INSTANCES:
            reason = f"with its {count} instances the execution would have more than {MAX_INSTANCES}"
            self._end(execution, task, RowState.FAILED, reason)
            return
        if task.enough > count:
            self._end(execution, task, RowState.FAILED, f"{task.enough} have to succeed, and there are {count}")
            return
        packed = b"" if items is None else _encode(items)
        self._happen(w.ExecutionTaskStarted(execution.id, task.name, count, packed))
        if task.approval:
            self._happen(w.ExecutionApprovalAsked(execution.id, task.name, question))
        elif task.tells:  # so the row ends at once, and with its end who is named is told
            self._happen(w.ExecutionInstancesJudged(execution.id, task.name, (0,), True, ""))

    def _question_of(self, execution: Execution, task: TaskSpec, scope: Scope, row: int) -> str:
        """What people are asked, if anything; empty: what is written there, where so much is kept that it has no room.

        Raises ExpressionError.
        """
        if self._state.entry_version < QUESTIONS_FILLED_SINCE:
            return ""
        question = fill(task.approval, scope.names(row), MAX_QUESTION_CHARS)
        return question if execution.kept_bytes + len(question.encode()) <= MAX_KEPT_BYTES else ""

    def _go_on(self, execution: Execution, scope: Scope, row: int, task: TaskSpec, most: int) -> None:
        self._judge(execution, scope, row, task)
        state = execution.rows[row]
        count, ok, made = len(state.phases), state.count(Phase.SUCCEEDED), state.count(Phase.MADE)
        bad = state.count(Phase.FAILED) + state.count(Phase.CANCELLED)
        unmade = state.count(Phase.UNMADE)
        if task.approval:
            if ok or bad:
                self._end(execution, task, RowState.SUCCEEDED if ok else RowState.FAILED, state.reason)
            elif self._is_stopped(execution):
                self._end(execution, task, RowState.CANCELLED, execution.fault)
            return
        if state.count(Phase.OVER):
            return  # it will be looked at again
        if task.enough and ok >= task.enough:
            self._end(execution, task, RowState.SUCCEEDED)
        elif task.enough and count - bad < task.enough:
            self._end(execution, task, RowState.FAILED, f"{bad} of {count} failed: {state.reason}")
        elif not made and not unmade:
            reason = state.reason if count == 1 else f"{bad} of {count} failed: {state.reason}"
            self._end(execution, task, RowState.FAILED if bad else RowState.SUCCEEDED, reason if bad else "")
        elif self._is_stopped(execution):
            if not made:
                self._end(execution, task, RowState.CANCELLED, execution.fault)
        elif self._is_halted(execution, task):
            if not made:
                self._end(execution, task, RowState.SKIPPED if unmade == count else RowState.CANCELLED, STOPPED)
        elif bad and not task.enough and execution.plan.spec.on_failure is OnFailure.STOP:
            if not made:
                self._end(execution, task, RowState.FAILED, f"{bad} of {count} failed: {state.reason}")
        elif unmade:
            self._make(execution, scope, row, task, most)

    def _judge(self, execution: Execution, scope: Scope, row: int, task: TaskSpec) -> None:
        """Judge the instances whose jobs have succeeded, by what else has to be true."""
        state = execution.rows[row]
        instance, judged = -1, 0
        good: list[int] = []
        bad: list[int] = []
        reason = ""
        while (instance := state.phases.find(Phase.OVER, instance + 1)) >= 0:
            judged += 1
            if judged > MAX_JUDGED_AT_ONCE:
                execution.looks.insert(0, row)
                break
            lack = meets(task, scope, row, instance, (state.outputs or {}).get(instance))
            (bad if lack else good).append(instance)
            reason = reason or lack
        if good:
            self._happen(w.ExecutionInstancesJudged(execution.id, task.name, tuple(good), True, ""))
        if bad:
            self._happen(w.ExecutionInstancesJudged(execution.id, task.name, tuple(bad), False, reason))

    def _make(self, execution: Execution, scope: Scope, row: int, task: TaskSpec, most: int) -> None:
        while (instance := execution.rows[row].phases.find(Phase.UNMADE)) >= 0:
            if task.parallelism and execution.rows[row].count(Phase.MADE) >= task.parallelism:
                return  # it is looked at again when one has ended
            if not execution.has_room or execution.wake_ms:
                if row not in execution.blocked:
                    execution.blocked.append(row)
                return
            if len(self.events) >= most:
                execution.looks.insert(0, row)
                return
            refused = self._make_one(execution, scope, row, task, instance)
            if refused is None:
                continue
            if refused.code in NOT_NOW:
                self._happen(w.ExecutionDelayed(execution.id, self._state.now_ms + DELAY_MS, refused.cause[:1000]))
                continue
            self._happen(w.ExecutionInstancesJudged(execution.id, task.name, (instance,), False, refused.cause[:1000]))
            execution.look(row)
            return

    def _make_one(self, execution: Execution, scope: Scope, row: int, task: TaskSpec, instance: int) -> Rejected | None:
        parent = parent_of(execution.id, task.name, instance, task.fans_out)
        try:
            if task.workflow is not None:
                arguments = arguments_of(task, scope, row, instance if task.fans_out else -1)
                return self._execute(execution, task.workflow, arguments or {}, parent)
            spec = fill_job(task, scope, execution, row, instance)
        except ExpressionError as error:
            return Rejected("invalid_value", str(error))
        try:
            key = memo_key(task, scope, row, instance, spec)
        except ExpressionError as error:
            return Rejected("invalid_value", f"memo: {error}")
        if key and self._recall(execution, task, instance, key):
            return None
        made = f"execution {execution.id} {row} {instance} {execution.round}"
        submitted = self._submissions.submit(spec, made, execution.actor, parent)
        if isinstance(submitted, Rejected):
            return submitted
        if key:
            self._happen(w.ExecutionMemoAsked(execution.id, task.name, instance, key))
        self._happen(submitted)
        return None

    def _recall(self, execution: Execution, task: TaskSpec, instance: int, key: str) -> bool:
        """Whether what the instance would leave was left before, and is taken from there."""
        terms = task.memo
        memo = self._state.memos.kept.get((execution.plan.spec.namespace, execution.workflow, task.name, key))
        if terms is None or memo is None:
            return False
        if terms.max_age_ms and memo.made_ms + terms.max_age_ms <= self._state.now_ms:
            return False
        self._happen(
            w.ExecutionMemoRecalled(
                execution.id, task.name, instance, key, memo.execution_id, memo.job_id, memo.made_ms, memo.output
            )
        )
        return True

    def _execute(
        self, outer: Execution, spec: WorkflowSpec, arguments: dict[str, object], parent: str
    ) -> Rejected | None:
        """Start an inner execution."""
        params = tuple(arguments.items())
        made = f"{parent} {outer.round}"
        started = self._submissions.start(spec, params, submission_id=made, actor=outer.actor, parent=parent)
        if isinstance(started, Rejected):
            return started
        self._happen(started)
        return None

    def _stop(self, execution: Execution, row: int, most: int) -> None:
        """Tell what runs of a row to stop."""
        task, state = execution.plan.spec.tasks[row], execution.rows[row]
        instance = -1
        while (instance := state.phases.find(Phase.MADE, instance + 1)) >= 0 and not task.approval:
            if len(self.events) >= most:
                return
            made_id = state.jobs[instance]
            reason = f"execution {execution.id}: {execution.fault if execution.stop else 'no longer needed'}"
            if task.workflow is not None:
                inner = self._book(made_id)
                whole = execution.stop is not None and execution.stop.whole
                if inner is not None and not inner.execution.ended and _adds_to(whole, inner.execution):
                    asked = w.ExecutionStopRequested(made_id, ExecutionState.CANCELLED, ACTOR, reason[:1000], whole)
                    self._happen(asked)
                continue
            decision = jobs.decide_cancel(self._state, CancelJob(job_id=made_id, actor=ACTOR, reason=reason))
            if not isinstance(decision, Rejected):
                for event in decision.events:
                    self._happen(event)
            state = execution.rows[row]
        self._happen(w.ExecutionInstancesStopped(execution.id, task.name))

    # ── Stages ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _next_stage(self, execution: Execution, scope: Scope) -> None:
        """All rows of a stage have ended."""
        plan, rows = execution.plan, execution.rows
        whole = execution.stop is not None and execution.stop.whole
        undone = [row for row in plan.undos if rows[plan.spec.tasks[row].of].state is RowState.SUCCEEDED]
        if execution.stage is Stage.MAIN:
            wanted = undone if execution.result is not ExecutionState.SUCCEEDED and not whole else []
            skipped = tuple(plan.spec.tasks[row].name for row in plan.undos if row not in wanted)
            if wanted:
                self._happen(w.ExecutionStaged(execution.id, Stage.UNDO, skipped))
                return
            if plan.finals and not whole:
                self._happen(w.ExecutionStaged(execution.id, Stage.FINAL, skipped))
                return
        elif execution.stage is Stage.UNDO and plan.finals and not whole:
            self._happen(w.ExecutionStaged(execution.id, Stage.FINAL, ()))
            return
        self._finish(execution, scope)

    def _finish(self, execution: Execution, scope: Scope) -> None:
        result, output, reason = execution.result, "", ""
        written = execution.plan.spec.output
        if result is ExecutionState.SUCCEEDED and written:
            try:
                output = to_text(evaluate_expression(written, scope.names(-1)))
                if len(output) > MAX_OUTPUT_CHARS:
                    raise ExpressionError(f"it is longer than {MAX_OUTPUT_CHARS} characters")
            except ExpressionError as error:
                result, output, reason = ExecutionState.FAILED, "", f"output: {error}"
        else:
            reason = execution.fault
        self._happen(w.ExecutionEnded(execution.id, result, output, reason[:1000]))


def _is_met(when: When, before: RowState) -> bool:
    match when:
        case When.OK:
            return before is RowState.SUCCEEDED
        case When.FAILED:
            return before in (RowState.FAILED, RowState.CANCELLED)
        case When.ANY:
            return True


def _adds_to(whole: bool, execution: Execution) -> bool:
    """Whether a request to stop says more than has been said."""
    return execution.stop is None or (whole and not execution.stop.whole)
