"""A schedule's document becomes what it says, or every reason why it can't. `docs/schedules.md` describes it.

Times may be written as the zone's clock shows them, without an offset: `2026-12-24T18:00`. Where the clock leaves one out,
the moment at which it goes on is meant; where it shows one twice, the first.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import msgspec

from hasched.model.errors import MalformedBody, ScheduleInvalid, SpecInvalid
from hasched.model.ids import is_name
from hasched.model.kinds import (
    Field,
    Kind,
    Problems,
    choice,
    describe,
    mapping,
    name,
    suggest,
    text,
    whole,
)
from hasched.model.parse import DURATION, JobDefaults, parse_spec, spec_schema
from hasched.model.schedule import (
    MAX_CATCH_UP,
    MAX_JITTER_MS,
    MAX_QUEUE,
    Blackout,
    Calendar,
    CatchUp,
    Overlap,
    ScheduleSpec,
    WorkflowTarget,
)
from hasched.model.times import parse_time_ms
from hasched.model.units import format_duration
from hasched.model.workflow import WorkflowSpec
from hasched.model.workflow_keys import workflow_schema
from hasched.model.workflow_text import Library, parse_workflow
from hasched.timetable.cron import DAYS_OF_1970, parse_cron
from hasched.timetable.slots import first_shown
from hasched.timetable.zones import DAY_S, zone_names

MAX_DESCRIPTION_BYTES = 1024
MAX_DATES = 1000
MAX_BLACKOUTS = 100
MIN_EVERY_MS = 1000
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_LOCAL = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d))?)?", re.ASCII)
_OF_DAY = re.compile(r"(\d\d):(\d\d)", re.ASCII)


def parse_schedule(
    document: Any, defaults: JobDefaults | None = None, library: Library | None = None
) -> tuple[str, ScheduleSpec]:
    """The name and the content of the schedule that `document` describes, a mapping or JSON text.

    Without a `library` a workflow that is only named stands as one without tasks: to look at, not to put.
    Raises ScheduleInvalid with everything that is wrong, MalformedBody if bytes are not JSON.
    """
    plain = _decode(document) if isinstance(document, bytes) else document
    problems = Problems()
    try:
        given = _DOCUMENT.read(plain, "", problems)
        if not isinstance(plain, dict):
            raise ScheduleInvalid(problems)
        if "name" not in plain:
            problems.note("name", "is missing")
        _check_rhythm(plain, problems)
        target = _read_target(plain, defaults, library, problems)
        if problems:
            raise ScheduleInvalid(problems)
        spec = _build(given, target, problems)
    except ScheduleInvalid:
        raise
    except SpecInvalid as invalid:
        raise ScheduleInvalid(invalid.errors) from None
    if problems:
        raise ScheduleInvalid(problems)
    return given["name"], spec


def schedule_schema() -> dict[str, Any]:
    """The document as JSON Schema (2020-12). It can't say everything: `parse_schedule` has the last word."""
    schema = {**_DOCUMENT.schema, "required": ["name"]}
    inner = workflow_schema()
    parts = inner.pop("$defs")
    target = {**schema["properties"]["workflow"], "anyOf": [{"type": "string"}, {"$ref": "#/$defs/workflow"}]}
    schema["properties"] = {**schema["properties"], "job": spec_schema(), "workflow": target}
    schema["$defs"] = {**parts, "workflow": inner}
    one_of = [[{"required": [key]} for key in keys] for keys in (("cron", "every", "at"), ("job", "workflow"))]
    return {**schema, "allOf": [{"oneOf": each} for each in one_of]}


def _decode(document: bytes) -> Any:
    try:
        return msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBody(f"this is not JSON: {error}", "send a JSON object") from None
    except RecursionError:
        raise MalformedBody("this JSON is nested too deeply to be a schedule") from None


def _check_rhythm(plain: dict[str, Any], problems: Problems) -> None:
    given = [key for key in ("cron", "every", "at") if key in plain]
    if len(given) != 1:
        cause = "is missing" if not given else f"{' and '.join(f'`{key}`' for key in given)} exclude each other"
        problems.note("cron", cause, "say when by one of `cron`, `every` and `at`")


