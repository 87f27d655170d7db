"""The keys of policies: for each kind what may stand in its document, where it goes in the body, and how it is written again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from hasched.model import kinds
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
    text,
    whole,
)
from hasched.model.notices import Channel
from hasched.model.notification_text import ADDRESSES, FILE, TOPICS, URL
from hasched.model.parse import DURATION
from hasched.model.policy import (
    Amounts,
    CapSubject,
    Charges,
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


def _word(option: StrEnum) -> str:
    return option.value


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
CHARGES: dict[str, Item] = {
    "cpu": Item("cpu_milli", multiplier(0, MAX_CHARGE), "For a core, in cores.", _thousandths),
    "memory": Item("memory_milli", multiplier(0, MAX_CHARGE), "For a GiB, in cores.", _thousandths),
    "gpu": Item("gpu_milli", multiplier(0, MAX_CHARGE), "For a GPU, in cores.", _thousandths),
}


def _write_charges(charges: Charges) -> dict[str, Any]:
    usual = Charges()
    return {
        key: item.write(value)
        for key, item in CHARGES.items()
        if (value := getattr(charges, item.attribute)) != getattr(usual, item.attribute)
    }


_DESCRIPTION = Item("description", text(MAX_DESCRIPTION_BYTES, empty=True), "For people.")

TABLES: dict[PolicyKind, dict[str, Item]] = {
    PolicyKind.NAMESPACE: {"description": _DESCRIPTION},
    PolicyKind.QUEUE: {
        "description": _DESCRIPTION,
        "priority": Item("priority", whole(-MAX_PRIORITY, MAX_PRIORITY), "Queues with a larger one go first."),
        "weight": Item("weight_milli", multiplier(0, MAX_WEIGHT), "Its share among queues.", _thousandths),
        "max_running": Item("max_running", whole(0, MAX_INTEGER), "So many tasks at once at most; 0: no cap."),
        "state": Item("state", kinds.choice(QueueState), "A closed queue takes no more jobs.", _word),
    },
    PolicyKind.PRIORITY_CLASS: {
        "description": _DESCRIPTION,
        "value": Item("value", whole(0, MAX_PRIORITY), "The priority of its jobs."),
        "preempts": Item("preempts", kinds.choice(Preempts), "Whom its jobs may drive out.", _word),
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
            _built(kinds.mapping(_fields(CHARGES), "a mapping such as {cpu: 1, gpu: 8}"), Charges),
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
        "scope": Item(
            "scope",
            kinds.choice(QuotaScope),
            "Which jobs count: `job`, those of no workflow; `workflow`, those that executions make; `any`, all.",
            _word,
        ),
        "limits": Item("nominal", _AMOUNTS_KIND, "What it has; what is left out is not limited.", write_amounts),
        "borrow": Item(
            "borrow_limit", _AMOUNTS_KIND, "So much more at most, of what others of its parent lend.", write_amounts
        ),
        "lend": Item("lend_limit", _AMOUNTS_KIND, "So much at most of its own others may use.", write_amounts),
    },
    PolicyKind.CAP: {
        "description": _DESCRIPTION,
        "units": Item("units", _COUNT, "So much at once at most."),
        "subject": Item("subject", kinds.choice(CapSubject), "What is counted.", _word),
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
    PolicyKind.GPU_ROOM: {
        "description": _DESCRIPTION,
        "enabled": Item("enabled", kinds.flag(), "Whether anything is kept."),
        "cpu": Item("cpu_milli", CPU, "Cores beside each free GPU.", _thousandths),
        "memory": Item("memory_bytes", SIZE, "Memory beside each free GPU.", format_bytes),
    },
    PolicyKind.NOTIFICATION: {
        "description": _DESCRIPTION,
        "to": Item("to", kinds.choice(Channel), "How it gets there.", _word),
        "events": Item("events", TOPICS, "What is told; if it is left out, what jobs name it for.", list),
        "namespaces": Item("namespaces", _NAME_LIST, "Of whose work; of all if it is left out.", list),
        "url": Item("url", URL, "Where a webhook goes."),
        "url_file": Item("url_file", FILE, "The managers' file with the URL, where that is a secret."),
        "secret_file": Item("secret_file", FILE, "The managers' file with the secret that webhooks are signed with."),
        "recipients": Item("recipients", ADDRESSES, "Who gets the e-mail.", list),
        "retry_after": Item(
            "retry_after_ms", DURATION, "How long after the first attempt the second.", format_duration
        ),
        "retry_at_most": Item("retry_at_most_ms", DURATION, "No wait between attempts is longer.", format_duration),
        "give_up_after": Item(
            "give_up_after_ms", DURATION, "So long after the event there is no further attempt.", format_duration
        ),
    },
}
READERS: dict[PolicyKind, Kind] = {
    kind: kinds.mapping(_fields(table), f"a mapping of the keys of a {kind.value}") for kind, table in TABLES.items()
}
