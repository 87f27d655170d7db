"""Rooms: how many tasks of a gang each node takes, and so whether, and where, all of it fits.

For each shape of gang that waits there is a table of the nodes that take some of it, with their sums over the whole cluster
and over each place (the nodes that share a label's value). It is kept current from what changes: whether a gang fits is read
off a sum, and nodes are only looked through once it does. To look through them and to take them goes in steps, so that others
have their turn between; nobody else plans meanwhile, but nodes may change.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from hasched.model.spec import JobSelector, PlacementRules, Resources
from hasched.scheduler.mosaics import STEP, Related, Steps, gathering, lay, places_in_order
from hasched.scheduler.shapes import NEVER_MS, Shape, ShapeKey
from hasched.scheduler.slots import Changes, Slot
from hasched.scheduler.windows import Windows
from hasched.statemachine.job import Job
from hasched.statemachine.relations import Relation, RelationKind, Whose, relations_of
from hasched.statemachine.state import State

NEAR_LABELS = ("switch", "rack", "zone")  # a gang had better share one of them, the first above all
BUILD_SLICE = 125  # nodes taken in at a time
SCANS_A_UNIT = 16  # so many nodes are looked through, or
_ITS_OWN = Whose("", JobSelector(), -1)
TAKES_A_UNIT = 2  # so many are taken, at the cost of placing a task


class GangShape(Shape):
    """What decides where a whole gang fits. `parts` are (request, how many) in the order of the ranks.

    `least` are enough; `near` are the labels of which all nodes have to share one value (`must_be_near`), or had better.
    """

    __slots__ = ("least", "most", "most_on_a_node", "must_be_near", "near", "parts")

    def __init__(self, key: ShapeKey, number: int, parts: tuple[tuple[Resources, int], ...], least: int) -> None:
        super().__init__(key, number)
        self.parts = parts
        self.requests = tuple(dict.fromkeys(request for request, _ in parts))
        self.least = least
        self.most = sum(count for _, count in parts)
        self.near, self.must_be_near = _nearness(key.rules)
        if key.relations:  # they say, too, where all of it has to be
            self.must_be_near = False
        apart = key.rules.apart if key.rules is not None else ()
        alone = any(each.jobs.means_itself and not each.within and not each.weight for each in apart)
        self.most_on_a_node = 1 if alone else self.most

    def needed(self, size: int) -> tuple[int, ...]:
        """How many tasks of each request make up a gang of this size."""
        if len(self.parts) == 1:
            return (size,)
        return tuple(sum(count for asked, count in self.parts if asked == request) for request in self.requests)


def relations_to_lay(job: Job) -> tuple[Relation, ...]:
    """The relations of a job whose tasks start together; none if sums over nodes, or over places, tell whether they hold.

    No task of it runs yet, so of its own it doesn't matter whose they are.
    """
    relations = tuple(each._replace(whose=_ITS_OWN) if each.whose.job_id else each for each in relations_of(job))
    simple = all(map(_is_simple, relations)) and sum(_is_together(each) for each in relations) < 2
    return () if simple else relations


def _is_together(relation: Relation) -> bool:
    return relation.kind is RelationKind.NEAR and not relation.weight


def _is_simple(relation: Relation) -> bool:
    if relation.whose is not _ITS_OWN:
        return False
    if relation.kind is RelationKind.NEAR:
        return bool(relation.place)
    return relation.kind is RelationKind.APART and not relation.place and not relation.weight


def _nearness(rules: PlacementRules | None) -> tuple[tuple[str, ...], bool]:
    own = [each for each in (rules.near if rules is not None else ()) if each.jobs.means_itself and each.within]
    must = [each.within for each in own if not each.weight]
    if must:
        return (must[0],), True
    return (*(each.within for each in own), *NEAR_LABELS), False


class Place:
    """Nodes that take some of the gang, and how many tasks of each request they take together."""

    __slots__ = ("slots", "totals")

    def __init__(self, kinds: int) -> None:
        self.slots: dict[Slot, tuple[int, ...]] = {}  # with the rooms of each
        self.totals = [0] * kinds

    def takes(self, needed: tuple[int, ...]) -> bool:
        """Whether it may take so many: surely, where all tasks ask for the same."""
        return all(total >= asked for total, asked in zip(self.totals, needed, strict=True))


class Part(NamedTuple):
    """So many tasks of one part of the gang on a node, whose `version` was this once they had taken their room."""

    slot: Slot
    part: int
    tasks: int
    version: int


class Rooms:
    """The table of one shape. A node that is held for somebody else has no room, nor has one that closes too early.

    The first gang that fits nowhere has also what those hold that stand behind it (`let_pass`).
    """

    def __init__(self, shape: GangShape, changes: Changes, windows: Windows, slots: Iterable[Slot]) -> None:
        self.shape = shape
        self.related: Related | None = None  # of a shape with relations of which sums say nothing
        self._judged: tuple[int, ...] = ()  # what they were judged by
        self._changes = changes
        self._windows = windows
        self._version = changes.version
        self._missing = dict.fromkeys(reversed(list(slots)))
        self._rooms: dict[Slot, tuple[tuple[int, ...], tuple[tuple[str, str], ...]]] = {}
        self.everywhere = Place(len(shape.requests))
        self.places: dict[tuple[str, str], Place] = {}  # by label and value
        self.own: dict[Slot, None] = {}  # nodes that are held for the first gang of this shape,
        self.behind: dict[Slot, None] = {}  # and for others, who stand behind it

    @property
    def complete(self) -> bool:
        """Whether it can be read, once it has caught up, which won't take long."""
        return not self._missing and self._changes.version - self._version <= BUILD_SLICE

    def build(self, now_ms: int) -> int:
        """Take in some of the nodes that were there before the table, or that it has missed. Returns how many."""
        if self._changes.version != self._version:
            self._missing.update(dict.fromkeys(self._changes.since(self._version)))
            self._version = self._changes.version
        looks = 0
        while self._missing and looks < BUILD_SLICE:
            self._put(self._missing.popitem()[0], now_ms)
            looks += 1
        return looks

    def catch_up(self, now_ms: int) -> int:
        """Look at every node that has changed. Returns how many there were."""
        looks = 0
        if self._changes.version != self._version:
            for slot in self._changes.since(self._version):
                looks += 1
                self._put(slot, now_ms)
            self._version = self._changes.version
        return looks

    def forget(self, slot: Slot) -> None:
        """Its node is gone."""
        self._drop(slot)
        self._missing.pop(slot, None)

    def let_pass(self, behind: dict[Slot, None]) -> bool:
        """Have these nodes as if nobody held them. Whether there is one that it didn't have."""
        more = [slot for slot in behind if slot not in self.behind]
        for slot in (*more, *(slot for slot in self.behind if slot not in behind)):
            self._changes.note(slot)
        self.behind = behind
        return bool(more)

    def _is_open(self, slot: Slot) -> bool:
        return slot.usable and (not slot.held or slot in self.own or slot in self.behind)

    def size_allowed(self, most: int) -> int:
        """How large a gang fits, by the sums, `most` at most; 0 if not even the smallest does."""
        shape = self.shape
        size = min(most, shape.most)
        if len(shape.parts) == 1:
            places = [self.everywhere] if not shape.must_be_near else self._near_places()
            size = min(size, max((place.totals[0] for place in places), default=0))
        elif not any(place.takes(shape.needed(size)) for place in self._candidates()):
            size = 0
        return size if size >= shape.least else 0

    def choose(self, size: int, state: State, taken: list[Part]) -> Steps[bool]:
        """Take the room for a gang of this size: in the smallest place that has it, on as few nodes as will do."""
        needed = self.shape.needed(size)
        for place in self._by_fitness(needed):
            if (yield from self.fill(place, size, state.now_ms, taken)):
                return True
        if self.related is not None and len(self.shape.parts) == 1 and size > self.shape.least:
            return (yield from self._lay(self.related, self.everywhere, (self.shape.least, size), state.now_ms, taken))
        return False

    def _candidates(self) -> Iterator[Place]:
        yield from self._near_places()
        if not self.shape.must_be_near:
            yield self.everywhere

    def _near_places(self) -> Iterator[Place]:
        for label in self.shape.near:
            yield from (place for (of, _), place in self.places.items() if of == label)

    def _by_fitness(self, needed: tuple[int, ...]) -> Iterator[Place]:
        """For each label the place with the least to spare; one of each, for a place that failed tells of the others."""
        for label in self.shape.near:
            found = [
                (sum(place.totals), value, place)
                for (of, value), place in self.places.items()
                if of == label and place.takes(needed)
            ]
            if found:
                yield min(found, key=lambda each: each[:2])[2]
        if not self.shape.must_be_near and self.everywhere.takes(needed):
            yield self.everywhere

    def fill(self, place: Place, size: int, now_ms: int, taken: list[Part], copies: bool = False) -> Steps[bool]:
        """Find room for a gang of this size on the nodes of a place, and take it: on the roomiest first.

        What one part has taken, the next knows of; if it is in vain, it is undone. `copies` of nodes: nobody is told.
        """
        if self.related is not None:
            return (yield from self._lay(self.related, place, (size, size), now_ms, taken, copies=copies))
        used: dict[Slot, None] = {}
        parts = self.shape.parts if len(self.shape.parts) > 1 else ((self.shape.parts[0][0], size),)
        for number in sorted(range(len(parts)), key=lambda each: _weight(parts[each][0]), reverse=True):
            request, left = parts[number]
            most = min(left, self.shape.most_on_a_node)
            roomy = yield from self._roomy(place, request, most, used, now_ms)
            while left and roomy:
                first = roomy[0]
                if -first[1] > left and first[0]:  # the last node: the fullest that will do
                    yield 1 + len(roomy) // SCANS_A_UNIT
                    first = max((each for each in roomy if -each[1] >= left), key=lambda each: (each[1], -each[2]))
                    roomy.remove(first)
                    heapq.heapify(roomy)
                else:
                    heapq.heappop(roomy)
                fresh, expected, order, slot = first
                room = self.room(slot, request, most) if self._is_open(slot) else 0
                if room < -expected:  # something has changed there
                    if room:
                        heapq.heappush(roomy, (fresh, -room, order, slot))
                    continue
                tasks = min(-expected, left)
                self._take(Part(slot, number, tasks, 0), now_ms, taken, copies)
                used[slot] = None
                left -= tasks
                if not len(taken) % (STEP * TAKES_A_UNIT):
                    yield STEP
            if left:
                yield from self.give_back(taken, copies)
                return False
        return True

    def _take(self, part: Part, now_ms: int, taken: list[Part], copies: bool) -> None:
        slot = part.slot
        slot.take(self.shape.parts[part.part][0], part.tasks)
        if not copies:
            slot.reserved_until_ms = max(slot.reserved_until_ms, now_ms + self.shape.limit_ms)
            self._changes.note(slot)
        taken.append(part._replace(version=slot.version))

    def _lay(
        self,
        related: Related,
        place: Place,
        sizes: tuple[int, int],
        now_ms: int,
        taken: list[Part],
        *,
        copies: bool = False,
    ) -> Steps[bool]:
        """Find room by the rules for as many tasks as the second size, or the first at least, and take it."""
        parts = self.shape.parts if len(self.shape.parts) > 1 else ((self.shape.parts[0][0], sizes[1]),)
        order = sorted(range(len(parts)), key=lambda each: _weight(parts[each][0]), reverse=True)
        asked = [(number, *parts[number]) for number in order]
        pool: list[Slot] = []
        for number, slot in enumerate(list(place.slots), 1):
            if slot.usable and not self._closes(slot, now_ms):
                pool.append(slot)
            if not number % (STEP * SCANS_A_UNIT):
                yield STEP
        self._judged = related.versions

        def taker(number: int) -> Callable[[Slot, int], None]:
            return lambda slot, tasks: self._take(Part(slot, number, tasks, 0), now_ms, taken, copies)

        label = gathering(related)
        for there in [pool] if label is None else places_in_order(label, asked, pool):
            laid = yield from lay(related, asked, there, self.shape.most_on_a_node, taker)
            if laid >= sizes[0]:
                first = {part.slot: number for number, part in reversed(list(enumerate(taken)))}
                taken.sort(key=lambda each: (each.part, first[each.slot]))  # so that ranks follow each other on a node
                return True
            yield from self.give_back(taken, copies)
        return False

    def _roomy(
        self, place: Place, request: Resources, most: int, used: dict[Slot, None], now_ms: int
    ) -> Steps[list[tuple[bool, int, int, Slot]]]:
        """A heap of the nodes with room: those in use already first, then those with the most."""
        kind = self.shape.requests.index(request)
        found: list[tuple[bool, int, int, Slot]] = []
        for number, (slot, of_kind) in enumerate(list(place.slots.items())):
            if number % (STEP * SCANS_A_UNIT) == STEP * SCANS_A_UNIT - 1:
                yield STEP
            room = of_kind[kind] and (self.room(slot, request, most) if slot in used else min(of_kind[kind], most))
            if room and not self._closes(slot, now_ms):
                found.append((slot not in used, -room, slot.order, slot))
        heapq.heapify(found)
        yield 1 + len(found) // SCANS_A_UNIT // 4
        return found

    def room(self, slot: Slot, request: Resources, most: int) -> int:
        """How many tasks with a request a node takes now."""
        if slot in self.own:
            slot = slot.held_for(request)
        return slot.room(request, min(most, self.shape.most_on_a_node))

    def are_near(self, one: Slot, other: Slot) -> bool:
        """Whether tasks of the gang that have to be near to each other may be on these."""
        label = self.shape.near[0] if self.shape.must_be_near else ""
        return not label or one.node.info.labels.get(label) == other.node.info.labels.get(label)

    def give_back(self, taken: list[Part], copies: bool = False) -> Steps[None]:
        """Undo what `fill` took."""
        while taken:
            slot, part, tasks, _ = taken.pop()
            if copies:
                slot.take(self.shape.parts[part][0], -tasks)
            else:
                slot.reserve(self.shape.parts[part][0], -tasks)
                slot.refresh(slot.node, slot.usable)
                if slot.usable:
                    self._changes.note(slot)
            if not len(taken) % (STEP * TAKES_A_UNIT):
                yield STEP

    def keeps(self, taken: list[Part], now_ms: int) -> bool:
        """Whether the nodes still have the room that was taken there, and relations hold: some may have changed since."""
        if self.related is not None and self.related.versions != self._judged:
            return False
        latest = {part.slot: part.version for part in taken}
        changed = {slot: slot.copy() for slot, version in latest.items() if slot.version != version}
        of_changed = [part for part in taken if part.slot in changed]
        for slot, part, tasks, _ in of_changed:
            changed[slot].take(self.shape.parts[part][0], -tasks)
        for slot, part, tasks, _ in of_changed:
            request, twin = self.shape.parts[part][0], changed[slot]
            may = self._is_open(slot) and self.admits(slot, now_ms)
            if not may or twin.room(request, tasks) < tasks:
                return False
            twin.take(request, tasks)
        return True

    def _put(self, slot: Slot, now_ms: int) -> None:
        self._drop(slot)
        shape = self.shape
        if not self._is_open(slot) or not self.admits(slot, now_ms):
            return
        rooms = tuple(self.room(slot, request, shape.most) for request in shape.requests)
        if not any(rooms):
            return
        labels = slot.node.info.labels
        where = tuple((label, labels[label]) for label in shape.near if label in labels)
        self._rooms[slot] = (rooms, where)
        for place in (self.everywhere, *(self._place(each) for each in where)):
            place.slots[slot] = rooms
            for kind, room in enumerate(rooms):
                place.totals[kind] += room

    def admits(self, slot: Slot, now_ms: int) -> bool:
        """Whether tasks of the gang may start on the node, if there is room."""
        return self.shape.static_fit(slot.node) and not self._closes(slot, now_ms)

    def _closes(self, slot: Slot, now_ms: int) -> bool:
        """Whether the node belongs to others before the gang has surely ended."""
        closes_ms = self._windows.closes_ms(slot.node_id, self.shape.access)
        return closes_ms < NEVER_MS and now_ms + self.shape.limit_ms > closes_ms

    def _place(self, where: tuple[str, str]) -> Place:
        place = self.places.get(where)
        if place is None:
            place = self.places[where] = Place(len(self.shape.requests))
        return place

    def _drop(self, slot: Slot) -> None:
        known = self._rooms.pop(slot, None)
        if known is None:
            return
        rooms, labels = known
        for place in (self.everywhere, *(self.places[where] for where in labels)):
            del place.slots[slot]
            for kind, room in enumerate(rooms):
                place.totals[kind] -= room
        for where in labels:
            if not self.places[where].slots:
                del self.places[where]


def _weight(request: Resources) -> tuple[int, int, int]:
    """What is hard to place comes first."""
    return request.gpus, request.cpu_milli, request.memory_bytes
