"""Capacity: what nodes have in all, whatever runs there now, and how it is said that none of them could ever hold a task.

The words become reasons of executions, so they are part of what a log means: others need a version of entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from hasched.model.spec import Resources
from hasched.model.words import short_bytes, tell_resources
from hasched.statemachine.node import Node


def room_when_empty(node: Node, request: Resources, most: int) -> int:
    """As `room_for` of a node on which nothing runs, without a copy where there is nothing special."""
    total = node.info.resources
    if total.cpu_milli < request.cpu_milli or total.memory_bytes < request.memory_bytes or total.gpus < request.gpus:
        return 0
    if request.disk_bytes or request.countables or request.picks_gpus:
        return emptied(node).room_for(request, most)
    if request.cpu_milli:
        most = min(most, total.cpu_milli // request.cpu_milli)
    if request.memory_bytes:
        most = min(most, total.memory_bytes // request.memory_bytes)
    if request.gpus:
        if len(node.facts.gpus) > 1:
            return emptied(node).room_for(request, most)
        most = min(most, total.gpus // request.gpus)
    return most


def emptied(node: Node) -> Node:
    """The node as it is when nothing runs there."""
    return msgspec.structs.replace(
        node,
        allocated_cpu_milli=0,
        allocated_memory_bytes=0,
        allocated_gpus=0,
        allocated_disk_bytes=0,
        allocated_countables={},
        allocated_gpu_kinds={},
    )


def tell_request(request: Resources) -> str:
    return tell_resources(request) or "room for one more task"


def tell_most(request: Resources, nodes: Sequence[Node]) -> str:
    """The most that one node has of each thing asked for; no single node need have them all."""
    totals = [node.total for node in nodes]
    offered = [dict(total.countables) for total in totals]
    most = Resources(
        cpu_milli=max(total.cpu_milli for total in totals) if request.cpu_milli else 0,
        memory_bytes=max(total.memory_bytes for total in totals) if request.memory_bytes else 0,
        gpus=max(map(partial(_gpus_of, request), nodes)) if request.gpus else 0,
        disk_bytes=max(total.disk_bytes for total in totals) if request.disk_bytes else 0,
        countables=tuple((name, max(each.get(name, 0) for each in offered)) for name, _ in request.countables),
    )
    return f"the most of each on one node is {tell_resources(most, size=short_bytes, zeros_of=request)}"


def _gpus_of(request: Resources, node: Node) -> int:
    """How many GPUs that are alike, and as the request wants them, the node has in all."""
    kinds = node.facts.gpus
    if len(kinds) < 2 and not request.picks_gpus:
        return node.total.gpus
    one = msgspec.structs.replace(request, gpus=1)
    return max((kind.number for kind in kinds if kind.suits(one)), default=0)
