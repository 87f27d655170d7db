"""A user's job document becomes a job spec, or every reason why it can't.

The document is JSON or, from YAML, plain values. `docs/jobs.md` describes it, and `_JOB` is its table: each key, what may
stand there, and where it goes in the spec. Everything is checked in one pass, so there is one truth about what is accepted,
and it is fast because submissions are many. What comes out is canonical: whole numbers, sorted names, the cluster's
defaults filled in. The schema that the API shows is made from the same table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from hasched.model.dependency import DEPENDENCY, NEW_DEPENDENCY, check_dependency
from hasched.model.errors import MalformedBody, SpecInvalid
from hasched.model.gang_text import GRACE, GROUPS, PREEMPTION, fill_gang
from hasched.model.ids import is_name
from hasched.model.kinds import (
    MAX_WORD_BYTES,
    Field,
    Kind,
    Problems,
    blob,
    choice,
    describe,
    exit_codes,
    fault_of_text,
    flag,
    mapping,
    multiplier,
    name,
    names,
    pairs,
    quantity,
    text,
    whole,
    words,
)
from hasched.model.notification_text import NOTIFY
from hasched.model.placement_text import PLACEMENT, PLACEMENT_FIELDS, fill_placement
from hasched.model.resource_text import RESOURCE_FIELDS, RESOURCES, fault_of_name, fill_request, sorted_amounts
from hasched.model.spec import (
    MAX_INPUT_BYTES,
    MAX_PRIORITY,
    MAX_SPEC_BYTES,
    MAX_TASKS,
    JobSpec,
    Resources,
    Retries,
)
from hasched.model.states import BackoffKind, OnBrokenDependency, OnDisconnect, RestartPolicy
from hasched.model.times import format_time, looks_like_time, parse_time_ms
from hasched.model.units import (
    format_duration,
    is_duration,
    parse_duration_ms,
)

MAX_RETRIES = 1000
MAX_MULTIPLIER = 100
MAX_LABELS = 64
MAX_LABEL_BYTES = 256
MAX_TAGS = 32
MAX_SEMAPHORES = 32
MAX_VARIABLES = 10_000
MAX_VARIABLE_NAME_BYTES = 256
MAX_PATH_BYTES = 4095  # Linux's PATH_MAX, less its NUL
MAX_DURATION_MS = 3660 * 86_400_000
MAXGRACE_MS = 3_600_000


class JobDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a job gets where its document is silent: the cluster's own choice."""

    timeout_ms: int = 0
    retries: Retries = Retries()
    resources: Resources = Resources(cpu_milli=1000)


JsonText: TypeAlias = bytes | bytearray | memoryview | msgspec.Raw
PlainValue: TypeAlias = dict[str, Any] | list[Any] | str | int | float | None  # as JSON or YAML is decoded

_PLAIN = JobDefaults()


def parse_spec(document: JsonText | PlainValue, defaults: JobDefaults | None = None) -> JobSpec:
    """The spec that `document` asks for: JSON text as bytes, or the plain value of a document that was decoded before.

    Raises SpecInvalid with everything that is wrong, MalformedBody if the bytes are not JSON.
    """
    defaults = defaults or _PLAIN
    plain = _decode(document) if isinstance(document, (bytes, bytearray, memoryview, msgspec.Raw)) else document
    problems = Problems()
    given = _read_job(plain, "", problems)
    if isinstance(plain, dict) and ("command" in plain) == ("script" in plain):
        both = "command" in plain
        cause = "and `script` exclude each other" if both else "is missing"
        problems.note("command", cause, "keep one of them" if both else "give it, or a `script`")
    if given.get("args") and "script" not in given:
        problems.note("args", "are those of a `script`", "put them into `command`, behind the program")
    retries = _fill_retries(given.get("retries"), defaults.retries, problems)
    _check_times(given, problems)
    check_dependency(given, problems)
    if "priority" in given and "priority_class" in given:
        problems.note("priority_class", "and `priority` exclude each other", "the class gives the priority: keep one")
    if not problems:
        _fill_request(given, defaults.resources, problems)
        fill_gang(given, defaults.resources, problems)
    if problems:
        raise SpecInvalid(problems)
    given["retries"] = retries
    if "name" not in given:
        given["name"] = _name_after(given)
    for moment in ("not_before", "deadline"):
        given.update(given.pop(moment, {}))
    if "timeout_ms" not in given:
        given["timeout_ms"] = defaults.timeout_ms
    spec = JobSpec(**given)
    if len(_encode(spec)) > MAX_SPEC_BYTES:
        problems.note("", f"the job is larger than {MAX_SPEC_BYTES} bytes", "put data in files that tasks can reach")
        raise SpecInvalid(problems)
    return spec


