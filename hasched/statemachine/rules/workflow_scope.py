"""What the names of an expression stand for, in one execution; and a job whose texts are filled with that."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from hasched.model.expressions import Names, holds, value_of
from hasched.model.expressions import evaluate as evaluate_expression
from hasched.model.globs import matches_glob
from hasched.model.interpolation import OPENING, Embedded, fill, pieces_of
from hasched.model.kinds import MAX_WORD_BYTES, fault_of_text
from hasched.model.spec import MAX_INPUT_BYTES, MAX_SPEC_BYTES, JobSpec
from hasched.model.times import format_time
from hasched.model.values import ExpressionError, Value, read_json
from hasched.model.workflow import MAX_PARAMETER_BYTES, TaskSpec
from hasched.statemachine.execution import Execution, Row
from hasched.statemachine.memos import MAX_KEY_BYTES
from hasched.statemachine.schedules import SCHEDULE_VARIABLE, SLOT_VARIABLE

ITEM_VARIABLE, INDEX_VARIABLE, EXECUTION_VARIABLE = "HASCHED_ITEM", "HASCHED_ITEM_INDEX", "HASCHED_EXECUTION"

_pack = msgspec.msgpack.Encoder(order="deterministic").encode
_unpack = msgspec.msgpack.Decoder().decode


class Slot(NamedTuple):
    """What a schedule has made an execution for, or the execution that it is part of."""

    schedule: str  # empty: no schedule has, and its start stands for the time
    slot_ms: int


class Scope:
    """One execution as it is; to be made anew when rows have changed."""

    def __init__(self, execution: Execution, slot: Slot | None) -> None:
        """`slot`: None where nothing of it is told."""
        self._execution = execution
        self.slot = slot
        self._plan = execution.plan
        self._params: Value = dict(execution.params)
        self._tasks: dict[str, Value] = {}
        self._items: dict[int, list[Any]] = {}

    def names(self, row: int, instance: int = -1, params: Value = None) -> Names:
        """`params`: what they are where not those of the execution."""

        def find(name: str) -> Value:
            match name:
                case "params":
                    return self._params if params is None else params
                case "item" if instance >= 0:
                    return self.items_of(row)[instance]  # type: ignore[no-any-return]
                case "index" if instance >= 0:
                    return instance
                case "execution":
                    return self._own()
                case _:
                    return self._task(name, row, instance)

        return find

    def items_of(self, row: int) -> list[Any]:
        """The items of a fan-out that has begun."""
        items = self._items.get(row)
        if items is None:
            items = self._items[row] = _unpack(self._execution.rows[row].items)
        return items

    def _own(self) -> Value:
        execution = self._execution
        state = execution.result if execution.stage else execution.state
        own: dict[str, Value] = {"id": execution.id, "workflow": execution.workflow, "state": state.name.lower()}
        if self.slot is not None:
            own |= {"slot": format_time(self.slot.slot_ms), "schedule": self.slot.schedule or None}
        return own

    def _task(self, name: str, asking: int, instance: int) -> Value:
        row = self._plan.row_of.get(name)
        if row is None:
            raise ExpressionError(f"there is no task {name}")
        if row == asking:
            return _show_instance(self._execution.rows[row], max(0, instance))
        found = self._tasks.get(name)
        if found is None:
            found = _show_row(self._execution.rows[row], self._plan.spec.tasks[row])
            if self._execution.rows[row].state.final:
                self._tasks[name] = found
        return found


def _show_row(row: Row, task: TaskSpec) -> Value:
    outputs = row.outputs or {}
    listed: list[Any] = [_text_of(outputs.get(each)) for each in range(len(row.phases))] if task.fans_out else []
    return {
        "state": row.state.name.lower(),
        "exit_code": max((row.codes or {}).values(), default=0) if row.state.final else None,
        "job": row.jobs[0] if row.jobs else None,
        "output": _text_of(outputs.get(0)),
        "outputs": listed if task.fans_out or not row.phases else [_text_of(outputs.get(0))],
    }


def _show_instance(row: Row, instance: int) -> Value:
    output = _text_of((row.outputs or {}).get(instance))
    code = (row.codes or {}).get(instance, 0)
    return {
        "state": "succeeded",
        "exit_code": code,
        "job": next(iter(row.jobs[instance:]), None),
        "output": output,
        "outputs": [output],
    }


def _text_of(output: bytes | None) -> str | None:
    return None if output is None else output.decode(errors="replace")


def meets(task: TaskSpec, scope: Scope, row: int, instance: int, output: bytes | None) -> str:
    """Why an instance whose job has succeeded hasn't, empty if it has."""
    try:
        if task.success_output and not matches_glob(
            (output or b"").decode(errors="replace").strip(), task.success_output
        ):
            return f"its output does not match {task.success_output}"
        if task.success and not holds(task.success, scope.names(row, instance)):
            return f"{task.success} does not hold"
    except ExpressionError as error:
        return f"{task.success}: {error}"
    return ""


