"""Evictions: a search over all nodes for those who give their room to the tasks of one shape, as many as may start now.

Node by node it is found out what room for one task costs there (`preemption.py`); then the cheapest is taken, and again, until
there is enough. Both go on from slice to slice, so that however large the cluster is no slice is long, and everybody who has
to go is told within one pass. Later only nodes that have changed are looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple, TypeAlias

from hasched.model.ids import NodeId
from hasched.model.wire import AttemptKey
from hasched.scheduler.holds import Hold, Holds
from hasched.scheduler.preemption import NOTHING, Cost, Ousting
from hasched.scheduler.slots import Changes, Slot

MOST_ROOMS = 256  # tasks of a shape for which room is being made at a time
LOOKS_A_SLICE = 768  # at nodes, and attempts on them
TASKS_A_SLICE = 16  # for which room is made at once, and
TRIES_A_SLICE = 48  # nodes that are tried for that
CHANGED_AT_ONCE = 64  # nodes looked at again, the latest, when something has grown
LOOKS_A_UNIT = 8

_Offer: TypeAlias = tuple[Cost, int, int, Slot]  # the order of the node, and a number that no other offer has


class Chosen(NamedTuple):
    """What a slice has come to: who has to go, and the holds that are made so. Nobody goes where room comes by itself."""

    attempts: tuple[AttemptKey, ...]
    holds: tuple[Hold, ...]


class Sieve(NamedTuple):
    """Whether a node may be held for the shape, or is; and whether what runs elsewhere lets a task of it start there now."""

    serves: Callable[[Slot], bool]
    permits: Callable[[Slot], bool]


class Eviction:
    def __init__(self, priority: int, slots: dict[NodeId, Slot], changes: Changes) -> None:
        self.priority = priority  # of whom it is for: with another, others could be driven out
        self.looks = 0  # since somebody last set it to 0
        self._slots = slots
        self._changes = changes
        self._version = changes.version
        self._missing = list(slots.values())
        self._missing.reverse()
        self._offers: list[_Offer] = []
        self._excluded: list[_Offer] = []  # by what runs elsewhere
        self._made = 0  # offers

    @property
    def searching(self) -> bool:
        """Whether there is anybody left to look at."""
        return bool(self._missing or self._offers)

    def stir(self) -> None:
        """Something has grown: look at the nodes that have changed, at some of the latest if there are many."""
        if not self._missing:
            self._missing = list(islice(self._changes.since(self._version), CHANGED_AT_ONCE))
            self._version = self._changes.version

    def permit(self) -> None:
        """What runs elsewhere has changed."""
        self._offers += self._excluded
        heapq.heapify(self._offers)
        self._excluded.clear()

    def go_on(self, ousting: Ousting, hold: Hold, holds: Holds, sieve: Sieve, wanted: int) -> Chosen | None:
        """One slice of it; nobody is chosen while there are nodes that have not been looked at."""
        request = hold.shape.requests[hold.choice]
        first = self.looks
        while self._missing and self.looks - first < LOOKS_A_SLICE:
            slot = self._missing.pop()
            self.looks += 1
            if sieve.serves(slot):
                self.looks += len(slot.node.attempts)
                victims = ousting.on(slot, ((request, holds.made(slot, hold.shape) + 1),))
                if victims is not None:
                    self._offer(victims.cost, slot)
        if self._missing:
            return None
        attempts: list[AttemptKey] = []
        served: dict[Hold, None] = {}
        tasks = tries = 0
        while self._offers and tasks < min(wanted, TASKS_A_SLICE) and tries < TRIES_A_SLICE:
            tries += 1
            offer = heapq.heappop(self._offers)
            slot = offer[3]
            if not sieve.serves(slot):
                continue
            if not sieve.permits(slot):
                self._excluded.append(offer)
                continue
            self.looks += 1 + len(slot.node.attempts)
            victims = ousting.on(slot, ((request, holds.made(slot, hold.shape) + 1),))
            if victims is None:
                continue
            if self._offers and (victims.cost, slot.order) > self._offers[0][:2]:
                self._offer(victims.cost, slot)  # it has become dearer
                continue
            attempts += ousting.name(victims)
            others = ousting.take(victims)
            served[holds.make(hold, slot)] = None
            tasks += 1
            for node_id in (slot.node_id, *others[:TRIES_A_SLICE]):
                if (more := self._slots.get(node_id)) is not None:
                    self._offer(NOTHING, more)  # it may cost as little; that is found out when its turn comes
        return Chosen(tuple(attempts), tuple(served))

    def _offer(self, cost: Cost, slot: Slot) -> None:
        self._made += 1
        heapq.heappush(self._offers, (cost, slot.order, self._made, slot))
