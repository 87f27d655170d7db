"""The resources that a task asks for, one by one: how each is told, and what stands for it in a job's document."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import msgspec

from hasched.model.reasons import ReasonCode
from hasched.model.spec import Resources
from hasched.model.units import format_bytes, format_cpu
from hasched.model.words import tell_cpu, tell_disk, tell_gpus, tell_memory
from hasched.scheduler.explain.marks import CPU, DISK, FIRST_COUNTABLE, GPUS, MEMORY
from hasched.statemachine.node import Node

MIB = 2**20
TENTH = 100  # of a core


class Amount(NamedTuple):
    """A resource that a request names. `free` of a node may be negative."""

    bit: int
    code: ReasonCode
    name: str  # its key below `resources`, or a countable's name
    asked: int
    free: Callable[[Node], int]
    write: Callable[[int], Any]  # as in a document
    tell: Callable[[int], str]
    step: int = 1  # people would round an amount down to a multiple of it
    kind: str = ""  # of GPUs, the picky ones

    @property
    def column(self) -> str:
        """Under which name what is free of it can be kept."""
        return f"{self.name} {self.kind}" if self.kind else self.name

    def rounded(self, amount: int) -> int:
        return amount - amount % self.step if amount >= self.step else amount


def amounts_of(request: Resources) -> Iterator[Amount]:
    """All that a request names, countables last."""
    if request.cpu_milli:
        yield Amount(CPU, ReasonCode.INSUFFICIENT_CPU, "cpu", request.cpu_milli, _free_cpu, format_cpu, tell_cpu, TENTH)
    if request.memory_bytes:
        asked = request.memory_bytes
        yield Amount(
            MEMORY, ReasonCode.INSUFFICIENT_MEMORY, "memory", asked, _free_memory, format_bytes, tell_memory, MIB
        )
    if request.disk_bytes:
        yield Amount(
            DISK, ReasonCode.INSUFFICIENT_DISK, "disk", request.disk_bytes, _free_disk, format_bytes, tell_disk, MIB
        )
    if request.gpus:
        yield Amount(
            GPUS,
            ReasonCode.INSUFFICIENT_GPUS,
            "gpus",
            request.gpus,
            partial(_free_gpus, msgspec.structs.replace(request, gpus=1)),
            lambda amount: amount,
            tell_gpus,
            kind="picked" if request.picks_gpus else "",
        )
    for number, (name, asked) in enumerate(request.countables, FIRST_COUNTABLE):
        yield _countable(1 << number, name, asked)


def _countable(bit: int, name: str, asked: int) -> Amount:
    return Amount(
        bit,
        ReasonCode.INSUFFICIENT_COUNTABLE,
        name,
        asked,
        lambda node: dict(node.info.resources.countables).get(name, 0) - node.allocated_countables.get(name, 0),
        lambda amount: amount,
        lambda amount: f"{amount} {name}",
    )


def lower(request: Resources, amount: Amount, to: int) -> Resources:
    """The request with less of one resource."""
    if amount.code is ReasonCode.INSUFFICIENT_COUNTABLE:
        countables = tuple((name, to if name == amount.name else asked) for name, asked in request.countables)
        return msgspec.structs.replace(request, countables=countables)
    return msgspec.structs.replace(request, **{_FIELDS[amount.bit]: to})


_FIELDS = {CPU: "cpu_milli", MEMORY: "memory_bytes", DISK: "disk_bytes", GPUS: "gpus"}


def _free_cpu(node: Node) -> int:
    return node.info.resources.cpu_milli - node.allocated_cpu_milli


def _free_memory(node: Node) -> int:
    return node.info.resources.memory_bytes - node.allocated_memory_bytes


def _free_disk(node: Node) -> int:
    return node.info.resources.disk_bytes - node.allocated_disk_bytes


def _free_gpus(one: Resources, node: Node) -> int:
    """Of the kind that a request for one would get, which is the kind that one for more would get if there are enough."""
    return node.free_gpus(one)
