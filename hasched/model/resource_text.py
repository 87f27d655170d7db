"""Resources as people write them: what a task asks for, and what amounts look like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from hasched.model.ids import is_name
from hasched.model.kinds import (
    NAME_HINT,
    Field,
    Kind,
    Problems,
    describe,
    fault_of_text,
    mapping,
    pairs,
    quantity,
    whole,
)
from hasched.model.spec import Resources
from hasched.model.units import (
    MAX_INTEGER,
    format_bytes,
    format_cpu,
    parse_bytes,
    parse_cpu_milli,
)

MAX_COUNTABLES = 32
MAX_MODELS = 16
MAX_MODEL_BYTES = 128


def fill_request(base: Resources, given: dict[str, Any], place: str, problems: Problems) -> Resources:
    """`base` with what a document gave in its place."""
    request = msgspec.structs.replace(base, **given) if given else base
    if request.picks_gpus and not request.gpus:
        key = "gpu_model" if request.gpu_models else "gpu_memory"
        problems.note(f"{place}.{key}", "says which GPUs, and no GPU is asked for", "say how many: `gpus: 1`")
    return request


def fault_of_name(key: str) -> str:
    return "" if is_name(key) else f"is not a name: {NAME_HINT}"


def one_or_more(item: Kind, max_items: int, noun: str) -> Kind:
    """One value or a list of them, as a tuple."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, (list, tuple)):
            return (item.read(value, place, problems),)
        if not value:
            problems.note(place, f"must be {noun}, not an empty list", "leave it out instead")
        elif len(value) > max_items:
            problems.note(place, f"has {len(value)} entries, and may have {max_items}")
            return ()
        return tuple(item.read(each, f"{place}[{number}]", problems) for number, each in enumerate(value))

    several = {"type": "array", "items": item.schema, "minItems": 1, "maxItems": max_items}
    return Kind(read, {"anyOf": [item.schema, several]})


def _model() -> Kind:
    """A model of GPUs, or words of its name."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            problems.note(place, f"must be a GPU's model such as A100, not {describe(value)}")
            return ""
        word = str(value)
        if fault := fault_of_text(word, MAX_MODEL_BYTES):
            problems.note(place, fault)
        elif not any(character.isascii() and character.isalnum() for character in word):
            problems.note(place, f"must be a GPU's model such as A100, not {describe(value)}")
        return word

    return Kind(read, {"type": "string", "minLength": 1, "examples": ["A100"]})


def _models() -> Kind:
    several = one_or_more(_model(), MAX_MODELS, "one or more models")

    def read(value: Any, place: str, problems: Problems) -> Any:
        return tuple(sorted(dict.fromkeys(several.read(value, place, problems))))

    return Kind(read, several.schema)


def sorted_amounts(key_fault: Callable[[str], str], most: int) -> Kind:
    """Amounts by name, as sorted pairs."""
    amounts = pairs(key_fault, whole(1, MAX_INTEGER), most)

    def read(value: Any, place: str, problems: Problems) -> Any:
        before = len(problems)
        given = amounts.read(value, place, problems)
        return () if len(problems) > before else tuple(sorted(given.items()))

    return Kind(read, amounts.schema)


def _fault_of_countable(key: str) -> str:
    return "stands beside `countables`, not in it" if key in RESOURCE_FIELDS else fault_of_name(key)


CPU = quantity(parse_cpu_milli, MAX_INTEGER, format_cpu, "number of cores", "500m")
SIZE = quantity(parse_bytes, MAX_INTEGER, format_bytes, "size", "512Mi")

RESOURCE_FIELDS = {
    "cpu": Field("cpu_milli", CPU, "Cores."),
    "memory": Field("memory_bytes", SIZE, "Enforced where it is given; 0 is no limit."),
    "gpus": Field("gpus", whole(0, MAX_INTEGER, "a GPU is not divided"), "Whole GPUs."),
    "gpu_model": Field("gpu_models", _models(), "Which GPUs will do: words of the model's name; one of a list."),
    "gpu_memory": Field("gpu_memory_bytes", SIZE, "The memory that each of the GPUs has at least."),
    "disk": Field("disk_bytes", SIZE, "Of the disk that nodes offer to tasks; accounted for, not enforced."),
    "countables": Field(
        "countables",
        sorted_amounts(_fault_of_countable, MAX_COUNTABLES),
        "Amounts of named things that nodes offer, such as licences.",
    ),
}
RESOURCES = mapping(RESOURCE_FIELDS, "a mapping such as {cpu: 2, memory: 4Gi}")
