"""Policies as people write them: a document becomes a policy's body, or every reason why it can't, and a body a document.

`TABLES` has each kind's keys. What `parse_policy` reads, `write_policy` writes, so what a cluster shows can be put again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from hasched.model import kinds
from hasched.model.errors import MalformedBody, PolicyInvalid, SpecInvalid
from hasched.model.ids import is_name
from hasched.model.kinds import (
    Field,
    Kind,
    Problems,
    describe,
    multiplier,
    name,
    names,
    pairs,
    quantity,
    shorten,
    text,
    whole,
)
from hasched.model.parse import DURATION
from hasched.model.policy import (
    MAX_HALF_LIFE_MS,
    MIN_HALF_LIFE_MS,
    TYPES,
    Amounts,
    CapSubject,
    Charges,
    Policy,
    PolicyKind,
    Preempts,
    QueueState,
    QuotaScope,
)
from hasched.model.resource_text import CPU, RESOURCE_FIELDS, RESOURCES, SIZE
from hasched.model.spec import MAX_PRIORITY, Resources
from hasched.model.times import format_time, parse_time_ms
from hasched.model.units import (
    HOUR_MS,
    MAX_INTEGER,
    format_bytes,
    format_duration,
    format_micro,
    parse_micro,
)

MAX_DESCRIPTION_BYTES = 1024
MAX_WEIGHT = 1_000_000
MAX_NAMES = 10_000
MAX_CHARGE = 1000  # cores for one of something


class Item(NamedTuple):
    """A key of a kind: `write` is the inverse of what `kind` reads."""

    attribute: str
    kind: Kind
    about: str
    write: Callable[[Any], Any] = lambda value: value


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
        given = _READERS[known].read(plain, "", problems)
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
        if not isinstance(document.get(key), str):
            problems.note(key, "is missing" if key not in document else f"must be text, not {describe(document[key])}")
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
        schema = _READERS[kind].schema
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


# ── The kinds of values ─────────────────────────────────────────────────────────────────────────────────────────────


def _thousandths(milli: int) -> int | float:
    return milli // 1000 if milli % 1000 == 0 else milli / 1000


def _time() -> Kind:
    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, str):
            problems.note(place, f"must be a time such as 2026-12-24T18:00:00Z, not {describe(value)}")
            return 0
        try:
            return parse_time_ms(value)
        except ValueError as error:
            problems.note(place, str(error))
            return 0

    return Kind(read, {"type": "string", "format": "date-time"})


def _sorted_pairs(key_fault: Callable[[str], str], values: Kind) -> Kind:
    inner = pairs(key_fault, values, MAX_NAMES)

    def read(value: Any, place: str, problems: Problems) -> Any:
        before = len(problems)
        given = inner.read(value, place, problems)
        if len(problems) > before:
            return ()
        return tuple((key, values.read(each, place, problems)) for key, each in sorted(given.items()))

    return Kind(read, inner.schema)


def _built(inner: Kind, make: Callable[..., Any]) -> Kind:
    def read(value: Any, place: str, problems: Problems) -> Any:
        before = len(problems)
        given = inner.read(value, place, problems)
        return make(**given) if len(problems) == before else make()

    return Kind(read, inner.schema)


def _hours() -> Kind:
    hours = whole(0, MAX_INTEGER // HOUR_MS)

    def read(value: Any, place: str, problems: Problems) -> Any:
        before = len(problems)
        hours.read(value, place, problems)
        return value * HOUR_MS if len(problems) == before else 0

    return Kind(read, hours.schema)


def _fault_of_name(key: str) -> str:
    return "" if is_name(key) else f"is not a name: {kinds.NAME_HINT}"


def _fault_of_account(key: str) -> str:
    namespace, slash, user = key.partition("/")
    good = is_name(namespace) and (not slash or 0 < len(user) <= 128)
    return "" if good else "is not an account: write NAMESPACE or NAMESPACE/USER"


def _fault_of_model(key: str) -> str:
    return kinds.fault_of_text(key, 128) if key else "must not be empty"


def write_resources(resources: Resources) -> dict[str, Any]:
    """Resources as a document has them."""
    given = {key: getattr(resources, field.attribute) for key, field in RESOURCE_FIELDS.items()}
    return {key: _write_amount(RESOURCE_FIELDS[key].attribute, value) for key, value in given.items() if value}


def _write_amount(attribute: str, value: Any) -> Any:
    match attribute:
        case "cpu_milli":
            return _thousandths(value)
        case "countables":
            return dict(value)
        case _ if attribute.endswith("_bytes"):
            return format_bytes(value)
        case _:
            return list(value) if isinstance(value, tuple) else value


def _fields(table: Mapping[str, Item]) -> dict[str, Field]:
    return {key: Field(item.attribute, item.kind, item.about) for key, item in table.items()}


_COUNT = whole(0, MAX_INTEGER)
_MONEY = quantity(parse_micro, MAX_INTEGER, format_micro, "price", "0.04")
_NAME_LIST = names(MAX_NAMES)

_AMOUNTS: dict[str, Item] = {
    "cpu": Item("cpu_milli", CPU, "Cores.", _thousandths),
    "memory": Item("memory_bytes", SIZE, "Memory.", format_bytes),
    "gpus": Item("gpus", _COUNT, "GPUs."),
    "disk": Item("disk_bytes", SIZE, "Disk.", format_bytes),
    "countables": Item("countables", _sorted_pairs(_fault_of_name, _COUNT), "Named things, by name.", dict),
    "running_tasks": Item("running_tasks", _COUNT, "Tasks that hold resources."),
    "running_jobs": Item("running_jobs", _COUNT, "Jobs of which a task holds resources."),
    "queued_tasks": Item("queued_tasks", _COUNT, "Tasks that wait."),
    "queued_jobs": Item("queued_jobs", _COUNT, "Jobs of which no task holds resources."),
    "gpu_hours_per_week": Item(
        "gpu_ms_per_week", _hours(), "GPU-hours used in a week from Monday, UTC.", lambda milli: milli // HOUR_MS
    ),
}


def write_amounts(amounts: Amounts) -> dict[str, Any]:
    """Amounts as a document has them; what isn't limited is left out."""
    return {
        key: item.write(value)
        for key, item in _AMOUNTS.items()
        if (value := getattr(amounts, item.attribute)) is not None and value != ()
    }