def _read_target(
    plain: dict[str, Any], defaults: JobDefaults | None, library: Library | None, problems: Problems
) -> dict[str, Any]:
    """The job or the workflow, as the field of a spec."""
    if "workflow" not in plain:
        if "parameters" in plain:
            problems.note("parameters", "are of a workflow", "name one by `workflow`")
        return {"job": _read_job(plain, defaults, problems)}
    if "job" in plain:
        problems.note("workflow", "and `job` exclude each other", "keep one of them")
        return {}
    document = plain["workflow"]
    given = plain.get("parameters", {})
    if not isinstance(given, dict):
        problems.note("parameters", f"must be a mapping, not {describe(given)}")
        return {}
    if isinstance(document, str):
        if library is None:
            return {"workflow": WorkflowTarget(spec=WorkflowSpec(name=document, tasks=()))}
        found = library("workflow", document)
        if found is None:
            hint = "`hasched workflow submit` it first"
            problems.note("workflow", f"there is no workflow template {describe(document)}", hint)
            return {}
        document = found
    try:
        parsed = parse_workflow(document, given=given, library=library, defaults=defaults)
    except SpecInvalid as invalid:
        for error in invalid.errors:
            outside = error.path.startswith("parameters.")
            problems.note(error.path if outside else f"workflow.{error.path}", error.cause, error.hint)
        return {}
    return {"workflow": WorkflowTarget(spec=parsed.spec, params=tuple(parsed.values.items()))}


def _read_job(plain: dict[str, Any], defaults: JobDefaults | None, problems: Problems) -> Any:
    """The job is read as one that is submitted; its mistakes are named by where they stand."""
    job = plain.get("job")
    if not isinstance(job, dict):
        problems.note("job", "is missing" if job is None else f"must be a job, not {describe(job)}", "or a `workflow`")
        return None
    for key in ("not_before", "deadline"):
        if isinstance(job.get(key), str) and re.match(r"\d{4}-", job[key]):
            problems.note(f"job.{key}", "is one time for every run", "say how long after the slot, such as 90m")
    if "name" not in job and isinstance(plain.get("name"), str) and is_name(plain["name"]):
        job = {**job, "name": plain["name"]}
    try:
        return parse_spec(job, defaults)
    except SpecInvalid as invalid:
        for error in invalid.errors:
            problems.note(f"job.{error.path}" if error.path else "job", error.cause, error.hint)
        return None


def _build(given: dict[str, Any], target: dict[str, Any], problems: Problems) -> ScheduleSpec:
    """What depends on the zone can be read only when the zone is known."""
    zone = given.get("timezone", "UTC")
    fields = {key: value for key, value in given.items() if key not in ("name", "job", "workflow", "parameters")}
    for key in ("start_ms", "end_ms"):
        if key in fields:
            fields[key] = _local_ms(fields[key], zone)
    if "at" in fields:
        fields["at"] = tuple(sorted(dict.fromkeys(_local_ms(each, zone) for each in fields["at"])))
    if "blackouts" in fields:
        fields["blackouts"] = tuple(
            _blackout(each, zone, f"blackouts[{number}]", problems) for number, each in enumerate(fields["blackouts"])
        )
    if "calendar" in fields:
        fields["calendar"] = Calendar(**fields["calendar"])
    if fields.get("end_ms") and fields["end_ms"] <= fields.get("start_ms", 0):
        problems.note("end", "is not later than `start`", "no slot could be due")
    return ScheduleSpec(**fields, **target)


def _local_ms(written: str, zone: str) -> int:
    match = _LOCAL.fullmatch(written)
    if match is None:
        return parse_time_ms(written)
    hour, minute, second = (int(part or 0) for part in match.groups()[1:])
    day = date.fromisoformat(match[1]).toordinal() - DAYS_OF_1970
    return first_shown(zone, day * DAY_S + hour * 3600 + minute * 60 + second) * 1000


