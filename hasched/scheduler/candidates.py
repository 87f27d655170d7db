"""Candidates: the nodes that a task fits, best first, found anew only where something has changed.

Three layers, each brought up to date from the slots that changed since it was last looked at (`slots.Changes`):

- A `View` belongs to one set of placement rules. It holds the nodes that meet them on shelves of alike ones, in the order
  of the policy. Shapes with the same rules share it, whatever they ask for.
- A `Cursor` belongs to one request of one shape. Up to a mark on each shelf it has looked: what has room there is in its
  heap, all else is too full. Behind the mark nobody has looked yet, and nobody will before it is needed.
- A changed slot is looked at once by each cursor that is asked again. If too many have changed, the cursor starts from the
  beginning of each shelf, which the blocks of a shelf make cheap: so it never costs more than a search.

So a full cluster on which one task ends costs one look at one node for each shape that waits, and a cluster of 10,000 empty
nodes costs a shape the first node on each shelf (ADR 0015).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeAlias

from hasched.model.spec import Resources
from hasched.scheduler.placement import Scorer
from hasched.scheduler.shapes import NEVER_MS, Shape
from hasched.scheduler.shelves import ANY, BEGINNING, END, Place, Shelf, Values
from hasched.scheduler.slots import Changes, Slot
from hasched.scheduler.windows import Windows

MANY_CHANGES = 192  # a cursor that has missed more starts anew
MOST_EARLY = 256  # entries that a cursor keeps beside the heads of the shelves
BUILD_SLICE = 125  # nodes that a view takes in at once, if it is new or has missed more
VERDICT_LOOKS = 24  # to ask the rules of a view for a node, and shelve it, costs as much as so many looks at nodes
LEAVING_LOOKS = 32  # to see until when a node is to be left costs as much as so many looks at nodes
IDLE_VIEWS = 4  # that are kept though no shape uses them: of many jobs with the same rules one comes after the other
_BITS = 5  # by which two totals are told apart: machines of one model differ by some kilobytes of memory

_Entry: TypeAlias = tuple[float, int, int, Slot, Shelf | None]  # score, order, version; the shelf whose head it is


class _Likeness(NamedTuple):
    """Slots with the same one stand on the same shelf."""

    cpu_milli: int
    memory_bytes: int
    gpus: int
    free_gpus: bool
    preference: float
    closes_ms: int
    places: Values  # of the labels that a relation of the shape names


def _rounded(amount: int) -> int:
    """Its size to some bits of precision."""
    surplus = amount.bit_length() - _BITS
    return amount >> surplus << surplus if surplus > 0 else amount


class View:
    """The usable nodes that meet one set of placement rules, as those see them who may use certain reservations.

    It is for requests with GPUs, and then of the nodes that have any, or for requests without.
    """

    def __init__(self, shape: Shape, for_gpus: bool, scorer: Scorer, changes: Changes, windows: Windows) -> None:
        self._shape = shape  # any of those that share the view
        self.for_gpus = for_gpus
        self.standing = scorer.gpu_standing if for_gpus and scorer.gpu_standing is not None else scorer.standing
        self._changes = changes
        self._windows = windows
        self.places_of = shape.places
        self._version = changes.version
        self._missing: dict[Slot, None] = {}  # not looked at yet, since the view was made or since they changed
        self.shelves: dict[_Likeness, Shelf] = {}
        self.at: dict[Values, list[Shelf]] = {}  # those whose nodes have these values of the labels
        self.places: dict[Slot, tuple[Shelf, Place]] = {}
        self._last: dict[Slot, tuple[object, bool, int, Shelf]] = {}  # on which each stood, and what decided that
        self._facts: dict[Slot, tuple[object, bool, float]] = {}  # what the rules say of a node, while its facts last

    def begin(self, slots: Iterable[Slot]) -> None:
        """These nodes are there before the view."""
        self._missing = dict.fromkeys(reversed([slot for slot in slots if self._concerns(slot)]))

    def _concerns(self, slot: Slot) -> bool:
        """Whether the node is, or was, among those that the view is about."""
        return not self.for_gpus or slot.total.gpus > 0 or slot in self.places

    @property
    def complete(self) -> bool:
        """Whether it can be asked, once it has caught up, which won't take long."""
        return not self._missing and self._changes.version - self._version <= BUILD_SLICE

    def build(self) -> int:
        """Take in some of the nodes that were there before the view, or that it has missed. Returns the looks it took."""
        if self._changes.version != self._version:
            changed = self._changes.since(self._version)
            self._missing.update({slot: None for slot in changed if self._concerns(slot)})
            self._version = self._changes.version
        looks = 0
        while looks < BUILD_SLICE and self._missing:
            slot, _ = self._missing.popitem()
            self.drop(slot)
            self._put(slot)
            looks += 1
        return looks * VERDICT_LOOKS

    def catch_up(self) -> int:
        """Put every changed slot where it belongs now. Returns how many there were."""
        version = self._changes.version
        if version == self._version:
            return 0
        looks = 0
        for slot in self._changes.since(self._version):
            looks += 1
            if self._concerns(slot):
                self.drop(slot)
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
        self._last.pop(slot, None)
        self._facts.pop(slot, None)
        self._missing.pop(slot, None)

    def admits(self, slot: Slot) -> bool:
        """Whether the node meets the rules."""
        return self._judge(slot)[1]

    def preference(self, slot: Slot) -> float:
        return self._judge(slot)[2]

    def _judge(self, slot: Slot) -> tuple[object, bool, float]:
        info = slot.node.info
        facts = self._facts.get(slot)
        if facts is None or facts[0] is not info:
            fit = self._shape.static_fit(slot.node)
            facts = self._facts[slot] = (info, fit, self._shape.preference(slot.node) if fit else 0.0)
        return facts

    def _put(self, slot: Slot) -> None:
        if not slot.usable or slot.held or (self.for_gpus and not slot.total.gpus):
            return
        closes_ms = self._windows.closes_ms(slot.node_id, self._shape.access) if self._windows else NEVER_MS
        info, free_gpus = slot.info, slot.gpus > 0
        last = self._last.get(slot)
        if last is not None and last[0] is info and last[1] is free_gpus and last[2] == closes_ms:
            shelf = last[3]
        else:
            _, fit, preference = self._judge(slot)
            if not fit:
                return
            shelf = self._shelf_for(slot, preference, closes_ms)
            self._last[slot] = info, free_gpus, closes_ms, shelf
        place = (self.standing(slot), slot.order, slot)
        shelf.add(place)
        self.places[slot] = (shelf, place)

    def _shelf_for(self, slot: Slot, preference: float, closes_ms: int) -> Shelf:
        total, free_gpus = slot.total, slot.gpus > 0
        places = tuple(map(slot.node.facts.labels.get, self.places_of)) if self.places_of else ()
        alike = _Likeness(
            _rounded(total.cpu_milli),
            _rounded(total.memory_bytes),
            total.gpus,
            free_gpus,
            preference,
            closes_ms,
            places,
        )
        shelf = self.shelves.get(alike)
        if shelf is None:
            shelf = self.shelves[alike] = Shelf(
                total,
                preference,
                for_gpus=self.for_gpus,
                free_gpus=free_gpus,
                closes_ms=closes_ms,
                values=places,
                kind=alike[:-1],
            )
            self.at.setdefault(places, []).append(shelf)
        return shelf


