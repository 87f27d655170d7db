"""The keys of a workflow's document and of its tasks: what may stand there, and the JSON Schema of it all."""

from __future__ import annotations

from typing import Any

from hasched.model.expressions import parse
from hasched.model.globs import MAX_STARS
from hasched.model.interpolation import OPENING, Embedded, pieces_of
from hasched.model.kinds import Field, Kind, Problems, choice, describe, exit_codes, mapping, name, text, whole
from hasched.model.notification_text import NOTIFY_OF_WORKFLOW
from hasched.model.parameters import PARAMETERS
from hasched.model.parse import DURATION, spec_schema
from hasched.model.values import ExpressionError
from hasched.model.workflow import MAX_INSTANCES, OnFailure, When

MAX_AFTER = 1000
MAX_MEMO_KEY_CHARS = 4096
ALWAYS_DONE = ("check_dependencies", "cleanup_resources")
VALIDATE, TELL = "validate_resources", "notify_completion"
HOOKS_OF = {"pre": VALIDATE, "post": TELL}  # what else may stand there by name


def _raw(schema: dict[str, Any]) -> Kind:
    """What is read later, or elsewhere."""
    return Kind(lambda value, place, problems: value, schema)


def _expression() -> Kind:
    def read(value: Any, place: str, problems: Problems) -> Any:
        written = ("true" if value else "false") if isinstance(value, bool) else value
        if not isinstance(written, str):
            problems.note(place, f"must be an expression, not {describe(value)}", "write it in quotes")
            return ""
        written = _unwrapped(written)
        try:
            parse(written)
        except ExpressionError as error:
            problems.note(place, str(error), error.hint)
            return ""
        return written

    return Kind(read, {"type": ["string", "boolean"]})


def _unwrapped(written: str) -> str:
    """`#{…}` around a whole expression says nothing more."""
    try:
        pieces = list(pieces_of(written)) if OPENING in written else []
    except ExpressionError:
        return written
    return pieces[0].source if len(pieces) == 1 and isinstance(pieces[0], Embedded) else written


def _after() -> Kind:
    """A name, a list of names, or a mapping from names to how these must end: as pairs."""
    one = choice(When)

    def read(value: Any, place: str, problems: Problems) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            pairs = [(each, When.OK) for each in value]
        elif isinstance(value, dict):
            pairs = [(each, one.read(when, f"{place}.{each}", problems)) for each, when in value.items()]
        else:
            problems.note(
                place, f"must be a list of tasks, or a mapping from tasks to ok, failed or any, not {describe(value)}"
            )
            return []
        if len(pairs) > MAX_AFTER:
            problems.note(place, f"has {len(pairs)} entries, and may have {MAX_AFTER}")
        for number, (each, _) in enumerate(pairs):
            if not isinstance(each, str):
                problems.note(f"{place}[{number}]", f"must be the name of a task, not {describe(each)}")
                return []
        return pairs

    names = {"type": "array", "items": {"type": "string"}}
    return Kind(read, {"anyOf": [{"type": "string"}, names, {"type": "object", "additionalProperties": one.schema}]})


def _enough() -> Kind:
    number = whole(1, MAX_INSTANCES)

    def read(value: Any, place: str, problems: Problems) -> Any:
        if value in ("all", "any"):
            return 0 if value == "all" else 1
        return number.read(value, place, problems)

    return Kind(read, {"anyOf": [{"enum": ["all", "any"]}, number.schema]})


def _target() -> Kind:
    known = name()

    def read(value: Any, place: str, problems: Problems) -> Any:
        if isinstance(value, str) and "://" in value:
            problems.note(place, f"must name a notification policy, not {describe(value)}", "the policy has the URL")
            return ""
        return known.read(value, place, problems)

    return Kind(read, known.schema)


def _has_fraction(value: Any) -> bool:
    """Documents nest no deeper than YAML and JSON may."""
    if isinstance(value, dict):
        return any(map(_has_fraction, value.values()))
    return any(map(_has_fraction, value)) if isinstance(value, list) else isinstance(value, float)