_AMOUNTS_KIND = _built(kinds.mapping(_fields(_AMOUNTS), "a mapping such as {cpu: 64, gpus: 8}"), Amounts)
_CHARGES: dict[str, Item] = {
    "cpu": Item("cpu_milli", multiplier(0, MAX_CHARGE), "For a core, in cores.", _thousandths),
    "memory": Item("memory_milli", multiplier(0, MAX_CHARGE), "For a GiB, in cores.", _thousandths),
    "gpu": Item("gpu_milli", multiplier(0, MAX_CHARGE), "For a GPU, in cores.", _thousandths),
}


def _write_charges(charges: Charges) -> dict[str, Any]:
    usual = Charges()
    return {
        key: item.write(value)
        for key, item in _CHARGES.items()
        if (value := getattr(charges, item.attribute)) != getattr(usual, item.attribute)
    }


_DESCRIPTION = Item("description", text(MAX_DESCRIPTION_BYTES, empty=True), "For people.")
_VALUE = lambda enum: enum.value  # noqa: E731

TABLES: dict[PolicyKind, dict[str, Item]] = {
    PolicyKind.NAMESPACE: {"description": _DESCRIPTION},
    PolicyKind.QUEUE: {
        "description": _DESCRIPTION,
        "priority": Item("priority", whole(-MAX_PRIORITY, MAX_PRIORITY), "Queues with a larger one go first."),
        "weight": Item("weight_milli", multiplier(0, MAX_WEIGHT), "Its share among queues.", _thousandths),
        "max_running": Item("max_running", whole(0, MAX_INTEGER), "So many tasks at once at most; 0: no cap."),
        "state": Item("state", kinds.choice(QueueState), "A closed queue takes no more jobs.", _VALUE),
    },
    PolicyKind.PRIORITY_CLASS: {
        "description": _DESCRIPTION,
        "value": Item("value", whole(0, MAX_PRIORITY), "The priority of its jobs."),
        "preempts": Item("preempts", kinds.choice(Preempts), "Whom its jobs may drive out.", _VALUE),
    },
    PolicyKind.RESOURCE_CLASS: {
        "description": _DESCRIPTION,
        "resources": Item("resources", _built(RESOURCES, Resources), "What a task of it gets.", write_resources),
    },
    PolicyKind.FAIR_SHARE: {
        "description": _DESCRIPTION,
        "enabled": Item("enabled", kinds.flag(), "Whether it counts at all."),
        "half_life": Item("half_life_ms", DURATION, "After so long usage counts half: 1m to 366d.", format_duration),
        "charge": Item(
            "charge",
            _built(kinds.mapping(_fields(_CHARGES), "a mapping such as {cpu: 1, gpu: 8}"), Charges),
            "What is taken for each.",
            _write_charges,
        ),
        "ageing": Item(
            "ageing_ms",
            DURATION,
            "A job gains a point of priority for each so long that it waits; 0: none.",
            format_duration,
        ),
        "weights": Item(
            "weights",
            _sorted_pairs(_fault_of_account, multiplier(0, MAX_WEIGHT)),
            "Shares of accounts, by NAMESPACE or NAMESPACE/USER.",
            lambda given: {key: _thousandths(milli) for key, milli in given},
        ),
    },
    PolicyKind.QUOTA: {
        "description": _DESCRIPTION,
        "namespace": Item("namespace", name(), "Whose jobs count; all if it is left out."),
        "user": Item("user", name(), "Whose jobs count; those of all users together if it is left out."),
        "each_user": Item("each_user", kinds.flag(), "Count each user by itself."),
        "cohort": Item("cohort", kinds.flag(), "Count nothing but its parts."),
        "parent": Item("parent", name(), "The quota that this one is a part of."),
        "scope": Item("scope", kinds.choice(QuotaScope), "Which jobs count.", _VALUE),
        "limits": Item("nominal", _AMOUNTS_KIND, "What it has; what is left out is not limited.", write_amounts),
        "borrow": Item(
            "borrow_limit", _AMOUNTS_KIND, "So much more at most, of what others of its parent lend.", write_amounts
        ),
        "lend": Item("lend_limit", _AMOUNTS_KIND, "So much at most of its own others may use.", write_amounts),
    },
    PolicyKind.CAP: {
        "description": _DESCRIPTION,
        "units": Item("units", _COUNT, "So much at once at most."),
        "subject": Item("subject", kinds.choice(CapSubject), "What is counted.", _VALUE),
        "match": Item("match", name(), "Which name, user or tag; each by itself if it is left out."),
        "namespace": Item("namespace", name(), "Only jobs of this namespace count."),
    },
    PolicyKind.PRICE: {
        "description": _DESCRIPTION,
        "currency": Item("currency", text(16), "What the prices are in, for people."),
        "cpu": Item("cpu_micro", _MONEY, "A core for an hour.", format_micro),
        "memory": Item("memory_micro", _MONEY, "A GiB for an hour.", format_micro),
        "disk": Item("disk_micro", _MONEY, "A GiB for an hour.", format_micro),
        "gpu": Item("gpu_micro", _MONEY, "A GPU of any other model for an hour.", format_micro),
        "gpu_models": Item(
            "gpu_models",
            _sorted_pairs(_fault_of_model, _MONEY),
            "A GPU of a model for an hour.",
            lambda given: {key: format_micro(micro) for key, micro in given},
        ),
    },
    PolicyKind.RESERVATION: {
        "description": _DESCRIPTION,
        "nodes": Item("nodes", _NAME_LIST, "Which nodes.", list),
        "start": Item("start_ms", _time(), "From when on.", format_time),
        "end": Item("end_ms", _time(), "Until when.", format_time),
        "namespaces": Item("namespaces", _NAME_LIST, "Who may use them; if nobody is named, nobody.", list),
        "users": Item("users", _NAME_LIST, "Who may use them.", list),
    },
}
_READERS: dict[PolicyKind, Kind] = {
    kind: kinds.mapping(_fields(table), f"a mapping of the keys of a {kind.value}") for kind, table in TABLES.items()
}