def _blackout(given: dict[str, Any], zone: str, place: str, problems: Problems) -> Blackout:
    start, end = given.get("start", ""), given.get("end", "")
    of_day = [bool(_OF_DAY.fullmatch(each)) for each in (start, end)]
    if not start or not end or of_day[0] != of_day[1]:
        problems.note(place, "needs `from` and `until`, both times of day or both dates", 'such as from: "22:00"')
        return Blackout()
    if of_day[0]:
        seconds = [int(each[:2]) * 3600 + int(each[3:]) * 60 for each in (start, end)]
        if seconds[0] == seconds[1]:
            problems.note(place, "ends when it begins")
        return Blackout(from_s=seconds[0], until_s=seconds[1], weekdays=given.get("weekdays", ()))
    if "weekdays" in given:
        problems.note(f"{place}.days", "means nothing with dates", "leave it out")
    from_ms, until_ms = (_local_ms(each, zone) for each in (start, end))
    if until_ms <= from_ms:
        problems.note(f"{place}.until", "is not later than `from`")
    return Blackout(from_ms=from_ms, until_ms=until_ms)


# ── The kinds of its values ─────────────────────────────────────────────────────────────────────────────────────────


def _moment(*, of_day: bool = False) -> Kind:
    """A time, kept as it is written until the zone is known."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        example = "2026-12-24T18:00" + (' or "22:00"' if of_day else "")
        if not isinstance(value, str):
            hint = "write it in quotes: YAML takes 22:00 for a number" if of_day and isinstance(value, int) else ""
            problems.note(place, f"must be a time such as {example}, not {describe(value)}", hint)
            return ""
        if of_day and (match := _OF_DAY.fullmatch(value)):
            if int(match[1]) > 24 or int(match[2]) > 59 or (int(match[1]) == 24 and int(match[2])):
                problems.note(place, f"{describe(value)} is not a time of day")
            return value
        try:
            match = _LOCAL.fullmatch(value)
            parse_time_ms(f"{match[1]}T{match[2] or '00'}:{match[3] or '00'}:{match[4] or '00'}Z" if match else value)
        except ValueError as error:
            problems.note(place, str(error), f"such as {example}, as the schedule's time zone has it")
        return value

    return Kind(read, {"type": "string", "examples": ["2026-12-24T18:00", "2026-12-24T18:00:00Z"]})


def _many(inner: Kind, most: int, noun: str, *, or_one: bool = False) -> Kind:
    """A list; with `or_one` a single text as well, for a list of that alone."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if or_one and isinstance(value, str):
            return (inner.read(value, place, problems),)
        if not isinstance(value, list) or not value:
            problems.note(place, f"must be a list of {noun}, not {describe(value)}")
            return ()
        if len(value) > most:
            problems.note(place, f"has {len(value)} entries, and may have {most}")
            return ()
        return tuple(inner.read(each, f"{place}[{number}]", problems) for number, each in enumerate(value))

    schema = {"type": "array", "items": inner.schema, "minItems": 1, "maxItems": most}
    return Kind(read, {"anyOf": [inner.schema, schema]} if or_one else schema)


def _cron() -> Kind:
    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, str):
            problems.note(
                place, f'must be an expression such as "30 2 * * *", not {describe(value)}', "write it in quotes"
            )
            return ""
        try:
            parse_cron(value)
        except ValueError as error:
            problems.note(place, str(error), "minute, hour, day of the month, month, day of the week")
        return value

    return Kind(read, {"type": "string", "examples": ["30 2 * * *"]})


def _zone() -> Kind:
    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, str) or value not in zone_names():
            hint = suggest(value, zone_names()) if isinstance(value, str) else ""
            problems.note(place, f"there is no time zone {describe(value)}", hint or "name it as Europe/Berlin")
            return "UTC"
        return value

    return Kind(read, {"type": "string", "examples": ["Europe/Berlin"]})


def _weekday() -> Kind:
    def read(value: Any, place: str, problems: Problems) -> Any:
        if value not in WEEKDAYS:
            problems.note(place, f"must be one of {', '.join(WEEKDAYS)}, not {describe(value)}")
            return 0
        return WEEKDAYS.index(value)

    return Kind(read, {"enum": list(WEEKDAYS)})