class Cursor:
    """The candidates for one request of a shape."""

    __slots__ = ("_heap", "_limit_ms", "_marks", "_offsets", "_scorer", "_version", "looks", "request", "view")

    def __init__(self, shape: Shape, request: Resources, view: View, scorer: Scorer) -> None:
        self.view = view
        self.request = request
        self.looks = 0  # at nodes and blocks, since somebody last set it to 0
        self._limit_ms = shape.limit_ms
        self._scorer = scorer
        self._version = -1
        self._heap: list[_Entry] = []
        self._marks: dict[Shelf, tuple[float, int] | Place] = {}
        self._offsets: dict[Shelf, float] = {}

    @property
    def ready(self) -> bool:
        """Whether it can be asked; until then `prepare` goes on with what it needs."""
        return self.view.complete

    def prepare(self) -> int:
        """Returns the looks it took."""
        return self.view.build()

    def release(self) -> None:
        """Nobody asks it any more."""

    def best(self, changes: Changes, now_ms: int) -> Slot | None:
        """The node that a task with this request should go to, None if it has no room anywhere."""
        self.looks += self.view.catch_up()
        if self._version != changes.version:
            self._catch_up(changes)
        if len(self._marks) != len(self.view.shelves):
            for shelf in self.view.shelves.values():
                if shelf not in self._marks:
                    self._open(shelf)
        heap, ends_ms = self._heap, now_ms + self._limit_ms
        while heap:
            _, _, version, slot, headed = heap[0]
            if slot.version == version:
                shelf, _ = self.view.places[slot]
                if shelf.closes_ms >= NEVER_MS or ends_ms <= shelf.closes_ms:
                    return slot
                self._marks[shelf] = END  # too late for all of it, and time only goes on
                headed = None
            heapq.heappop(heap)
            self.looks += 1
            if headed is not None:
                self._advance(headed)
        return None

    def best_leaving(self, changes: Changes, now_ms: int, left: Callable[[Slot], int]) -> Slot | None:
        """The same, leaving nodes to others: so many as `left` says of one, that one would do."""
        passed: list[_Entry] = []
        while (slot := self.best(changes, now_ms)) is not None and (leave := left(slot)) > 0:
            if len(passed) == leave:
                slot = passed[0][3]  # there are enough others
                break
            entry = heapq.heappop(self._heap)
            passed.append((*entry[:4], None))
            self.looks += LEAVING_LOOKS
            if entry[4] is not None:
                self._advance(entry[4])
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return slot

    @property
    def best_score(self) -> tuple[float, int]:
        """That of the node that `best` has found, with its order."""
        return self._heap[0][:2]

    def permits(self, slot: Slot) -> bool:
        """Whether what runs elsewhere lets a task start on the node, and that is known."""
        return True

    def allows(self, slot: Slot) -> bool:
        """The same, where somebody has seen that it is `ready`."""
        return True

    def opens(self, values: Values) -> bool:
        """Whether it may do so on some node with these values of the labels that relations name; asked while it is `ready`."""
        return True

    @property
    def surroundings(self) -> tuple[int, ...]:
        """Other numbers whenever that may be different."""
        return ()

    def score(self, slot: Slot) -> tuple[float, int]:
        """That of a node that stands on no shelf, with its order."""
        offset = self._scorer.offset(slot.total, self.request, slot.gpus > 0) + self.view.preference(slot)
        return self.view.standing(slot) + offset, slot.order

    def _catch_up(self, changes: Changes) -> None:
        """Look at what has changed; of it, what stands before the marks would be missed otherwise."""
        request, marks, offsets, places = self.request, self._marks, self._offsets, self.view.places
        cpu_milli, memory_bytes, gpus = request.cpu_milli or ANY, request.memory_bytes or ANY, request.gpus or ANY
        anew = self._version < 0 or len(self._heap) > MOST_EARLY + len(marks)
        looks = 0
        if not anew:
            for slot in changes.since(self._version):
                looks += 1
                if looks > MANY_CHANGES:
                    anew = True
                    break
                if slot.cpu_milli < cpu_milli or slot.memory_bytes < memory_bytes or slot.gpus < gpus:
                    continue
                known = places.get(slot)
                if known is None:
                    continue
                shelf, place = known
                mark = marks.get(shelf)
                if mark is not None and place <= mark and slot.room(request, 1):
                    heapq.heappush(self._heap, (place[0] + offsets[shelf], slot.order, slot.version, slot, None))
        self._version = changes.version
        self.looks += looks
        if anew:
            self._heap.clear()
            self._marks.clear()

    def _open(self, shelf: Shelf) -> None:
        """Begin to look at a shelf."""
        if shelf not in self._offsets:
            self._offsets[shelf] = self._scorer.offset(shelf.total, self.request, shelf.free_gpus) + shelf.preference
        self._marks[shelf] = BEGINNING
        self._advance(shelf)

    def _advance(self, shelf: Shelf) -> None:
        """Go on to the next node on the shelf that has room."""
        place: Place | None = None
        if shelf.free_gpus or not self.request.gpus:
            place, looks = shelf.find(self.request, self._marks[shelf])
            self.looks += looks
        if place is None:
            self._marks[shelf] = END
            return
        self._marks[shelf] = place
        standing, order, slot = place
        heapq.heappush(self._heap, (standing + self._offsets[shelf], order, slot.version, slot, shelf))