def parse_update(document: JsonText | PlainValue) -> dict[str, Any]:
    """What a document changes of a job that waits or runs, as fields of `UpdateJob`. Times may be 0 here: none any more.

    Raises SpecInvalid, MalformedBody.
    """
    plain = _decode(document) if isinstance(document, (bytes, bytearray, memoryview, msgspec.Raw)) else document
    problems = Problems()
    given: dict[str, Any] = _UPDATE_KIND.read(plain, "", problems)
    _check_times(given, problems)
    if "priority" in given and "priority_class" in given:
        problems.note("priority_class", "and `priority` exclude each other", "the class gives the priority: keep one")
    if not given and not problems:
        problems.note("", "changes nothing", f"give one of {', '.join(_UPDATE)}")
    if problems:
        raise SpecInvalid(problems)
    for moment in ("not_before", "deadline"):
        given.update(given.pop(moment, {}))
    return given


def update_schema() -> dict[str, Any]:
    """What `parse_update` takes, as JSON Schema."""
    return {**_UPDATE_KIND.schema, "minProperties": 1}


def spec_schema() -> dict[str, Any]:
    """The document as JSON Schema (2020-12). It can't say everything: `parse_spec` has the last word."""
    return {**_JOB_KIND.schema, "oneOf": [{"required": ["command"]}, {"required": ["script"]}]}


_decode_json: Callable[[JsonText], PlainValue] = msgspec.json.Decoder().decode
_encode = msgspec.msgpack.Encoder().encode