def _date() -> Kind:
    def read(value: Any, place: str, problems: Problems) -> Any:
        try:
            if not isinstance(value, str) or len(value) != 10:
                raise ValueError
            return date.fromisoformat(value).toordinal() - DAYS_OF_1970
        except ValueError:
            problems.note(place, f"must be a date such as 2026-12-25, not {describe(value)}")
            return 0

    return Kind(read, {"type": "string", "format": "date"})


def _span(low_ms: int, high_ms: int) -> Kind:
    """A duration between two."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        before = len(problems)
        duration_ms = DURATION.read(value, place, problems)
        if len(problems) == before and not low_ms <= duration_ms <= high_ms:
            problems.note(place, f"must be from {format_duration(low_ms)} to {format_duration(high_ms)}")
        return duration_ms

    return Kind(read, DURATION.schema)


def _elsewhere(schema: dict[str, Any]) -> Kind:
    """What is read by other means."""
    return Kind(lambda value, place, problems: None, schema)


_YEARS_MS = 10 * 366 * DAY_S * 1000
_DAYS = _many(_weekday(), 7, "days such as [mon, tue]")
_DATES = _many(_date(), MAX_DATES, "dates such as [2026-12-25]")
_CALENDAR = mapping(
    {
        "days": Field("weekdays", _DAYS, "Business days; by default from mon to fri."),
        "closed": Field("closed", _DATES, "Holidays."),
        "open": Field("open", _DATES, "Business days that would be none."),
    },
    "a mapping of days, closed and open",
)
_BLACKOUT = mapping(
    {
        "from": Field("start", _moment(of_day=True), "A time, or a time of day in quotes."),
        "until": Field("end", _moment(of_day=True), "Likewise; it may be on the next day."),
        "days": Field("weekdays", _DAYS, "Only when it begins on these days."),
    },
    "a mapping of from, until and days",
)
_DOCUMENT = mapping(
    {
        "name": Field("name", name(), "What it is called in the cluster."),
        "description": Field("description", text(MAX_DESCRIPTION_BYTES), "For people."),
        "cron": Field("cron", _cron(), "A cron expression of five fields, or six with the second first."),
        "every": Field("every_ms", _span(MIN_EVERY_MS, _YEARS_MS), "A fixed interval, from `start` on."),
        "at": Field("at", _many(_moment(), MAX_DATES, "times", or_one=True), "Each of these times, once."),
        "timezone": Field("timezone", _zone(), "The IANA zone that its times are in; by default UTC."),
        "start": Field("start_ms", _moment(), "No slot before."),
        "end": Field("end_ms", _moment(), "No slot then or later."),
        "jitter": Field("jitter_ms", _span(0, MAX_JITTER_MS), "Each slot is fired so much later at most."),
        "calendar": Field("calendar", _CALENDAR, "Slots on other than business days are skipped."),
        "blackouts": Field("blackouts", _many(_BLACKOUT, MAX_BLACKOUTS, "blackouts"), "Slots within are skipped."),
        "catch_up": Field("catch_up", choice(CatchUp), "What becomes of slots that nobody could fire in time."),
        "catch_up_limit": Field("catch_up_limit", whole(1, MAX_CATCH_UP), "With `all`: so many of them at most."),
        "grace": Field("grace_ms", _span(0, _YEARS_MS), "So late a slot is fired whatever `catch_up` says."),
        "overlap": Field("overlap", choice(Overlap), "What becomes of a slot while an earlier run goes on."),
        "queue_limit": Field("queue_limit", whole(1, MAX_QUEUE), "With `queue`: so many wait at most."),
        "late": Field("late_ms", _span(0, _YEARS_MS), "Alert when a slot is fired so late; 0: never."),
        "missing": Field("missing_ms", _span(0, _YEARS_MS), "Alert when no run has succeeded for so long; 0: never."),
        "job": Field("job", _elsewhere({}), "What each slot submits."),
        "workflow": Field(
            "workflow",
            _elsewhere({}),
            "Or what it executes: a workflow, by its name or whole.",
        ),
        "parameters": Field("parameters", _elsewhere({"type": "object"}), "Of the workflow."),
    },
    "a mapping of a schedule's keys",
)