def list_items(task: TaskSpec, scope: Scope, row: int) -> list[Any]:
    """The items of a fan-out. Raises ExpressionError."""
    if not task.for_each:
        return list(task.items)
    value = evaluate_expression(task.for_each, scope.names(row))
    if isinstance(value, str):
        value = read_json(value)
    if not isinstance(value, list):
        raise ExpressionError(f"{task.for_each} is no list")
    return value


def arguments_of(task: TaskSpec, scope: Scope, row: int, instance: int) -> dict[str, Any] | None:
    """What `params` means within the job or workflow of an instance; None: what it means outside. Raises ExpressionError."""
    if task.arguments is None:
        return None
    names = scope.names(row, instance)
    filled: dict[str, Any] = {}
    size = 0
    for key, value in task.arguments:
        filled[key] = _fill_argument(value, names) if isinstance(value, str) and OPENING in value else value
        size += len(filled[key]) if isinstance(filled[key], str) else 1
    if size > MAX_PARAMETER_BYTES:
        raise ExpressionError(f"its parameters are larger than {MAX_PARAMETER_BYTES} bytes")
    return filled


def _fill_argument(written: str, names: Names) -> Value:
    """Where an expression is all of it, its value must be a text, too: nothing else was asked for."""
    pieces = list(pieces_of(written))
    if len(pieces) == 1 and isinstance(pieces[0], Embedded):
        value = value_of(pieces[0].expression, names)
        if isinstance(value, str):
            return value
    return fill(written, names, MAX_PARAMETER_BYTES)


def fill_job(task: TaskSpec, scope: Scope, execution: Execution, row: int, instance: int) -> JobSpec:
    """The job of an instance. Raises ExpressionError, also if it can't be started as it would be."""
    job = task.job
    assert job is not None, "only a row with a job has one to fill"
    names = scope.names(row, instance if task.fans_out else -1, arguments_of(task, scope, row, instance))
    env = {key: _word(fill(value, names, MAX_WORD_BYTES), key) for key, value in job.env.items()}
    env[EXECUTION_VARIABLE] = str(execution.id)
    if scope.slot is not None and scope.slot.schedule:
        env[SCHEDULE_VARIABLE], env[SLOT_VARIABLE] = scope.slot.schedule, format_time(scope.slot.slot_ms)
    if task.fans_out:
        item = scope.items_of(row)[instance]
        env[ITEM_VARIABLE] = _word(item if isinstance(item, str) else msgspec.json.encode(item).decode(), ITEM_VARIABLE)
        env[INDEX_VARIABLE] = str(instance)
    filled: dict[str, Any] = {"env": env}
    if job.command:
        filled["command"] = tuple(_word(fill(word, names, MAX_WORD_BYTES), "command") for word in job.command)
        if not filled["command"][0]:
            raise ExpressionError("the program has no name")
    if OPENING in job.script:
        filled["script"] = _word(fill(job.script, names, MAX_SPEC_BYTES), "script", MAX_SPEC_BYTES)
    if job.args:
        filled["args"] = tuple(_word(fill(word, names, MAX_WORD_BYTES), "args") for word in job.args)
    if OPENING in job.working_dir:
        filled["working_dir"] = _word(fill(job.working_dir, names, 4095), "working_dir", 4095)
    if OPENING.encode() in job.input:
        try:
            written = job.input.decode()
        except UnicodeDecodeError:
            written = ""  # bytes, not a text
        if written:
            filled["input"] = fill(written, names, MAX_INPUT_BYTES).encode()
    size = sum(map(len, (*filled.get("command", ()), *filled.get("args", ())))) + sum(
        len(key) + len(value) for key, value in env.items()
    )
    if size + len(filled.get("script", "")) > MAX_SPEC_BYTES:
        raise ExpressionError(f"with its values the job is larger than {MAX_SPEC_BYTES} bytes")
    return msgspec.structs.replace(job, **filled)


def memo_key(task: TaskSpec, scope: Scope, row: int, instance: int, job: JobSpec) -> str:
    """What an instance has left is remembered under this; empty if it isn't. Raises ExpressionError."""
    if task.memo is None:
        return ""
    if not task.memo.key:
        env = {key: value for key, value in job.env.items() if key != EXECUTION_VARIABLE}
        packed = _pack(msgspec.structs.replace(job, env=env))
        return f"inputs {blake2b(packed, digest_size=16).hexdigest()}"
    key = fill(task.memo.key, scope.names(row, instance if task.fans_out else -1), MAX_KEY_BYTES)
    if not key:
        raise ExpressionError("its key is empty")
    return _word(key, "key", MAX_KEY_BYTES)


def _word(text: str, place: str, most: int = MAX_WORD_BYTES) -> str:
    if fault := fault_of_text(text, most):
        raise ExpressionError(f"{place} {fault}")
    return text
