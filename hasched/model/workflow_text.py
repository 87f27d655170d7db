"""A workflow's document becomes a workflow spec, or every reason why it can't.

`docs/workflows.md` describes it. A task is a mapping of its own keys (`TASK`) and of a job's, which hold for the job that it
names, too. Parameters are filled in first (`parameters.py`), so what is read is as a job's document is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from hasched.model.errors import FieldError, SpecInvalid, WorkflowInvalid
from hasched.model.interpolation import OPENING, Embedded, escape, pieces_of
from hasched.model.kinds import Problems, describe, suggest
from hasched.model.notices import NotifyRule, Topic
from hasched.model.parameters import (
    PARAMETERS,
    VALUE,
    Filling,
    Parameter,
    is_guessed,
    read_values,
    sample_values,
)
from hasched.model.parse import JobDefaults, parse_spec
from hasched.model.spec import DEFAULT_NAMESPACE, JobSpec
from hasched.model.values import ExpressionError, Value, to_text
from hasched.model.workflow import (
    MAX_NESTING,
    MAX_ROWS,
    MAX_WORKFLOW_BYTES,
    After,
    MemoTerms,
    OnFailure,
    TaskSpec,
    WorkflowSpec,
    count_rows,
    pack_workflow,
)
from hasched.model.workflow_keys import WORKFLOW_KIND
from hasched.model.workflow_names import Names
from hasched.model.workflow_rows import Draft, Drafts

Library: TypeAlias = Callable[[str, str], Mapping[str, Any] | None]  # the document of (kind, name), None: there is none

ENDS = tuple(each.value for each in (Topic.WORKFLOW_CANCELLED, Topic.WORKFLOW_FAILED, Topic.WORKFLOW_SUCCEEDED))


class Parsed(NamedTuple):
    """A workflow that can be executed, and the values of its parameters. `guessed`: it can't, some have none yet."""

    spec: WorkflowSpec
    values: dict[str, Value]
    guessed: bool
    open_names: list[str]  # jobs and workflows that it names and that could not be looked at


def parse_workflow(
    document: Any,
    *,
    given: Mapping[str, Any] | None = None,
    library: Library | None = None,
    defaults: JobDefaults | None = None,
) -> Parsed:
    """The spec of a workflow, with these parameters. Raises WorkflowInvalid with everything that is wrong.

    Without `given` only a look: parameters that have no default stand as samples. Without a `library` what it names is open.
    """
    problems = Problems()
    try:
        parsed = _Reader(problems, library, defaults, 0).read(document, given, {})
        if not problems and count_rows(parsed.spec) > MAX_ROWS:
            problems.note("tasks", f"are more than {MAX_ROWS} with those of the workflows within", "use for_each")
        if not problems and len(pack_workflow(parsed.spec)) > MAX_WORKFLOW_BYTES:
            problems.note("", f"the workflow is larger than {MAX_WORKFLOW_BYTES} bytes", "put data in files")
    except SpecInvalid as error:
        raise WorkflowInvalid(error.errors) from None
    if problems:
        raise WorkflowInvalid(problems)
    return parsed