def _decode(document: JsonText) -> PlainValue:
    try:
        return _decode_json(document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBody(f"this is not JSON: {error}", "send a JSON object") from None
    except RecursionError:
        raise MalformedBody("this JSON is nested too deeply to be a job") from None


def _name_after(given: dict[str, Any]) -> str:
    """A job that has no name is called after its program."""
    program = given["command"][0].rpartition("/")[2] if "command" in given else ""
    return program if is_name(program) else "job"


def _fill_retries(given: dict[str, Any] | None, defaults: Retries, problems: Problems) -> Retries:
    """A first wait that is longer than the longest by default raises that one too."""
    if not given or problems:
        return defaults
    backoff = given.get("backoff")
    if backoff is not None:
        filled = msgspec.structs.replace(defaults.backoff, **backoff)
        if filled.initial_ms > filled.max_ms:
            if "max_ms" in backoff:
                problems.note("retries.backoff.max", "must not be shorter than `initial`")
            filled = msgspec.structs.replace(filled, max_ms=filled.initial_ms)
        given = {**given, "backoff": filled}
    return msgspec.structs.replace(defaults, **given)


def _check_times(given: dict[str, Any], problems: Problems) -> None:
    """A deadline comes after the start that was allowed, where both are told in the same way."""
    start, end = given.get("not_before"), given.get("deadline")
    if problems or not start or not end:
        return
    for way in ("ms", "after_ms"):
        earliest, latest = start.get(f"not_before_{way}"), end.get(f"deadline_{way}")
        if earliest and latest and latest <= earliest:
            problems.note("deadline", "is not later than `not_before`", "nothing could run in between")


def _moment(attribute: str, hint: str, *, zero: bool = False) -> Kind:
    """A time, or how long from then on: as the attribute that says so. `zero`: 0 is no time."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if isinstance(value, str) and looks_like_time(value):
            try:
                return {f"{attribute}_ms": parse_time_ms(value)}
            except ValueError as error:
                problems.note(place, str(error))
                return {}
        if isinstance(value, (int, float)) and value > MAX_DURATION_MS // 1000:
            problems.note(place, f"{describe(value)} is too many seconds", "write a time as 2026-12-24T18:00:00Z")
            return {}
        if isinstance(value, str) and not is_duration(value):
            cause = f"{describe(value)} is neither a time such as 2026-12-24T18:00:00Z nor a duration such as 2h"
            problems.note(place, cause)
            return {}
        after_ms = DURATION.read(value, place, problems)
        if not problems and not after_ms and zero:
            return {f"{attribute}_ms": 0}
        if not problems and not after_ms:
            problems.note(place, "must not be zero", hint)
        return {f"{attribute}_after_ms": after_ms}

    examples = [format_time(1_798_135_200_000), "90m"]
    return Kind(read, {"anyOf": [{"type": "string", "examples": examples}, {"type": "number", "exclusiveMinimum": 0}]})


def _fill_request(given: dict[str, Any], defaults: Resources, problems: Problems) -> None:
    """What a task asks for, and where. The amounts of a resource class are the cluster's to fill in."""
    placement = given.pop("placement", None) or {}
    if placement.get("resource_class"):
        for key in ("resources", "any_of"):
            if key in (given if key == "resources" else placement):
                problems.note("placement.resource_class", f"and `{key}` exclude each other", "keep one of them")
    given["resources"] = fill_request(defaults, given.get("resources") or {}, "resources", problems)
    if placement:
        given["placement"], given["resources"] = fill_placement(placement, given["resources"], problems)


def _retries() -> Kind:
    """A number, short for `{max: N}`, or the mapping."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if isinstance(value, dict):
            return policy.read(value, place, problems)
        if not isinstance(value, int) or isinstance(value, bool):
            problems.note(place, f"must be a number, or a mapping of max, node_lost and backoff, not {describe(value)}")
            return {}
        return {"max": number.read(value, place, problems)}

    number = whole(0, MAX_RETRIES)
    backoff = mapping(
        {
            "kind": Field("kind", choice(BackoffKind), "How the wait grows from one retry to the next."),
            "initial": Field("initial_ms", DURATION, "The wait before the first retry."),
            "max": Field("max_ms", DURATION, "No wait is longer."),
            "multiplier": Field("multiplier_milli", multiplier(1, MAX_MULTIPLIER), "The growth, if exponential."),
        },
        "a mapping of kind, initial, max and multiplier",
    )
    policy = mapping(
        {
            "max": Field("max", number, "Attempts after the first, for failures of its own."),
            "node_lost": Field("node_lost", number, "Attempts after the first, for lost nodes."),
            "backoff": Field("backoff", backoff, "How long a failed task waits."),
        },
        "a mapping",
    )
    return Kind(read, {"anyOf": [number.schema, policy.schema]})


def _path() -> Kind:
    """A directory of the node."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if fault := fault_of_text(value, MAX_PATH_BYTES):
            problems.note(place, fault)
        elif not value.startswith("/"):
            problems.note(place, f"{describe(value)} is not absolute", "it is a place on the node: begin it with /")
        return value

    return Kind(read, {"type": "string", "pattern": "^/"})


def _fault_of_variable(key: str) -> str:
    if not key or "=" in key:
        return "is not a variable's name: it is empty or contains '='"
    return fault_of_text(key, MAX_VARIABLE_NAME_BYTES)


DURATION = quantity(parse_duration_ms, MAX_DURATION_MS, format_duration, "duration", "10s")

_VALUE = text(MAX_WORD_BYTES - MAX_VARIABLE_NAME_BYTES - len("="), empty=True)
_ENV = pairs(_fault_of_variable, _VALUE, MAX_VARIABLES)
_LABELS = pairs(fault_of_name, text(MAX_LABEL_BYTES, empty=True), MAX_LABELS)

_JOB = {
    "name": Field("name", name(), "For people; by default the program's name."),
    "command": Field("command", words(), "The argument vector; no shell is involved."),
    "script": Field("script", text(MAX_SPEC_BYTES), "Text of a script, run by its #! line or /bin/sh."),
    "args": Field("args", words(program=False), "What the script is called with."),
    "env": Field("env", _ENV, "Environment variables."),
    "working_dir": Field("working_dir", _path(), "Where it runs; by default in the attempt's own directory."),
    "input": Field("input", blob(MAX_INPUT_BYTES), "Handed to each task as the file HASCHED_INPUT."),
    "count": Field("count", whole(1, MAX_TASKS), "Number of tasks."),
    "gang": Field("gang", flag(), "All tasks start together or not at all, and end together."),
    "groups": Field("groups", GROUPS, "A gang whose tasks don't all ask for the same."),
    "min_count": Field("min_count", whole(1, MAX_TASKS), "Elastic: so many tasks are enough to start."),
    "max_running": Field("max_running", whole(1, MAX_TASKS, "leave it out for no cap"), "So many at once at most."),
    "resources": Field("resources", RESOURCES, "For each task."),
    "timeout": Field("timeout_ms", DURATION, "Per attempt; 0 for none."),
    "kill_grace": Field("kill_grace_ms", GRACE, "Between TERM and KILL when an attempt is stopped."),
    "retries": Field("retries", _retries(), "Attempts after the first."),
    "restart": Field("restart", choice(RestartPolicy), "Whether there is a second attempt at all."),
    "success_exit_codes": Field("success_exit_codes", exit_codes(), "Exit codes that count as success."),
    "preemption": Field("preemption", PREEMPTION, "How a task is warned before its room is taken back."),
    "on_disconnect": Field("on_disconnect", choice(OnDisconnect), "What a task does when its node is cut off."),
    "labels": Field("labels", _LABELS, "To find the job by."),
    "priority": Field("priority", whole(0, MAX_PRIORITY), "Larger starts first."),
    "priority_class": Field("priority_class", name(), "Gives the priority: low, medium, high, or one of your own."),
    "queue": Field("queue", name(), "Where it waits."),
    "not_before": Field(
        "not_before", _moment("not_before", "leave it out to start at once"), "Nothing starts earlier."
    ),
    "deadline": Field(
        "deadline", _moment("deadline", "leave it out for none"), "What has not ended by then is stopped."
    ),
    "dependency": Field("dependency", DEPENDENCY, "What has to be so before it starts: afterok:12:13,after:14+10m."),
    "on_broken_dependency": Field(
        "on_broken_dependency", choice(OnBrokenDependency), "What becomes of it when that can't be any more."
    ),
    "namespace": Field("namespace", name(), "Whose work it is."),
    "tags": Field("tags", names(MAX_TAGS), "Caps may count by them."),
    "semaphores": Field(
        "semaphores",
        sorted_amounts(fault_of_name, MAX_SEMAPHORES),
        "Units that each running task holds, by the names of caps.",
    ),
    "placement": Field("placement", PLACEMENT, "Where its tasks may run, and where they had better."),
    "notify": Field("notify", NOTIFY, "Which notification policies are told of it."),
}

_UPDATE: dict[str, Field] = {
    "priority": _JOB["priority"],
    "priority_class": _JOB["priority_class"],
    "queue": _JOB["queue"],
    "not_before": Field("not_before", _moment("not_before", "", zero=True), "Nothing starts earlier; 0: at once."),
    "deadline": Field(
        "deadline", _moment("deadline", "", zero=True), "What has not ended by then is stopped; 0: none."
    ),
    "dependency": Field("dependency", NEW_DEPENDENCY, "What has to be so before it starts; empty: nothing."),
}
_UPDATE_KIND = mapping(_UPDATE, "a mapping of what to change")

_ELSEWHERE = {
    **{key: f"it belongs under `resources`: resources.{key}" for key in RESOURCE_FIELDS},
    **{key: f"it belongs under `placement`: placement.{key}" for key in PLACEMENT_FIELDS},
}
JOB_KEYS = tuple(_JOB)
_JOB_KIND = mapping(_JOB, "a mapping of a job's keys", _ELSEWHERE)
_read_job = _JOB_KIND.read