def _for_each() -> Kind:
    expression = _expression()

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, list):
            return {"for_each": expression.read(value, place, problems)}
        if len(value) > MAX_INSTANCES:
            problems.note(place, f"has {len(value)} items, and may have {MAX_INSTANCES}")
        elif any(map(_has_fraction, value)):
            problems.note(place, "has a fraction", "write it as a text, in quotes")
        return {"items": tuple(value)}

    return Kind(read, {"anyOf": [{"type": "string"}, {"type": "array", "maxItems": MAX_INSTANCES}]})


_SUCCESS = mapping(
    {
        "exit_codes": Field("success_exit_codes", exit_codes(), "Exit codes that count as success."),
        "output": Field("success_output", text(1024), "A pattern that the output must match: `*` is anything."),
        "condition": Field("success", _expression(), "An expression that must hold."),
    },
    "an expression, or a mapping of exit_codes, output and condition",
)


def _success() -> Kind:
    expression = _expression()

    def read(value: Any, place: str, problems: Problems) -> Any:
        if isinstance(value, dict):
            found = _SUCCESS.read(value, place, problems)
            if found.get("success_output", "").count("*") > MAX_STARS:
                problems.note(f"{place}.output", f"has more than {MAX_STARS} stars")
            return found
        return {"success": expression.read(value, place, problems)}

    return Kind(read, {"anyOf": [{"type": "string"}, _SUCCESS.schema]})


_MEMO = mapping(
    {
        "key": Field(
            "key", text(MAX_MEMO_KEY_CHARS), "A text with expressions; by default the whole job with its values."
        ),
        "max_age": Field("max_age_ms", DURATION, "Not what is older than this; by default however old it is."),
    },
    "a mapping of key and max_age",
)
_JOB_SCHEMA = {"anyOf": [{"type": "string", "description": "The name of a job template."}, {"$ref": "#/$defs/job"}]}
TASK = {
    "about": Field("about", text(1000), "For people."),
    "job": Field("job", _raw(_JOB_SCHEMA), "The job that it runs: its keys, or the name of a job template."),
    "workflow": Field("workflow", name(), "The workflow that it executes."),
    "approval": Field("approval", text(1000), "A question that somebody has to say yes to; `#{…}` in it is filled."),
    "parameters": Field("parameters", _raw({"type": "object"}), "Of the job template or workflow that it names."),
    "after": Field("after", _after(), "The tasks that have to end before: ok, failed or any."),
    "condition": Field("condition", _expression(), "Skip it unless this holds when its turn has come."),
    "for_each": Field("for_each", _for_each(), "A list, or an expression that gives one: an instance for each item."),
    "parallelism": Field("parallelism", whole(1, MAX_INSTANCES), "So many of its instances at once at most."),
    "complete_when": Field("enough", _enough(), "all, any, or so many instances that have to succeed."),
    "success": Field("success", _success(), "What has to be true besides, for it to have succeeded."),
    "memo": Field("memo", _MEMO, "Don't run again for the same inputs: leave what was left before."),
    "compensate": Field("compensate", _raw(_JOB_SCHEMA), "The job that takes its effect back if the execution fails."),
}
WEBHOOK, NO_JOB = "webhook", "a webhook is no job: make two hooks of it"
WEBHOOK_KIND = mapping(
    {
        WEBHOOK: Field("tells", _target(), "The notification policy that is told."),
        "name": Field("name", text(64), "What the hook is called; `pre-1` and the like by default."),
        "condition": Field("condition", _expression(), "Skip it unless this holds when its turn has come."),
        "about": Field("about", text(1000), "For people."),
    },
    "a mapping of webhook, name and condition",
    elsewhere=dict.fromkeys(("command", "script", "job", "workflow", "approval"), NO_JOB),
)
TASK_KIND = mapping(TASK, "a mapping of a task's keys and a job's")
_TASK_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {**spec_schema()["properties"], **TASK_KIND.schema["properties"]},
    "additionalProperties": False,
}
_TASKS_SCHEMA = {
    "anyOf": [
        {"type": "object", "additionalProperties": {"$ref": "#/$defs/task"}},
        {"type": "array", "items": {"allOf": [{"$ref": "#/$defs/task_with_name"}]}},
    ]
}