class _Reader:
    """Reads one workflow. `late` parameters are those whose values are known only when it starts within another."""

    def __init__(
        self,
        problems: Problems,
        library: Library | None,
        defaults: JobDefaults | None,
        depth: int,
        within: tuple[str, ...] = (),
    ) -> None:
        self._problems = problems
        self._library = library
        self._defaults = defaults
        self._depth = depth
        self._within = within
        self._drafts = Drafts(problems)
        self._names = Names(problems, self._drafts, {})
        self._filling = Filling({}, {}, problems)
        self._declared: Mapping[str, Parameter] = {}
        self._top: dict[str, Any] = {}
        self._open: list[str] = []
        self._guesses = False

    def read(self, document: Any, given: Mapping[str, Any] | None, late: Mapping[str, object]) -> Parsed:
        problems = self._problems
        nothing = Parsed(WorkflowSpec(name="", tasks=()), {}, True, [])
        top = self._top = WORKFLOW_KIND.read(document, "", problems)
        if isinstance(document, dict):
            for key in ("name", "tasks"):
                if key not in document:
                    problems.note(
                        key, "is missing", f"give the workflow {'a name' if key == 'name' else 'at least one task'}"
                    )
        if problems:
            return nothing
        self._declared = top.get("parameters", {})
        values = self._values(given, late)
        if problems:
            return nothing
        self._names = Names(problems, self._drafts, self._declared)
        self._drafts.read(top)
        if problems:
            return nothing
        befores = self._drafts.read_after()
        if problems:
            return nothing
        tasks = [self._task(draft, after) for draft, after in zip(self._drafts.rows, befores, strict=True)]
        output = top.get("output", "")
        if output:
            self._names.check_names(output, "output", None)
        if problems:
            return nothing
        kept = [
            msgspec.structs.replace(task, keeps_output=True) if row in self._names.asked else task
            for row, task in enumerate(tasks)
            if task is not None
        ]
        spec = WorkflowSpec(
            name=top["name"],
            tasks=tuple(kept),
            namespace=top.get("namespace", DEFAULT_NAMESPACE),
            on_failure=top.get("on_failure", OnFailure.STOP),
            timeout_ms=top.get("timeout_ms", 0),
            parallelism=top.get("parallelism", 0),
            output=output,
            notify=self._notify(),
        )
        return Parsed(spec, values, self._guesses or bool(self._filling.samples), self._open)

    def _values(self, given: Mapping[str, Any] | None, late: Mapping[str, object]) -> dict[str, Value]:
        known = {key: each for key, each in self._declared.items() if key not in late}
        for key in late:
            if key not in self._declared:
                self._problems.note(f"parameters.{key}", "there is no such parameter", suggest(key, self._declared))
            elif self._declared[key].type.value != "text":
                self._problems.note(
                    f"parameters.{key}", "is a text here, and must be another value", "its value is known only later"
                )
        if given is None:
            values = {key: each.default for key, each in known.items() if each.default is not None}
        else:
            values = read_values(known, given, "parameters", self._problems)
        self._filling = Filling(values, late, self._problems)
        if given is None:
            self._filling.samples = sample_values(known)
        return values

    def _notify(self) -> NotifyRule | None:
        """Who is told what of its executions: of their end in any case where a hook says so."""
        rule: NotifyRule | None = self._top.get("notify")
        if rule is None or not self._drafts.tells:
            return rule
        return NotifyRule(rule.targets, tuple(sorted(dict.fromkeys((*rule.events, *ENDS)))))

    # ── One row ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _task(self, draft: Draft, after: tuple[After, ...]) -> TaskSpec | None:
        own, place, problems = draft.own, draft.place, self._problems
        of = self._drafts.row_of[draft.of] if draft.of else 0
        kinds = [key for key in ("approval", "workflow") if key in own]
        if len(kinds) + ("job" in own or bool(draft.job)) > 1:
            problems.note(place, f"`{kinds[0]}` excludes a job and its keys", "make two tasks of it")
            return None
        for key in ("enough", "parallelism"):
            if key in own and "for_each" not in own:
                word = "complete_when" if key == "enough" else key
                problems.note(f"{place}.{word}", "is of tasks with for_each")
        if "parameters" in own and not (isinstance(own.get("job"), str) or "workflow" in own):
            problems.note(f"{place}.parameters", "are of a job or workflow that is named")
        row = self._drafts.row_of[draft.name]
        if draft.validates:
            return TaskSpec(name=draft.name, validates=True)
        each = own.get("for_each", {})
        if "items" in each and own.get("enough", 0) > len(each["items"]):
            problems.note(
                f"{place}.complete_when", f"asks for more than the {len(each['items'])} instances that there are"
            )
        if "for_each" in each:
            self._names.check_names(each["for_each"], f"{place}.for_each", row, instance=False)
        if own.get("condition"):
            self._names.check_names(own["condition"], f"{place}.condition", row, instance=False)
        if "tells" in own:
            condition = own.get("condition", "")
            return TaskSpec(name=draft.name, tells=own["tells"], after=after, condition=condition, role=draft.role)
        success = own.get("success", {})
        if success.get("success"):
            self._names.asked[row] = None
            self._names.check_names(success["success"], f"{place}.success", row, itself=True)
        if success.get("success_output"):
            self._names.asked[row] = None
        if "memo" in own:
            self._names.asked[row] = None
        fields: dict[str, Any] = {
            "name": draft.name,
            "memo": self._memo(draft, [*kinds, *(["compensate"] if "compensate" in own else [])], row),
            "after": after,
            "condition": own.get("condition", ""),
            "for_each": each.get("for_each", ""),
            "items": each.get("items", ()),
            "fans_out": bool(each),
            "parallelism": own.get("parallelism", 0),
            "enough": own.get("enough", 0),
            "success": success.get("success", ""),
            "success_output": success.get("success_output", ""),
            "role": draft.role,
            "of": of,
        }
        if "approval" in own:
            if each or success:
                problems.note(place, "an approval has no for_each and no success", "leave them out")
            self._names.check_text(own["approval"], f"{place}.approval", row)
            return TaskSpec(approval=own["approval"], **fields)
        if "workflow" in own:
            inner = self._workflow(draft)
            return None if inner is None else TaskSpec(workflow=inner[0], arguments=inner[1], **fields)
        found = self._job(draft, success.get("success_exit_codes"))
        return None if found is None else TaskSpec(job=found[0], arguments=found[1], **fields)

    def _memo(self, draft: Draft, others: list[str], row: int) -> MemoTerms | None:
        if "memo" not in draft.own:
            return None
        place = f"{draft.place}.memo"
        if others:
            cause = f"and `{others[0]}` exclude each other"
            self._problems.note(place, cause, "only what a job leaves is remembered, and only if it isn't taken back")
        given = dict(draft.own["memo"])
        if "key" in given:
            filled = self._filling.fill_value(given["key"], f"{place}.key", late=True)
            given["key"] = filled if isinstance(filled, str) else escape(to_text(filled))
            if not given["key"]:
                self._problems.note(f"{place}.key", "is empty")
            self._names.check_text(given["key"], f"{place}.key", row)
        return MemoTerms(**given)

    def _job(
        self, draft: Draft, codes: tuple[int, ...] | None
    ) -> tuple[JobSpec, tuple[tuple[str, Any], ...] | None] | None:
        """The job of a row, and what `params` means in it."""
        place, held = draft.place, draft.own.get("job", {})
        arguments: dict[str, Any] | None = None
        before = len(self._problems)
        if isinstance(held, str):
            base = self._look_up("job", held, f"{place}.job")
            if base is None:
                return (JobSpec(name="x", command=("true",)), None) if len(self._problems) == before else None
            arguments, late = self._arguments(draft)
            inner = self._template(base, arguments, late, f"{place}.job")
            given = self._filling.fill_value(draft.job, place, late=False)
            places = {key: f"{place}.{key}" for key in draft.job}
        elif isinstance(held, dict):
            places = {key: f"{place}.job.{key}" for key in held} | {key: f"{place}.{key}" for key in draft.job}
            inner, given = {}, self._filling.fill_job({**held, **draft.job}, places)
        else:
            self._problems.note(f"{place}.job", f"must be a mapping of a job's keys, or a name, not {describe(held)}")
            return None
        if len(self._problems) > before or inner is None:
            return None
        document = {"name": self._job_name(draft), "namespace": self._top.get("namespace", DEFAULT_NAMESPACE)}
        defaults = self._top.get("defaults") or {}
        if not isinstance(defaults, dict):
            self._problems.note("defaults", "must be a mapping of a job's keys")
            return None
        common = {key: f"defaults.{key}" for key in defaults}
        for keys in (self._filling.fill_job(defaults, common), inner, given):
            document = _merge(document, keys)
        places = common | places
        if codes is not None:
            document["success_exit_codes"] = list(codes)
        job = self._parse_job(document, places, place)
        if job is None:
            return None
        if arguments is None:
            self._names.check_job(job, places, place, self._drafts.row_of[draft.name])
        if job.count > 1 and self._drafts.row_of[draft.name] in self._names.asked:
            self._problems.note(place, "the output of a job of several tasks can't be asked for", "use for_each")
        return job, None if arguments is None else tuple(arguments.items())

    def _job_name(self, draft: Draft) -> str:
        return f"{self._top['name']}.{draft.name}"[:128]

    def _parse_job(self, document: dict[str, Any], places: Mapping[str, str], place: str) -> JobSpec | None:
        try:
            return parse_spec(document, self._defaults)
        except SpecInvalid as error:
            before = len(self._problems)
            for each in error.errors:
                key, rest = _split_key(each.path)
                where = f"{places.get(key, place + '.' + key if key else place)}{rest}"
                if not is_guessed(where, self._filling.guessed):
                    self._problems.append(FieldError(where, each.cause, each.hint))
            if len(self._problems) == before:
                self._guesses = True
                return JobSpec(name="x", command=("true",))
            return None

    # ── What a row names ────────────────────────────────────────────────────────────────────────────────────────────

    def _look_up(self, kind: str, called: str, place: str) -> Mapping[str, Any] | None:
        if self._library is None:
            self._open.append(f"{kind} {called}")
            return None
        found = self._library(kind, called)
        if found is None:
            self._problems.note(
                place, f"there is no {kind} template {called}", f"see `hasched template list --kind {kind}`"
            )
        return found

    def _arguments(self, draft: Draft) -> tuple[dict[str, Any], dict[str, object]]:
        """What a row gives to what it names, and those of it that are known only when it starts."""
        given = draft.own.get("parameters", {})
        place = f"{draft.place}.parameters"
        if not isinstance(given, dict):
            self._problems.note(place, f"must be a mapping, not {describe(given)}")
            return {}, {}
        arguments: dict[str, Any] = {}
        late: dict[str, object] = {}
        for key, value in given.items():
            VALUE.read(value, f"{place}.{key}", self._problems)
            filled = self._filling.fill_value(value, f"{place}.{key}", late=True)
            arguments[key] = filled
            if isinstance(filled, str) and OPENING in filled:
                self._names.check_text(filled, f"{place}.{key}", self._drafts.row_of[draft.name])
                if any(isinstance(piece, Embedded) for piece in _pieces(filled)):
                    late[key] = None
                else:
                    arguments[key] = "".join(str(piece) for piece in _pieces(filled))
        return arguments, late

    def _template(
        self, document: Mapping[str, Any], arguments: dict[str, Any], late: dict[str, object], place: str
    ) -> dict[str, Any] | None:
        """A job template with a row's arguments. What it declares and isn't given is added to these."""
        problems = Problems()
        declared: dict[str, Parameter] = PARAMETERS.read(document.get("parameters") or {}, "parameters", problems)
        known = {key: each for key, each in declared.items() if key not in late}
        values = read_values(
            known, {key: value for key, value in arguments.items() if key not in late}, "parameters", problems
        )
        filling = Filling(values, late, problems)
        inner = filling.fill_job({key: value for key, value in document.items() if key != "parameters"}, {})
        for key in late:
            if key not in declared:
                problems.note(f"parameters.{key}", "there is no such parameter", suggest(key, declared))
        guessed = self._filling.guessed
        for each in problems:
            outside = each.path.startswith("parameters")
            where = f"{place.removesuffix('job')}{each.path}" if outside else place
            if not is_guessed(where, guessed):
                self._problems.note(where, each.cause if outside else f"{each.path}: {each.cause}", each.hint)
        arguments.update(values)
        return None if problems else inner

    def _workflow(self, draft: Draft) -> tuple[WorkflowSpec, tuple[tuple[str, Any], ...]] | None:
        called, place = draft.own["workflow"], draft.place
        if called == self._top["name"] or called in self._within:
            self._problems.note(f"{place}.workflow", f"{called} would be within itself")
            return None
        if self._depth + 1 >= MAX_NESTING:
            self._problems.note(f"{place}.workflow", f"workflows are nested at most {MAX_NESTING} deep")
            return None
        before = len(self._problems)
        document = self._look_up("workflow", called, f"{place}.workflow")
        arguments, late = self._arguments(draft)
        if document is None:
            return (WorkflowSpec(name=called, tasks=()), ()) if len(self._problems) == before else None
        inner = Problems()
        reader = _Reader(inner, self._library, self._defaults, self._depth + 1, (*self._within, self._top["name"]))
        parsed = reader.read(document, {key: value for key, value in arguments.items() if key not in late}, late)
        for each in inner:
            outside = each.path.startswith("parameters")
            where = f"{place}.{each.path}" if outside else f"{place}.workflow"
            if not is_guessed(where, self._filling.guessed):
                self._problems.note(where, each.cause if outside else f"{each.path}: {each.cause}", each.hint)
        self._open += parsed.open_names
        if inner:
            return None
        return parsed.spec, tuple((parsed.values | {key: arguments[key] for key in late}).items())


def _merge(document: dict[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """The document with these keys in place of its own; what are mappings themselves are merged."""
    merged = dict(document)
    for key, value in keys.items():
        if key == "retries" and isinstance(value, int) and isinstance(document.get(key), dict):
            merged[key] = {**document[key], "max": value}
        elif key in MERGED and isinstance(value, dict) and isinstance(document.get(key), dict):
            merged[key] = {**document[key], **value}
        else:
            merged[key] = value
    return merged


MERGED = ("env", "labels", "resources", "retries")


def _pieces(written: str) -> list[str | Embedded]:
    try:
        return list(pieces_of(written))
    except ExpressionError:
        return [written]


def _split_key(path: str) -> tuple[str, str]:
    """`resources.gpus` as its first key and the rest, the rest with its dot or bracket."""
    ends = [place for place in (path.find("."), path.find("[")) if place >= 0]
    end = min(ends, default=len(path))
    return path[:end], path[end:]
