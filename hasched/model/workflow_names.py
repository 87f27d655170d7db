"""What the expressions of a workflow name: parameters, tasks that come before, items, the execution itself."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from hasched.model.expressions import ROOTS, names_in, parse
from hasched.model.interpolation import OPENING, Embedded, pieces_of
from hasched.model.kinds import Problems, suggest
from hasched.model.parameters import Parameter
from hasched.model.spec import JobSpec
from hasched.model.values import ExpressionError
from hasched.model.workflow import Role
from hasched.model.workflow_rows import MAX_SUGGESTED, Drafts

EXECUTION_FIELDS = ("id", "state", "workflow", "slot", "schedule")
TASK_FIELDS = ("output", "outputs", "state", "exit_code", "job")


class Names:
    """Checks that every name means something where it stands, and keeps whose output is asked for."""

    def __init__(self, problems: Problems, drafts: Drafts, declared: Mapping[str, Parameter]) -> None:
        self._problems = problems
        self._drafts = drafts
        self._declared = declared
        self.asked: dict[int, None] = {}  # rows whose output something asks for

    def check_job(self, job: JobSpec, places: Mapping[str, str], place: str, row: int) -> None:
        """Everything that a job's texts ask for is there by then."""
        texts = [
            *((f"{places.get('command', place)}[{number}]", word) for number, word in enumerate(job.command)),
            (places.get("script", place), job.script),
            *((f"{places.get('args', place)}[{number}]", word) for number, word in enumerate(job.args)),
            *((f"{places.get('env', place)}.{key}", value) for key, value in job.env.items()),
            (places.get("input", place), job.input.decode(errors="replace")),
            (places.get("working_dir", place), job.working_dir),
        ]
        for where, written in texts:
            self.check_text(written, where, row)

    def check_text(self, written: str, where: str, row: int | None) -> None:
        if OPENING not in written:
            return
        try:
            pieces = list(pieces_of(written))
        except ExpressionError as error:
            self._problems.note(where, str(error), error.hint)
            return
        for piece in pieces:
            if isinstance(piece, Embedded):
                self.check_names(piece.source, where, row)

    def check_names(
        self, source: str, where: str, row: int | None, *, instance: bool = True, itself: bool = False
    ) -> None:
        """Every name of an expression means something when the row's turn has come; without a row, at the end."""
        for found, key in names_in(parse(source)):
            if fault := self._fault_of_name(found.name, key, row, instance=instance, itself=itself):
                hint = (
                    f"add it to `after`: {self._drafts.rows[row].place}.after"
                    if fault.endswith("before it") and row is not None
                    else ""
                )
                self._problems.note(
                    where,
                    f"at character {found.place}: {fault}",
                    hint or self._suggest(found.name, key),
                )

    def _suggest(self, found: str, key: str) -> str:
        """What may have been meant: another name, or another key of it."""
        if found == "params":
            return suggest(key, list(islice(self._declared, MAX_SUGGESTED)))
        if found == "execution":
            return suggest(key, EXECUTION_FIELDS)
        if found in self._drafts.row_of:
            return suggest(key, TASK_FIELDS)
        return "" if found in ROOTS else suggest(found, [*ROOTS, *islice(self._drafts.row_of, MAX_SUGGESTED)])

    def _fault_of_name(self, found: str, key: str, row: int | None, *, instance: bool, itself: bool) -> str:
        if found == "params":
            if not key:
                return "a parameter is written params.NAME"
            return "" if key in self._declared else f"there is no parameter {key}"
        if found in ("item", "index"):
            fans_out = row is not None and "for_each" in self._drafts.rows[row].own
            return "" if instance and fans_out else f"{found} is of tasks with for_each"
        if found == "execution":
            return "" if key in ("", *EXECUTION_FIELDS) else f"an execution has no {key}"
        other = self._drafts.row_of.get(found)
        if other is None:
            return f"there is no task {found}"
        if key not in TASK_FIELDS:
            return f"write {found}.output, or one of {', '.join(TASK_FIELDS)}" if not key else f"a task has no {key}"
        fans_out = "for_each" in self._drafts.rows[other].own
        if key == "output" and fans_out and not (itself and other == row):
            return f"{found} has an output of each item: write {found}.outputs"
        if key in ("output", "outputs"):
            self.asked[other] = None
        if other == row:
            return "" if itself else f"{found} is the task itself"
        if row is None or self._drafts.rows[row].role is not Role.MAIN:
            return "" if self._drafts.rows[other].role is Role.MAIN else f"{found} is not one of the tasks"
        return "" if self._drafts.before[row] >> other & 1 else f"{found} does not come before it"
