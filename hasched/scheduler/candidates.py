"""Candidates: the nodes that a task fits, best first, found anew only where something has changed.

Three layers, each brought up to date from the slots that changed since it was last looked at (`slots.Changes`):

- A `View` belongs to one set of placement rules. It holds the nodes that meet them on shelves of alike ones, in the order
  of the policy. Shapes with the same rules share it, whatever they ask for.
- A `Cursor` belongs to one shape. Up to a mark on each shelf it has looked: what has room there is in its heap, all else is
  too full. Behind the mark nobody has looked yet, and nobody will before it is needed.
- A changed slot is looked at once by each cursor that is asked again. If too many have changed, the cursor starts from the
  beginning of each shelf, which the blocks of a shelf make cheap: so it never costs more than a search.

So a full cluster on which one task ends costs one look at one node for each shape that waits, and a cluster of 10,000 empty
nodes costs a shape the first node on each shelf (ADR 0015).
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable
from typing import TypeAlias

from hasched.model.spec import Resources
from hasched.scheduler.placement import Scorer
from hasched.scheduler.shapes import Shape
from hasched.scheduler.shelves import BEGINNING, Place, Shelf
from hasched.scheduler.slots import Changes, Slot

MANY_CHANGES = 192  # a cursor that has missed more starts anew
MOST_EARLY = 256  # entries that a cursor keeps beside the heads of the shelves
_BITS = 5  # by which two totals are told apart: machines of one model differ by some kilobytes of memory

_Likeness: TypeAlias = tuple[int, int, int, bool, float]
_Entry: TypeAlias = tuple[float, int, int, Slot, Shelf | None]  # score, order, version; the shelf whose head it is


def _rounded(amount: int) -> int:
    """Its size to some bits of precision."""
    surplus = amount.bit_length() - _BITS
    return amount >> surplus << surplus if surplus > 0 else amount


def likeness(slot: Slot, preference: float) -> _Likeness:
    """Slots with the same one stand on the same shelf."""
    total = slot.total
    return _rounded(total.cpu_milli), _rounded(total.memory_bytes), total.gpus, slot.gpus > 0, preference


class View:
    """The usable nodes that meet one set of placement rules."""

    def __init__(self, shape: Shape, scorer: Scorer, changes: Changes, slots: Iterable[Slot]) -> None:
        self._shape = shape  # any of those that share the rules
        self._scorer = scorer
        self._changes = changes
        self._version = changes.version
        self._missing = list(slots)  # not looked at yet, since the view was made
        self._missing.reverse()
        self.shelves: dict[_Likeness, Shelf] = {}
        self.places: dict[Slot, tuple[Shelf, Place]] = {}
        self._facts: dict[Slot, tuple[object, bool, float]] = {}  # what the rules say of a node, while its facts last

    @property
    def complete(self) -> bool:
        return not self._missing

    def build(self, looks: int) -> int:
        """Take in up to so many nodes that were there before the view. Returns how many."""
        begun = looks
        while looks and self._missing:
            slot = self._missing.pop()
            if slot not in self.places and slot.usable:
                self._put(slot)
            looks -= 1
        return begun - looks

    def catch_up(self) -> int:
        """Put every changed slot where it belongs now. Returns how many there were."""
        version = self._changes.version
        if version == self._version:
            return 0
        looks = 0
        for slot in self._changes.since(self._version):
            looks += 1
            self.drop(slot)
            if slot.usable:
                self._put(slot)
        self._version = version
        return looks

    def drop(self, slot: Slot) -> None:
        known = self.places.pop(slot, None)
        if known is not None:
            shelf, place = known
            shelf.remove(place)

    def forget(self, slot: Slot) -> None:
        """Its node is gone."""
        self.drop(slot)
        self._facts.pop(slot, None)
        if slot in self._missing:
            self._missing.remove(slot)

    def _put(self, slot: Slot) -> None:
        info = slot.node.info
        facts = self._facts.get(slot)
        if facts is None or facts[0] is not info:
            fit = self._shape.static_fit(slot.node)
            facts = self._facts[slot] = (info, fit, self._shape.preference(slot.node) if fit else 0.0)
        _, fit, preference = facts
        if not fit:
            return
        alike = likeness(slot, preference)
        shelf = self.shelves.get(alike)
        if shelf is None:
            shelf = self.shelves[alike] = Shelf(slot.total, slot.gpus > 0, preference)
        place = (self._scorer.standing(slot), slot.order, slot)
        shelf.add(place)
        self.places[slot] = (shelf, place)


class Cursor:
    """One shape's candidates. `looks` counts the nodes and blocks looked at since it was last set to 0."""

    __slots__ = ("_heap", "_marks", "_offsets", "_request", "_scorer", "_version", "looks", "shape", "view")

    def __init__(self, shape: Shape, view: View, scorer: Scorer) -> None:
        self.shape = shape
        self.view = view
        self.looks = 0
        self._request: Resources = shape.resources
        self._scorer = scorer
        self._version = -1
        self._heap: list[_Entry] = []
        self._marks: dict[Shelf, tuple[float, int] | Place] = {}
        self._offsets: dict[Shelf, float] = {}

    def best(self, changes: Changes) -> Slot | None:
        """The node that a task of this shape should go to, None if it has no room anywhere."""
        self.looks += self.view.catch_up()
        if self._version != changes.version:
            self._catch_up(changes)
        if len(self._marks) != len(self.view.shelves):
            for shelf in self.view.shelves.values():
                if shelf not in self._marks:
                    self._open(shelf)
        heap = self._heap
        while heap:
            _, _, version, slot, headed = heap[0]
            if slot.version == version:
                return slot
            heapq.heappop(heap)
            if headed is not None:
                self._advance(headed)
        return None

    def _catch_up(self, changes: Changes) -> None:
        """Look at what has changed; of it, what stands before the marks would be missed otherwise."""
        request, marks, offsets, places = self._request, self._marks, self._offsets, self.view.places
        anew = self._version < 0 or len(self._heap) > MOST_EARLY + len(marks)
        looks = 0
        if not anew:
            for slot in changes.since(self._version):
                looks += 1
                if looks > MANY_CHANGES:
                    anew = True
                    break
                if not slot.room(request, 1):
                    continue
                known = places.get(slot)
                if known is None:
                    continue
                shelf, place = known
                mark = marks.get(shelf)
                if mark is not None and place <= mark:
                    heapq.heappush(self._heap, (place[0] + offsets[shelf], slot.order, slot.version, slot, None))
        self._version = changes.version
        self.looks += looks
        if anew:
            self._heap.clear()
            self._marks.clear()

    def _open(self, shelf: Shelf) -> None:
        """Begin to look at a shelf."""
        if shelf not in self._offsets:
            self._offsets[shelf] = self._scorer.offset(shelf.total, self._request, shelf.free_gpus) + shelf.preference
        self._marks[shelf] = BEGINNING
        self._advance(shelf)

    def _advance(self, shelf: Shelf) -> None:
        """Go on to the next node on the shelf that has room."""
        place: Place | None = None
        if shelf.free_gpus or not self._request.gpus:
            place, looks = shelf.find(self._request, self._marks[shelf])
            self.looks += looks
        if place is None:
            self._marks[shelf] = (float("inf"), 0)
            return
        self._marks[shelf] = place
        standing, order, slot = place
        heapq.heappush(self._heap, (standing + self._offsets[shelf], order, slot.version, slot, shelf))


class Candidates:
    """Every view and cursor, and the slots that they are about."""

    def __init__(self, scorer: Scorer, changes: Changes, slots: dict[str, Slot]) -> None:
        self._scorer = scorer
        self._changes = changes
        self._slots = slots
        self._views: dict[Hashable, View] = {}
        self._cursors: dict[Shape, Cursor] = {}

    def cursor(self, shape: Shape) -> Cursor:
        cursor = self._cursors.get(shape)
        if cursor is None:
            view = self._views.get(shape.rules)
            if view is None:
                view = View(shape, self._scorer, self._changes, self._slots.values())
                self._views[shape.rules] = view
            cursor = self._cursors[shape] = Cursor(shape, view, self._scorer)
        return cursor

    def forget_shape(self, shape: Shape) -> None:
        """Nothing of it waits. A view goes with its last shape, but for that of no rules."""
        known = self._cursors.pop(shape, None) is not None
        if known and shape.rules is not None and not any(other.rules == shape.rules for other in self._cursors):
            del self._views[shape.rules]

    def forget_slot(self, slot: Slot) -> None:
        for view in self._views.values():
            view.forget(slot)
