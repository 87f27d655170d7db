"""Policies as people write them: a document becomes a policy's body, or every reason why it can't, and a body a document.

`hasched.model.policy_tables` has each kind's keys. What `parse_policy` reads, `write_policy` writes, so what a cluster shows
can be put again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hasched.model import kinds
from hasched.model.errors import MalformedBody, PolicyInvalid, SpecInvalid
from hasched.model.ids import is_name
from hasched.model.kinds import (
    Problems,
    describe,
    name,
    shorten,
)
from hasched.model.notification_text import check_notification
from hasched.model.policy import (
    MAX_HALF_LIFE_MS,
    MIN_HALF_LIFE_MS,
    TYPES,
    CapSubject,
    Policy,
    PolicyKind,
)
from hasched.model.policy_tables import READERS, TABLES
from hasched.model.units import (
    format_duration,
)

_KEYS = {"kind": None, "name": None, **{key: None for table in TABLES.values() for key in table}}


def parse_policy(kind: str, policy_name: str, document: Any) -> tuple[PolicyKind, Policy]:
    """The policy that `document` describes, a mapping or JSON text. Its own `kind` and `name`, if it has any, must be these.

    Raises PolicyInvalid with everything that is wrong, MalformedBody if bytes are not JSON.
    """
    plain = _decode(document) if isinstance(document, bytes) else document
    problems = Problems()
    try:
        known = _kind_named(kind, problems)
        if not is_name(policy_name):
            problems.note("name", f"{describe(policy_name)} is not a name", kinds.NAME_HINT)
        if known is None:
            raise PolicyInvalid(problems)
        if isinstance(plain, dict):
            for key, expected in (("kind", kind), ("name", policy_name)):
                if plain.get(key, expected) != expected:
                    problems.note(key, f"must be {expected} here, not {describe(plain[key])}")
            plain = {key: value for key, value in plain.items() if key not in ("kind", "name")}
        given = READERS[known].read(plain, "", problems)
        for key, item in TABLES[known].items():
            if item.attribute in _required(known) and item.attribute not in given:
                problems.note(key, "is missing")
        if not problems:
            _check(known, given, problems)
    except SpecInvalid as invalid:
        raise PolicyInvalid(invalid.errors) from None
    if problems:
        raise PolicyInvalid(problems)
    return known, TYPES[known](**given)


def name_of(document: Any) -> tuple[str, str]:
    """The kind and the name that a document of a file gives itself. Raises PolicyInvalid."""
    problems = Problems()
    if not isinstance(document, dict):
        problems.note("", f"a policy is a mapping, not {describe(document)}")
        raise PolicyInvalid(problems)
    for key in ("kind", "name"):
        if key not in document:
            slips = [other for other in document if isinstance(other, str) and other not in _KEYS]
            if slip := kinds.nearest(key, slips):
                problems.note(slip, "unknown key", f"did you mean {key!r}?")
            else:
                problems.note(key, "is missing")
        elif not isinstance(document[key], str):
            problems.note(key, f"must be text, not {describe(document[key])}")
    if problems:
        raise PolicyInvalid(problems)
    return document["kind"], document["name"]


def write_policy(body: Policy) -> dict[str, Any]:
    """The document of a body, without what is as it is by default."""
    table = TABLES[next(kind for kind, struct in TYPES.items() if isinstance(body, struct))]
    defaults = {field.name: field.default for field in msgspec.structs.fields(type(body))}
    return {
        key: item.write(value)
        for key, item in table.items()
        if (value := getattr(body, item.attribute)) != defaults[item.attribute]
    }


def policy_schema() -> dict[str, Any]:
    """The documents as JSON Schema (2020-12). It can't say everything: `parse_policy` has the last word."""
    options = []
    for kind in PolicyKind:
        schema = READERS[kind].schema
        required = [key for key, item in TABLES[kind].items() if item.attribute in _required(kind)]
        properties = {"kind": {"const": kind.value}, "name": name().schema, **schema["properties"]}
        options.append({**schema, "title": kind.value, "properties": properties, "required": required})
    return {"anyOf": options}


def _decode(document: bytes) -> Any:
    try:
        return msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBody(f"this is not JSON: {error}", "send a JSON object") from None
    except RecursionError:
        raise MalformedBody("this JSON is nested too deeply to be a policy") from None


def _kind_named(kind: str, problems: Problems) -> PolicyKind | None:
    try:
        return PolicyKind(kind)
    except ValueError:
        known = [each.value for each in PolicyKind]
        hint = kinds.suggest(kind, known) or f"there are: {', '.join(known)}"
        problems.note("kind", f"there is no kind {shorten(kind)!r}", hint)
        return None


def _required(kind: PolicyKind) -> list[str]:
    return [field.name for field in msgspec.structs.fields(TYPES[kind]) if field.required]


def _check(kind: PolicyKind, given: dict[str, Any], problems: Problems) -> None:
    """What one key alone can't show."""
    if kind is PolicyKind.CAP and given.get("match") and given.get("subject", CapSubject.SEMAPHORE) == "semaphore":
        problems.note("match", "means nothing for a semaphore", "jobs take it by its name; or give a `subject`")
    if (
        kind is PolicyKind.FAIR_SHARE
        and not MIN_HALF_LIFE_MS <= given.get("half_life_ms", MIN_HALF_LIFE_MS) <= MAX_HALF_LIFE_MS
    ):
        problems.note(
            "half_life", f"must be from {format_duration(MIN_HALF_LIFE_MS)} to {format_duration(MAX_HALF_LIFE_MS)}"
        )
    if kind is PolicyKind.NOTIFICATION:
        check_notification(given, problems)
    if kind is PolicyKind.RESERVATION:
        if not given["nodes"]:
            problems.note("nodes", "must name a node")
        if given["start_ms"] >= given["end_ms"]:
            problems.note("end", "must be later than `start`")
    if kind is PolicyKind.QUOTA:
        if given.get("user") and given.get("each_user"):
            problems.note("each_user", "and `user` exclude each other", "keep one of them")
        for key, attribute in (("borrow", "borrow_limit"), ("lend", "lend_limit")):
            if attribute in given and given[attribute].gpu_ms_per_week is not None:
                problems.note(f"{key}.gpu_hours_per_week", "can't be lent", "leave it out")
        if given.get("cohort") and (given.get("user") or given.get("each_user")):
            problems.note("cohort", "a cohort is of no user", "set quotas of users as its parts")
        if not given.get("parent"):
            for key, attribute in (("borrow", "borrow_limit"), ("lend", "lend_limit")):
                if attribute in given:
                    problems.note(key, "means nothing without a `parent`", "name the quota whose parts these are")
        elif given.get("each_user"):
            problems.note("each_user", "a quota of each user has no `parent`", "set a quota for each user's name")
