"""Shelves: alike nodes in the order in which they are given work, to be searched for the first that has room.

A shelf is a sorted list, cut into blocks. Each block knows the most that one of its nodes has free of each resource, so a
search passes a block of nodes that are too full with one look.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable, Iterator
from typing import TypeAlias

from hasched.model.spec import Resources
from hasched.scheduler.slots import Slot

ANY = -(2**62)
BLOCK = 48  # nodes in a block at most, before it is cut in two

Values: TypeAlias = tuple[str | None, ...]  # of some labels
Place: TypeAlias = tuple[float, int, Slot]  # standing, order; the order is the slot's own, so two slots never compare
BEGINNING: tuple[float, int] = (float("-inf"), 0)  # before every place, and
END: tuple[float, int] = (float("inf"), 0)  # behind every place


class _Block:
    __slots__ = ("cpu_milli", "exact", "for_gpus", "gpus", "memory_bytes", "places")

    def __init__(self, places: list[Place], for_gpus: bool) -> None:
        self.places = places
        self.for_gpus = for_gpus
        self.measure()

    def measure(self) -> None:
        """Note the most that is free, or spare. Until this is done again, it is at least that."""
        if self.for_gpus:
            self.cpu_milli = max([slot.cpu_milli for _, _, slot in self.places])
            self.memory_bytes = max([slot.memory_bytes for _, _, slot in self.places])
            self.gpus = max([slot.gpus for _, _, slot in self.places])
        else:
            self.cpu_milli = max([slot.spare_cpu_milli for _, _, slot in self.places])
            self.memory_bytes = max([slot.spare_memory_bytes for _, _, slot in self.places])
            self.gpus = 0
        self.exact = True

    def widen(self, slot: Slot) -> None:
        if self.for_gpus:
            self.cpu_milli = max(self.cpu_milli, slot.cpu_milli)
            self.memory_bytes = max(self.memory_bytes, slot.memory_bytes)
            self.gpus = max(self.gpus, slot.gpus)
        else:
            self.cpu_milli = max(self.cpu_milli, slot.spare_cpu_milli)
            self.memory_bytes = max(self.memory_bytes, slot.spare_memory_bytes)


class Shelf:
    """`total` is that of the first node on it: the others have about as much in all (`candidates.likeness`).

    It is searched for tasks with GPUs, or for those without, which get what is spare. From `closes_ms` on its nodes belong to
    others. `values` are those of the labels that whoever asks goes by; shelves of one `kind` differ in them alone.
    """

    __slots__ = ("_blocks", "_for_gpus", "_lasts", "closes_ms", "free_gpus", "kind", "preference", "total", "values")

    def __init__(
        self,
        total: Resources,
        preference: float,
        *,
        for_gpus: bool,
        free_gpus: bool,
        closes_ms: int,
        values: Values = (),
        kind: Hashable = None,
    ) -> None:
        self.total = total
        self._for_gpus = for_gpus
        self.free_gpus = free_gpus
        self.preference = preference
        self.closes_ms = closes_ms
        self.values = values
        self.kind = kind
        self._blocks: list[_Block] = []
        self._lasts: list[Place] = []  # of each block

    @property
    def empty(self) -> bool:
        return not self._blocks

    @property
    def first(self) -> Place:
        """The place before all others, if it isn't empty."""
        return self._blocks[0].places[0]

    def add(self, place: Place) -> None:
        lasts, blocks = self._lasts, self._blocks
        if not blocks:
            blocks.append(_Block([place], self._for_gpus))
            lasts.append(place)
            return
        at = min(bisect_left(lasts, place), len(lasts) - 1)
        block = blocks[at]
        places = block.places
        insort(places, place)
        block.widen(place[2])
        lasts[at] = places[-1]
        if len(places) > BLOCK:
            half = len(places) // 2
            blocks[at : at + 1] = [_Block(places[:half], self._for_gpus), _Block(places[half:], self._for_gpus)]
            lasts[at : at + 1] = [places[half - 1], places[-1]]

    def remove(self, place: Place) -> None:
        """Take away what was put there as this very place."""
        at = bisect_left(self._lasts, place)
        block = self._blocks[at]
        places = block.places
        del places[bisect_left(places, place)]
        if places:
            block.exact = False
            self._lasts[at] = places[-1]
        else:
            del self._blocks[at], self._lasts[at]

    def find(self, request: Resources, after: tuple[float, int] | Place) -> tuple[Place | None, int]:
        """The first place behind `after` that has room, and how many nodes and blocks were looked at."""
        # Of what isn't asked for a node may have less than nothing: its inventory has shrunk below what runs.
        cpu_milli, memory_bytes, gpus = request.cpu_milli or ANY, request.memory_bytes or ANY, request.gpus or ANY
        blocks, for_gpus = self._blocks, self._for_gpus
        first = at = bisect_right(self._lasts, after)
        looks = 0
        for at in range(first, len(blocks)):
            block = blocks[at]
            looks += 1
            if block.cpu_milli < cpu_milli or block.memory_bytes < memory_bytes or block.gpus < gpus:
                continue
            places = block.places
            begin = bisect_right(places, after) if at == first else 0
            some = places[begin:] if begin else places
            if for_gpus:
                for place in some:
                    slot = place[2]
                    looks += 1
                    if (
                        slot.gpus >= gpus
                        and slot.cpu_milli >= cpu_milli
                        and slot.memory_bytes >= memory_bytes
                        and slot.room(request, 1)
                    ):
                        return place, looks
            else:
                for place in some:
                    slot = place[2]
                    looks += 1
                    if (
                        slot.spare_cpu_milli >= cpu_milli
                        and slot.spare_memory_bytes >= memory_bytes
                        and slot.room(request, 1)
                    ):
                        return place, looks
            if not block.exact:
                block.measure()
        return None, looks

    def ends(self, most: int) -> list[Place]:
        """Some from either end: the fullest and the emptiest, whichever is where."""
        if not self._blocks:
            return []
        first, last = self._blocks[0].places, self._blocks[-1].places
        if first is last and len(first) <= 2 * most:
            return first[:]
        return [*first[:most], *last[-most:]]

    def slots(self) -> Iterator[Slot]:
        """All of them, as they stood at the first look."""
        return iter([slot for block in self._blocks for _, _, slot in block.places])

    def __len__(self) -> int:
        return sum(len(block.places) for block in self._blocks)
