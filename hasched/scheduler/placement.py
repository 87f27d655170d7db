"""Which of the nodes that fit a task gets it: a score for each, the lowest first."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from hasched.model.spec import Resources
from hasched.model.states import PlacementPolicy
from hasched.scheduler.slots import Slot

Score: TypeAlias = Callable[[Slot, Resources], float]


class Scorer(NamedTuple):
    """`fills`: after a task the same node is still the best for the next of its kind, so many go there at once."""

    score: Score
    fills: bool


def free_share(slot: Slot, request: Resources) -> float:
    """The part of the node that would be left, over the resources that it has: 0 is full, 1 empty."""
    total = slot.total
    left = kinds = 0.0
    if total.cpu_milli:
        left += (slot.cpu_milli - request.cpu_milli) / total.cpu_milli
        kinds += 1
    if total.memory_bytes:
        left += (slot.memory_bytes - request.memory_bytes) / total.memory_bytes
        kinds += 1
    if total.gpus:
        left += (slot.gpus - request.gpus) / total.gpus
        kinds += 1
    return left / kinds if kinds else 0.0


def _fullest(slot: Slot, request: Resources) -> float:
    """Best fit. A task without GPUs takes a node that has some free only when no other fits."""
    spared = 1.0 if slot.gpus > 0 and not request.gpus else 0.0
    return spared + free_share(slot, request)


def _emptiest(slot: Slot, request: Resources) -> float:
    return -free_share(slot, request)


def _longest_waiting(slot: Slot, request: Resources) -> float:
    return slot.turn


SCORERS: dict[PlacementPolicy, Scorer] = {
    PlacementPolicy.BIN_PACK: Scorer(_fullest, fills=True),
    PlacementPolicy.SPREAD: Scorer(_emptiest, fills=False),
    PlacementPolicy.ROUND_ROBIN: Scorer(_longest_waiting, fills=False),
}
