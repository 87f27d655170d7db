"""Dependencies between jobs, as people write them: `afterok:12:13,after:14+10m`.

Each condition names one job that was submitted before, or none (`singleton`). A comma means all of them, a question mark
any; the two are not mixed. What each condition means is in docs/jobs.md.
"""

from __future__ import annotations

import re
from typing import Any

from hasched.model.kinds import Kind, Problems, describe, fault_of_text, shorten, suggest
from hasched.model.spec import MAX_CONDITIONS, Condition, Dependency
from hasched.model.states import ConditionKind
from hasched.model.units import MAX_INTEGER, format_duration, parse_duration_ms

MAX_DELAY_MS = 366 * 86_400_000
_MAX_TEXT_BYTES = 8192
_EXAMPLE = "afterok:12:13,after:14+10m"
_KINDS = {kind.value: kind for kind in ConditionKind}
_PATTERN = r"^(singleton|after[a-z]*(:[0-9]+(\+[0-9a-z.]+)?)+)([,?](singleton|after[a-z]*(:[0-9]+(\+[0-9a-z.]+)?)+))*$"


def parse_dependency(text: str) -> Dependency:
    """The conditions in the order in which they stand, each once. Raises ValueError with what is wrong."""
    if "," in text and "?" in text:
        raise ValueError("`,` (all) and `?` (any) can't be mixed")
    any_of = "?" in text
    conditions: dict[Condition, None] = {}
    for part in re.split("[,?]", text):
        conditions.update(dict.fromkeys(_parse_part(part.strip())))
    if len(conditions) > MAX_CONDITIONS:
        raise ValueError(f"has {len(conditions)} conditions, and may have {MAX_CONDITIONS}")
    kinds = [condition.kind for condition in conditions]
    if any_of and ConditionKind.AFTERCORR in kinds and len(kinds) > 1:
        raise ValueError("`aftercorr` can't be one of several by `?`")
    return Dependency(tuple(conditions), any_of and len(conditions) > 1)


def _parse_part(part: str) -> list[Condition]:
    word, colon, rest = part.partition(":")
    kind = _KINDS.get(word)
    if kind is None:
        raise ValueError(f"{describe(word)} is not a condition; known are {', '.join(_KINDS)}")
    if kind is ConditionKind.SINGLETON:
        if colon:
            raise ValueError("`singleton` names no job: it is about all of the same name and user")
        return [Condition(kind)]
    if not colon:
        raise ValueError(f"`{word}` has to name a job: {word}:12")
    return [_parse_job(kind, each) for each in rest.split(":")]


def _parse_job(kind: ConditionKind, text: str) -> Condition:
    number, plus, delay = text.partition("+")
    if not (number.isascii() and number.isdigit() and len(number) <= len(str(MAX_INTEGER))):
        whole = " (a dependency is on whole jobs)" if re.fullmatch(r"[0-9]+[._][0-9]+", number) else ""
        if not number:
            raise ValueError(
                f"`{kind.value}` names no job; write {kind.value}:ID, with the number that `job submit` prints"
            )
        raise ValueError(f"{describe(number)} is not the id of a job{whole}")
    job_id = int(number)
    if not 0 < job_id <= MAX_INTEGER:
        raise ValueError(f"{describe(number)} is not the id of a job")
    if not plus:
        return Condition(kind, job_id)
    if kind is not ConditionKind.AFTER:
        raise ValueError(f"a delay such as +10m goes with `after`, not with `{kind}`")
    if delay.isascii() and delay.isdigit():
        raise ValueError(f"the delay {shorten(delay)} has no unit; write {shorten(delay)}m for minutes")
    delay_ms = parse_duration_ms(delay)
    if delay_ms > MAX_DELAY_MS:
        raise ValueError(f"the delay {shorten(delay)} is longer than {format_duration(MAX_DELAY_MS)}")
    return Condition(kind, job_id, delay_ms)


def format_condition(condition: Condition) -> str:
    """`after:14+10m`"""
    job = f":{condition.job_id}" if condition.job_id else ""
    delay = f"+{format_duration(condition.delay_ms)}" if condition.delay_ms else ""
    return f"{condition.kind}{job}{delay}"


def format_dependency(dependency: Dependency) -> str:
    """A text that `parse_dependency` reads as this."""
    return ("?" if dependency.any_of else ",").join(map(format_condition, dependency.conditions))


def _dependency(*, empty: bool) -> Kind:
    """`empty`: no text is no dependency, as one without conditions."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if empty and value == "":
            return Dependency(())
        if fault := fault_of_text(value, _MAX_TEXT_BYTES):
            problems.note(place, fault, f"write it as {_EXAMPLE}")
            return None
        try:
            return parse_dependency(value)
        except ValueError as error:
            word = re.split("[:,?]", value.strip(), maxsplit=1)[0]
            problems.note(place, str(error), "" if word in _KINDS else suggest(word, _KINDS))
            return None

    pattern = f"{_PATTERN}|^$" if empty else _PATTERN
    return Kind(read, {"type": "string", "pattern": pattern, "examples": [_EXAMPLE]})


DEPENDENCY = _dependency(empty=False)
NEW_DEPENDENCY = _dependency(empty=True)


def check_dependency(given: dict[str, Any], problems: Problems) -> None:
    """Tasks that start together can't wait for one task each."""
    dependency = given.get("dependency")
    if problems or dependency is None:
        return
    if any(each.kind is ConditionKind.AFTERCORR for each in dependency.conditions) and (
        given.get("gang") or given.get("min_count")
    ):
        together = "gang" if given.get("gang") else "min_count"
        problems.note("dependency", f"`aftercorr` and `{together}` exclude each other", "wait for all of it by afterok")