def _hooks(when: str) -> Kind:
    names = {"enum": [*ALWAYS_DONE, HOOKS_OF[when]]}
    webhook = {"required": [WEBHOOK], **WEBHOOK_KIND.schema}
    return _raw({"type": "array", "items": {"anyOf": [names, webhook, {"$ref": "#/$defs/job"}]}})


_HOOKS = mapping(
    {
        "pre": Field("pre", _hooks("pre"), "Before all tasks."),
        "post": Field("post", _hooks("post"), "After all tasks, whatever happened."),
    },
    "a mapping of pre and post",
    elsewhere={"pre_execute": "write `pre`", "post_execute": "write `post`"},
)
_WORKFLOW = {
    "name": Field("name", name(), "What it is called."),
    "about": Field("about", text(4000), "For people."),
    "namespace": Field("namespace", name(), "Whose work it is."),
    "parameters": Field("parameters", PARAMETERS, "What may be given when it is executed."),
    "timeout": Field("timeout_ms", DURATION, "For the whole execution; then what runs is stopped. 0 for none."),
    "parallelism": Field("parallelism", whole(1, MAX_INSTANCES), "So many jobs at once at most."),
    "on_failure": Field("on_failure", choice(OnFailure), "What becomes of the other tasks when one has failed."),
    "defaults": Field("defaults", _raw({"$ref": "#/$defs/job_part"}), "Keys of a job that hold for all jobs within."),
    "tasks": Field("tasks", _raw(_TASKS_SCHEMA), "What it does."),
    "finally": Field("finals", _raw(_TASKS_SCHEMA), "Tasks that run at the end, whatever happened."),
    "hooks": Field("hooks", _HOOKS, "Jobs and webhooks before and after everything."),
    "notify": Field("notify", NOTIFY_OF_WORKFLOW, "Who is told how an execution goes on."),
    "output": Field("output", _expression(), "An expression: what an execution leaves."),
}
WORKFLOW_KIND = mapping(_WORKFLOW, "a mapping of a workflow's keys")


def _fillable(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a document before its parameters are filled in: they may stand for any value."""
    if "properties" not in schema:
        return schema
    properties = {}
    for key, each in schema["properties"].items():
        plain = {word: value for word, value in _fillable(each).items() if word != "description"}
        about = {"description": each["description"]} if "description" in each else {}
        properties[key] = {**about, "anyOf": [plain, {"type": "string", "pattern": r"#\{"}]}
    return {**schema, "properties": properties}


def template_schema() -> dict[str, Any]:
    """The document of a job template: a job's, in which any text may hold `#{params.NAME}`."""
    job = _fillable(spec_schema())
    return {**job, "properties": {"parameters": PARAMETERS.schema, **job["properties"]}}


def workflow_schema() -> dict[str, Any]:
    """The document as JSON Schema (2020-12). It can't say everything: `parse_workflow` has the last word."""
    task = {**_TASK_SCHEMA, "properties": {**_fillable(_TASK_SCHEMA)["properties"], **TASK_KIND.schema["properties"]}}
    named = {**task, "properties": {"name": name().schema, **task["properties"]}, "required": ["name"]}
    job = _fillable(spec_schema())
    part = {key: value for key, value in job.items() if key != "oneOf"}
    return {
        **WORKFLOW_KIND.schema,
        "required": ["name", "tasks"],
        "$defs": {"job": job, "job_part": part, "task": task, "task_with_name": named},
    }
