"""Tasks that start together, and how they are warned, as people write it: `gang`, `groups`, `min_count`, `preemption`."""

from __future__ import annotations

from typing import Any

from hasched.model.kinds import Field, Kind, Problems, choice, describe, mapping, name, quantity, whole
from hasched.model.resource_text import RESOURCES, fill_request
from hasched.model.spec import MAX_GANG, MAX_TASKS, Preemption, Resources, TaskGroup
from hasched.model.states import WarningSignal
from hasched.model.units import format_duration, parse_duration_ms

MAX_GROUPS = 32
MAX_GRACE_MS = 3_600_000

GRACE = quantity(parse_duration_ms, MAX_GRACE_MS, format_duration, "duration", "10s")


def fill_gang(given: dict[str, Any], defaults: Resources, problems: Problems) -> None:
    """What holds between the keys of a job whose tasks start together. Groups make a gang, and say how many tasks it has."""
    groups = given.pop("groups", ())
    if groups:
        _fill_groups(given, groups, defaults, problems)
    count = given.get("count", 1)
    if given.get("min_count", 0) > count:
        problems.note("min_count", f"is larger than `count`, {count}", "it is the smallest size that will do")
    if not given.get("gang"):
        if given.get("min_count", 0) > given.get("max_running", MAX_TASKS):
            problems.note("min_count", "is larger than `max_running`", "so many could never run at once")
        return
    if "max_running" in given:
        problems.note("max_running", "and `gang` exclude each other", "all tasks of a gang run at once")
    if "placement" in given and given["placement"].any_of:
        problems.note("placement.any_of", "and `gang` exclude each other", "give what each task needs in `resources`")
    if count > MAX_GANG:
        problems.note("count", f"is too large for a gang, which has at most {MAX_GANG} tasks")


def _fill_groups(given: dict[str, Any], groups: list[dict[str, Any]], defaults: Resources, problems: Problems) -> None:
    if given.get("gang") is False:
        problems.note("gang", "is false, and `groups` make a gang", "leave one of them out")
    if "min_count" in given:
        problems.note("min_count", "and `groups` exclude each other", "a gang with groups has one size")
    if "placement" in given and given["placement"].resource_class:
        problems.note("placement.resource_class", "and `groups` exclude each other", "give each group its `resources`")
    names = [group["name"] for group in groups]
    for place, each in enumerate(names):
        if each in names[:place]:
            problems.note(f"groups[{place}].name", f"{describe(each)} is another group's too")
    count = sum(group["count"] for group in groups)
    if given.setdefault("count", count) != count:
        problems.note("count", f"is {given['count']}, and the groups have {count} tasks", "leave it out")
    given["gang"] = True
    given["groups"] = tuple(
        TaskGroup(
            group["name"],
            group["count"],
            fill_request(
                given.get("resources", defaults), group.get("resources", {}), f"groups[{place}].resources", problems
            ),
        )
        for place, group in enumerate(groups)
    )


def _groups() -> Kind:
    group = mapping(
        {
            "name": Field("name", name(), "For people and the tasks: HASCHED_GROUP."),
            "count": Field("count", whole(1, MAX_GANG), "Number of its tasks; 1 by default."),
            "resources": Field("resources", RESOURCES, "For each of its tasks; by default the job's."),
        },
        "a mapping of name, count and resources",
    )

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_GROUPS:
            problems.note(place, f"must be a list of 1 to {MAX_GROUPS} groups", "{name: worker, count: 8}")
            return []
        before = len(problems)
        given = [group.read(each, f"{place}[{number}]", problems) for number, each in enumerate(value)]
        if len(problems) > before:
            return []
        for number, each in enumerate(given):
            each.setdefault("count", 1)
            if "name" not in each:
                problems.note(f"{place}[{number}].name", "is missing", "each group has a name")
                each["name"] = str(number)
        return given

    schema = {"type": "array", "minItems": 1, "maxItems": MAX_GROUPS, "items": {**group.schema, "required": ["name"]}}
    return Kind(read, schema)


def _preemption() -> Kind:
    """How a task is told, as a `Preemption`."""
    warning = mapping(
        {
            "signal": Field("signal", choice(WarningSignal), "Sent at once, so that the task can make ready."),
            "warning": Field("warning_ms", GRACE, "Between the signal and TERM."),
        },
        "a mapping of signal and warning",
    )

    def read(value: Any, place: str, problems: Problems) -> Any:
        before = len(problems)
        given = warning.read(value, place, problems)
        if len(problems) == before and "signal" in given and not given.get("warning_ms"):
            problems.note(place, "has a `signal` without a `warning`", "say how long the task has from it until TERM")
        return Preemption() if len(problems) > before else Preemption(**given)

    return Kind(read, warning.schema)


GROUPS = _groups()
PREEMPTION = _preemption()