class Candidates:
    """Every view and cursor, and the slots that they are about."""

    def __init__(
        self,
        scorer: Scorer,
        changes: Changes,
        windows: Windows,
        slots: dict[str, Slot],
        make_related: Callable[[Shape, Resources, View], Cursor],
    ) -> None:
        self._scorer = scorer
        self._make_related = make_related  # the cursor of a shape that has relations
        self._changes = changes
        self._windows = windows
        self._slots = slots
        self._views: dict[Hashable, View] = {}
        self._users: dict[View, int] = {}  # how many shapes use a view
        self._idle: dict[Hashable, None] = {}  # keys of views that none uses, the latest last
        self._cursors: dict[Shape, tuple[Cursor, ...]] = {}

    def cursors(self, shape: Shape) -> tuple[Cursor, ...]:
        """One for each request of the shape, the preferred first."""
        cursors = self._cursors.get(shape)
        if cursors is None:
            cursors = self._cursors[shape] = tuple(self._make_cursor(shape, request) for request in shape.requests)
        return cursors

    def _make_cursor(self, shape: Shape, request: Resources) -> Cursor:
        key = (shape.view_key, request.gpus > 0)
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = View(shape, request.gpus > 0, self._scorer, self._changes, self._windows)
            view.begin(self._slots.values())
        self._idle.pop(key, None)
        self._users[view] = self._users.get(view, 0) + 1
        if shape.relations:
            return self._make_related(shape, request, view)
        return Cursor(shape, request, view, self._scorer)

    def know(self, shape: Shape) -> bool:
        """Whether they can be asked: what they didn't find isn't there."""
        return all(cursor.ready for cursor in self.cursors(shape))

    def forget_shape(self, shape: Shape) -> None:
        """Nothing of it waits. A few views outlive their last shape, and that of those without rules always does."""
        cursors = self._cursors.pop(shape, None)
        if cursors is None:
            return
        for cursor in cursors:
            cursor.release()
            view = cursor.view
            self._users[view] -= 1
            if not self._users[view] and (shape.rules is not None or shape.access):
                self._idle[shape.view_key, view.for_gpus] = None
        while len(self._idle) > IDLE_VIEWS:
            oldest = next(iter(self._idle))
            del self._idle[oldest], self._users[self._views.pop(oldest)]

    def forget_slot(self, slot: Slot) -> None:
        for view in self._views.values():
            view.forget(slot)
