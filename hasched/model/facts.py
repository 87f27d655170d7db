"""What is known of a node when one asks whether a job may run there, by the names that constraints use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from hasched.model.spec import DEFAULT_POOL, Resources
from hasched.model.taints import Taint
from hasched.model.wire import GpuDevice

_WORD = re.compile(r"[a-z0-9]+")


class GpuClass(NamedTuple):
    """GPUs of one node that are alike."""

    model: str
    memory_bytes: int
    number: int  # of them

    def suits(self, request: Resources) -> bool:
        """Whether each of them is what the request wants, and there are enough of them in all."""
        return (
            request.gpus <= self.number
            and request.gpu_memory_bytes <= self.memory_bytes
            and (not request.gpu_models or any(is_model(self.model, asked) for asked in request.gpu_models))
        )


class NodeFacts(NamedTuple):
    """`version` changes with every other field, so that verdicts can be kept for as long as it stays."""

    node_id: str
    hostname: str = ""
    pool: str = DEFAULT_POOL
    labels: Mapping[str, str] = {}
    taints: tuple[Taint, ...] = ()
    attributes: Mapping[str, str] = {}
    total: Resources = Resources()
    gpus: tuple[GpuClass, ...] = ()
    most_gpus_on_numa: int = 0  # so many of its GPUs are on one NUMA node,
    most_gpus_linked: int = 0  # and so many are joined by NVLink
    version: int = 0


def sort_gpus(devices: Iterable[GpuDevice], count: int) -> tuple[GpuClass, ...]:
    """The kinds of GPUs that a node offers, the one with the most memory first. `count` may be more than is known of."""
    kinds: dict[tuple[str, int], int] = {}
    for device in devices:
        kind = (device.model, device.memory_bytes)
        kinds[kind] = kinds.get(kind, 0) + 1
    unknown = count - sum(kinds.values())
    if unknown > 0:
        kinds["", 0] = kinds.get(("", 0), 0) + unknown
    ranked = sorted(kinds.items(), key=lambda item: (-item[0][1], item[0][0]))
    return tuple(GpuClass(model, memory, number) for (model, memory), number in ranked)


def most_alike(numbers: Iterable[int]) -> int:
    """How often the most frequent number stands there; -1, which is none, doesn't count."""
    found: dict[int, int] = {}
    for number in numbers:
        if number >= 0:
            found[number] = found.get(number, 0) + 1
    return max(found.values(), default=0)


def gpu_class_of(kinds: tuple[GpuClass, ...], request: Resources) -> int:
    """Which kind of GPUs a task with this request gets on a node: the first that suits; -1 if none does.

    It is the same for each task, whatever runs there, so the managers and the agent need not tell each other.
    """
    for number, kind in enumerate(kinds):
        if kind.suits(request):
            return number
    return -1


@lru_cache(maxsize=4096)
def is_model(model: str, asked: str) -> bool:
    """Whether the words of `asked` stand in `model` in this order: `a100` and `A100-80GB` in `NVIDIA A100-SXM4-80GB`."""
    words = iter(_WORD.findall(model.lower()))
    asked_words = _WORD.findall(asked.lower())
    return bool(asked_words) and all(word in words for word in asked_words)
