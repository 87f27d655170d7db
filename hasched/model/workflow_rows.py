"""The rows of a workflow's document: its tasks, hooks, compensations and finals, by name, and what each comes after."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from hasched.model.expressions import ROOTS, is_task_name
from hasched.model.kinds import Problems, describe, suggest
from hasched.model.parse import JOB_KEYS
from hasched.model.workflow import MAX_ROWS, After, Role
from hasched.model.workflow_keys import (
    ALWAYS_DONE,
    HOOKS_OF,
    TASK,
    TASK_KIND,
    TELL,
    VALIDATE,
    WEBHOOK,
    WEBHOOK_KIND,
)

MAX_SUGGESTED = 500  # names that a mistyped one is compared with
UNDO, PRE, POST = "undo-", "pre-", "post-"


class Draft(NamedTuple):
    """A row before it is a `TaskSpec`: `place` is that of its mapping in the document."""

    name: str
    place: str
    own: dict[str, Any]  # the task's own keys, read
    job: dict[str, Any]  # those of a job
    role: Role
    of: str = ""
    validates: bool = False


class Drafts:
    """The rows as they stand in the document. What is wrong with them is noted in `problems`."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._names: dict[str, None] = {}
        self.rows: list[Draft] = []
        self.row_of: dict[str, int] = {}  # by name
        self.before: list[int] = []  # of each row, the rows before it, as bits
        self.tells = ""  # the place of the hook that has the end told

    def read(self, top: dict[str, Any]) -> None:
        hooks = top.get("hooks", {})
        self._draft_hooks(hooks.get("pre", []), "pre", PRE, Role.MAIN)
        mains = list(self._mappings(top["tasks"], "tasks"))
        for key, place, value in mains:
            self._draft(key, place, value, Role.MAIN)
        if not mains and not self._problems:
            self._problems.note("tasks", "must not be empty")
        for draft in [each for each in self.rows if "compensate" in each.own]:
            undo = draft.own["compensate"]
            body = {"job": undo} if isinstance(undo, str) else undo
            if not isinstance(body, dict):
                self._problems.note(f"{draft.place}.compensate", f"must be a job, not {describe(undo)}")
                continue
            self._draft(f"{UNDO}{draft.name}", f"{draft.place}.compensate", body, Role.UNDO, draft.name)
        for key, place, value in self._mappings(top.get("finals") or {}, "finally"):
            self._draft(key, place, value, Role.FINAL)
        self._draft_hooks(hooks.get("post", []), "post", POST, Role.FINAL)
        if self.tells and "notify" not in top:
            self._problems.note(self.tells, "nobody is named who is to be told", "add `notify: {targets: [NAME]}`")
        if len(self.rows) > MAX_ROWS:
            self._problems.note("tasks", f"are {len(self.rows)}, and may be {MAX_ROWS}", "use for_each")

    def _mappings(self, value: Any, place: str) -> Iterator[tuple[str, str, Any]]:
        """The tasks of a mapping by name, or of a list of tasks with names: (name, place, keys)."""
        if isinstance(value, dict):
            for key, each in value.items():
                yield key, f"{place}.{key}", each
        elif isinstance(value, list):
            for number, each in enumerate(value):
                if not isinstance(each, dict) or not isinstance(each.get("name"), str):
                    self._problems.note(f"{place}[{number}]", "must be a task with a name")
                else:
                    keys = {key: item for key, item in each.items() if key != "name"}
                    yield each["name"], f"{place}[{number}]", keys
        else:
            self._problems.note(place, f"must be a mapping of tasks by name, not {describe(value)}")

    def _draft_hooks(self, value: Any, when: str, prefix: str, role: Role) -> None:
        place, named = f"hooks.{when}", (*ALWAYS_DONE, HOOKS_OF[when])
        if not isinstance(value, list):
            self._problems.note(place, f"must be a list of jobs and webhooks, not {describe(value)}")
            return
        for number, each in enumerate(value, start=1):
            where = f"{place}[{number - 1}]"
            if isinstance(each, dict) and WEBHOOK in each:
                self._draft_webhook(f"{prefix}{number}", where, each, role)
            elif isinstance(each, dict):
                self._draft(f"{prefix}{number}", where, each, role)
            elif not isinstance(each, str) or each not in named:
                hint = suggest(each, named) if isinstance(each, str) else ""
                self._problems.note(
                    where, f"must be a job, webhook or one of {', '.join(named)}, not {describe(each)}", hint
                )
            elif each == VALIDATE:
                self._draft_check(where)
            elif each == TELL:
                self.tells = where

    def _draft_check(self, place: str) -> None:
        if VALIDATE in self._names:
            self._problems.note(place, f"{VALIDATE} stands twice")
            return
        self._names[VALIDATE] = None
        self.rows.append(Draft(VALIDATE, place, {}, {}, Role.MAIN, validates=True))

    def _draft_webhook(self, key: str, place: str, value: dict[str, Any], role: Role) -> None:
        before = len(self._problems)
        own = WEBHOOK_KIND.read(value, place, self._problems)
        if len(self._problems) > before:
            return
        called = own.pop("name", "")
        if self._take_name(called or key, f"{place}.name" if called else place):
            self.rows.append(Draft(called or key, place, own, {}, role))

    def _take_name(self, key: str, place: str) -> bool:
        """Whether a task may be called so; from here on no other may."""
        if not is_task_name(key):
            cause = "means something else in expressions" if key in ROOTS else "can't be the name of a task"
            self._problems.note(place, cause, "use letters, digits, '_' and '-', a letter first, 64 at most")
            return False
        if key in self._names:
            self._problems.note(place, f"there is a task {key} already", "give each its own name")
            return False
        self._names[key] = None
        return True

    def _draft(self, key: str, place: str, value: Any, role: Role, of: str = "") -> None:
        problems = self._problems
        if not self._take_name(key, place):
            return
        if not isinstance(value, dict):
            problems.note(place, f"must be a mapping of a task's keys, not {describe(value)}")
            return
        unknown = [each for each in value if each not in TASK and each not in JOB_KEYS]
        for each in unknown:
            problems.note(f"{place}.{each}", "unknown key", suggest(str(each), [*TASK, *JOB_KEYS]))
        if unknown:
            return
        own = TASK_KIND.read({each: item for each, item in value.items() if each in TASK}, place, problems)
        if role is not Role.MAIN:
            for each in (
                "after",
                "compensate",
                "memo",
                *(("for_each", "workflow", "approval") if role is Role.UNDO else ()),
            ):
                if each in value:
                    problems.note(f"{place}.{each}", "can't stand here", "what runs at the end has an order of its own")
        job = {each: item for each, item in value.items() if each in JOB_KEYS}
        self.rows.append(Draft(key, place, own, job, role, of))

    def read_after(self) -> list[tuple[After, ...]]:
        """What each row comes after; no row comes after itself, whatever the way round."""
        self.row_of = {draft.name: row for row, draft in enumerate(self.rows)}
        befores: list[tuple[After, ...]] = []
        check = [row for row, draft in enumerate(self.rows) if draft.validates]
        pre = [  # a webhook is told at its turn: there is nothing to wait for, nor to stop for if its condition doesn't hold
            row
            for row, draft in enumerate(self.rows)
            if draft.place.startswith("hooks.pre") and not draft.validates and "tells" not in draft.own
        ]
        for draft in self.rows:
            after: dict[int, After] = {}
            for number, (each, when) in enumerate(draft.own.get("after", [])):
                row = self.row_of.get(each)
                if row is None or self.rows[row].role is not Role.MAIN:
                    mains = [other.name for other in self.rows if other.role is Role.MAIN]
                    self._problems.note(
                        f"{draft.place}.after", f"there is no task {each}", suggest(each, mains[:MAX_SUGGESTED])
                    )
                elif row in after:
                    self._problems.note(f"{draft.place}.after[{number}]", f"{each} stands twice")
                else:
                    after[row] = After(row, when)
            if draft.role is Role.MAIN and not after and not draft.validates:
                of_pre = draft.place.startswith("hooks.pre")
                after = {row: After(row) for row in (check if of_pre else pre or check)}
            befores.append(tuple(after.values()))
        if not self._problems:
            self._order(befores)
        return befores

    def _order(self, befores: list[tuple[After, ...]]) -> None:
        graph = {row: [each.row for each in after] for row, after in enumerate(befores)}
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            circle = [self.rows[row].name for row in reversed(error.args[1])]
            first = self.rows[self.row_of[circle[0]]]
            self._problems.note(f"{first.place}.after", f"tasks wait for each other: {' after '.join(circle)}")
            return
        self.before = [0] * len(befores)
        for row in order:
            for each in befores[row]:
                self.before[row] |= self.before[each.row] | 1 << each.row
