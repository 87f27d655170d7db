"""Which of the nodes that fit a task gets it: a score for each, the lowest first.

A score is the sum of what the node alone says (`standing`) and what the request says of all nodes that are alike
(`offset`). So among alike nodes the order is the same for every request, and one sorted shelf of them serves all shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from hasched.model.spec import Resources
from hasched.model.states import PlacementPolicy
from hasched.scheduler.slots import Slot

MANY_GPUS = 16  # on one node; more count as so many

Standing: TypeAlias = Callable[[Slot], float]
Offset: TypeAlias = Callable[[Resources, Resources, bool], float]


class Scorer(NamedTuple):
    """`fills`: after a task the same node is still the best for the next of its kind, so many go there at once.

    `offset` takes the total of the alike nodes, the request, and whether those nodes have GPUs free. Of a node that tasks with
    GPUs look for, `gpu_standing` says something else, which holds for all requests.
    """

    standing: Standing
    offset: Offset
    fills: bool
    gpu_standing: Standing | None = None


class Amounts(Protocol):
    """Of a request, or what is free on a node."""

    @property
    def cpu_milli(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def gpus(self) -> int: ...


def free_share(slot: Slot) -> float:
    """The part of the node that is free, over the resources that it has: 0 is full, 1 empty."""
    return share(slot.total, slot)


def share(total: Resources, amounts: Amounts) -> float:
    """The part of an empty node that the amounts are."""
    taken = kinds = 0.0
    if total.cpu_milli:
        taken += amounts.cpu_milli / total.cpu_milli
        kinds += 1
    if total.memory_bytes:
        taken += amounts.memory_bytes / total.memory_bytes
        kinds += 1
    if total.gpus:
        taken += amounts.gpus / total.gpus
        kinds += 1
    return taken / kinds if kinds else 0.0


def _fullest(total: Resources, request: Resources, free_gpus: bool) -> float:
    """Best fit. A task without GPUs takes a node that has any only when no other fits."""
    if request.gpus:
        return 0.0
    return (1.0 if total.gpus else 0.0) - share(total, request)


def _fewest_gpus(slot: Slot) -> float:
    """The nodes with the fewest GPUs, of those the fewest free, so that large nodes stay whole; then the fullest."""
    free, most = slot.gpus, slot.total.gpus
    if most > MANY_GPUS:
        free, most = free * MANY_GPUS // most, MANY_GPUS
    return (most + (free + 0.5 * free_share(slot)) / (MANY_GPUS + 1)) / (MANY_GPUS + 1)


def _emptiest(total: Resources, request: Resources, free_gpus: bool) -> float:
    return share(total, request)


_WEIGHTS = (("cpu_milli", 1.0), ("memory_bytes", 1.0), ("gpus", 4.0), ("disk_bytes", 0.5))


def weighted_share(part: Slot | Resources, total: Resources) -> float:
    """The part of a node that `part` is, over the resources that the node has, each with its weight: a GPU counts most."""
    found = weights = 0.0
    for name, weight in _WEIGHTS:
        if whole := getattr(total, name):
            found += weight * getattr(part, name) / whole
            weights += weight
    return found / weights if weights else 0.0


def _fullest_by_weight(total: Resources, request: Resources, free_gpus: bool) -> float:
    if request.gpus:
        return 0.0
    return (1.0 if total.gpus else 0.0) - weighted_share(request, total)


SCORERS: dict[PlacementPolicy, Scorer] = {
    PlacementPolicy.BIN_PACK: Scorer(free_share, _fullest, fills=True, gpu_standing=_fewest_gpus),
    PlacementPolicy.SPREAD: Scorer(lambda slot: -free_share(slot), _emptiest, fills=False),
    PlacementPolicy.ROUND_ROBIN: Scorer(lambda slot: slot.turn, lambda total, request, free_gpus: 0.0, fills=False),
    PlacementPolicy.WEIGHTED: Scorer(
        lambda slot: weighted_share(slot, slot.total), _fullest_by_weight, fills=True, gpu_standing=_fewest_gpus
    ),
}
