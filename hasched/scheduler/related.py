"""The candidates of a shape that stands in relations to other tasks: the nodes by place, as these let them pass.

A `_Spot` is all nodes that share the values of every label that a relation names. Whether one more task may start there, and how
much worse it is by a wish, is the same for all of them, and is judged again only when tasks at one of its values have become
more or fewer, or when the place with the fewest has. So a task placed costs a look at its own spot, however many there are;
and a spot is only opened when none that is open is better than it can be.

A node that a relation to nodes refuses is passed over until it changes, or until such a relation may let it pass.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from hasched.model.spec import Resources
from hasched.scheduler.candidates import MOST_EARLY, Cursor, View
from hasched.scheduler.floors import Floor
from hasched.scheduler.placement import Scorer
from hasched.scheduler.relations import penalty
from hasched.scheduler.shapes import NEVER_MS, Shape
from hasched.scheduler.shelves import BEGINNING, END, Place, Shelf, Values
from hasched.scheduler.slots import Changes, Slot
from hasched.scheduler.tallies import Tallies, Tally, Value
from hasched.statemachine.census import Sites
from hasched.statemachine.relations import Relation, RelationKind, holds

SAMPLE = 64  # the best nodes by all else, among which a wish decides where each node is a place of its own
MOST_LOOKS = 2_000  # in one search, before others have their turn
SPOT_LOOKS = 16  # to judge a spot costs as much as so many looks at nodes,
SHELF_LOOKS = 6  # and to open a shelf
PATIENCE = 200  # searches in a row that were ended for their length: then what was found has to do
BEST_LOOKS = 32  # a search costs as much as so many, at least
MISSED = 1_000  # changes: who has missed more begins anew
FEW_CHANGES = 64  # are looked at one by one before anything else is

_Bound = tuple[float, int]  # a score, and the order of the node
_NOTHING: _Bound = (0.0, 0)
_Entry = tuple[float, int, int, Slot, Shelf | None]  # score, order, version; the shelf whose head it is


class _Spot:
    """`stamp` says which of its entries in the order of spots is the latest, with this `bound`; -1: it has none."""

    __slots__ = ("bound", "heap", "number", "opened", "penalty", "refused", "shelves", "stamp", "values")

    def __init__(self, number: int, values: Values, shelves: list[Shelf]) -> None:
        self.number = number
        self.values = values
        self.shelves = shelves
        self.heap: list[_Entry] = []
        self.opened = False
        self.refused = False
        self.penalty = 0.0
        self.stamp = -1
        self.bound = _NOTHING


class RelatedCursor(Cursor):
    __slots__ = (
        "_at",
        "_best",
        "_early",
        "_epoch",
        "_floors",
        "_floors_built",
        "_fruitless",
        "_most",
        "_order",
        "_pairs",
        "_places",
        "_prepared",
        "_seen",
        "_shape",
        "_sites",
        "_spots",
        "_spots_at",
        "_spread_over",
        "_stamps",
        "_surroundings",
        "_tallies",
        "_todo",
        "_tries",
        "_unfinished",
        "_versions",
    )

    def __init__(self, shape: Shape, request: Resources, view: View, scorer: Scorer, tallies: Tallies) -> None:
        super().__init__(shape, request, view, scorer)
        self._shape = shape
        self._tallies = tallies
        self._pairs: list[tuple[Relation, Tally]] = [(each, tallies.hold(each, shape)) for each in shape.relations]
        self._places = any(not each.place for each in shape.relations)  # whether some relation is to nodes
        self._floors = [Floor() if each.kind is RelationKind.SPREAD else None for each in shape.relations]
        self._floors_built = False
        self._prepared = False  # what the state judges by is counted
        self._spread_over: list[Sites] = []  # of each of them
        self._sites: list[tuple[Sites, int] | None] = [None] * len(self._pairs)  # of each spread, with their version
        self._spots: dict[Values, _Spot] = {}
        self._spots_at: dict[Value, list[_Spot]] = {}
        self._at = [view.places_of.index(each.place) if each.place else -1 for each in shape.relations]
        self._order: list[tuple[_Bound, int, _Spot]] = []  # spots by the best that can be had there, with their stamps
        self._stamps = 0
        self._early = 0  # entries in the heaps of spots that aren't heads of shelves
        self._epoch = -1
        self._versions: list[int] = []  # of the tallies, as they were seen last,
        self._seen: list[tuple[int, bool]] = []  # with the fewest at a place and whether there are none at all
        self._surroundings: list[int] = []  # versions of tallies and sites,
        self._fruitless = False  # and whether there was no room anywhere
        self._unfinished = False  # a search was ended for its length
        self._tries = 0  # searches in a row that were
        self._most = 0  # looks, and then it is
        self._best = _NOTHING  # score and order of what was found last
        self._todo: dict[Values, None] = {}  # spots that are to be judged

    def release(self) -> None:
        for relation, _ in self._pairs:
            self._tallies.release(relation, self._shape)

    @property
    def ready(self) -> bool:
        if self._unfinished or not self.view.complete:
            return False
        for _, tally in self._pairs:
            if tally.missing:
                return False
        for sites in self._spread_over:
            if sites.missing or sites.dropped:
                return False
        return self._prepared

    def prepare(self) -> int:
        self._unfinished = False
        if not self.view.complete:
            return self.view.build()
        for _, tally in self._pairs:
            if tally.missing:
                return self._tallies.build(tally)
        self._spread_over = [
            self._tallies.sites(self._shape, relation.place)
            for (relation, _), floor in zip(self._pairs, self._floors, strict=True)
            if floor is not None
        ]
        for relation, _ in self._pairs:
            if not relation.weight and (census := self._tallies.census(relation)).missing:
                return self._tallies.build_census(census)
        self._prepared = True
        return next((self._tallies.build_sites(sites) for sites in self._spread_over if sites.missing), 1)

    def best(self, changes: Changes, now_ms: int) -> Slot | None:
        """None also if the search isn't finished: then it isn't `ready`, and goes on when it is asked again."""
        self._most = self.looks + MOST_LOOKS
        self.looks += BEST_LOOKS + self.view.catch_up()
        if self._fruitless and self._is_as_before(changes):
            return None
        self._fruitless = False
        self._look_around(changes)
        if not self._judge_some() and self._gives_up():
            return None
        ends_ms = now_ms + self._limit_ms
        found: tuple[_Bound, Slot] | None = None
        tried: list[tuple[_Spot, _Entry]] = []
        while self._order and len(tried) < SAMPLE:
            if self.looks > self._most and (found is not None or self._gives_up()):
                break
            bound, stamp, spot = self._order[0]
            if stamp != spot.stamp:
                heapq.heappop(self._order)
                continue
            if found is not None and found[0] <= bound:
                break
            self.looks += SHELF_LOOKS
            entry = self._head_of(spot, ends_ms)
            if entry is None or self._bound(spot) != bound:
                self._line_up(spot)
                continue
            slot, shelf = entry[3:]
            more = self._penalty(slot) if self._places else 0.0
            if found is None or (bound[0] + more, bound[1]) < found[0]:
                found = ((bound[0] + more, bound[1]), slot)
            if not more:
                break
            tried.append((spot, entry))
            heapq.heappop(spot.heap)
            self._go_on(shelf)
            self._line_up(spot)
        for spot, entry in tried:
            self._push(spot, (*entry[:4], None))
            self._line_up(spot)
        if found is None:
            self._fruitless = not self._order and not self._unfinished
            return None
        self._tries = 0
        self._best = found[0]
        return found[1]

    def _is_as_before(self, changes: Changes) -> bool:
        """Whether there is no room still, since all that has changed are nodes without any."""
        if (
            self._epoch < 0
            or self._surroundings != self._versions_now()
            or changes.version - self._version > FEW_CHANGES
        ):
            return False
        for slot in changes.since(self._version):
            self.looks += 1
            if slot.room(self.request, 1):
                return False
        self._version = changes.version
        return True

    def _versions_now(self) -> list[int]:
        """Others, if relations may judge otherwise than at the last look."""
        return [*(tally.version for _, tally in self._pairs), *(sites.version for sites in self._spread_over)]

    def _gives_up(self) -> bool:
        """A search has become too long: whether it goes on when it is asked again. If it did so too often, this is the end."""
        self._tries += 1
        self._unfinished = self._tries < PATIENCE
        if not self._unfinished:
            self._tries = 0
            self._most = self.looks + MOST_LOOKS
        return self._unfinished

    def _judge_some(self) -> bool:
        """Judge spots that are to be judged. Whether none is left."""
        while self._todo and self.looks <= self._most:
            values, _ = self._todo.popitem()
            spot = self._spots.get(values) or self._make_spot(values)
            self._judge(spot)
            self.looks += SPOT_LOOKS + len(spot.shelves) * 2
        return not self._todo

    # What has changed

    def _look_around(self, changes: Changes) -> None:
        """Take in what has changed since the last look: nodes, tasks at places, and what all places have in common."""
        epoch = sum(tally.epoch for _, tally in self._pairs)
        missed = changes.version - self._version
        slots = list(changes.since(self._version)) if missed and self._floors_built else []
        self.looks += len(slots) * 2
        valued = list(self._changed_values())
        self._follow_floors(slots, valued, epoch)
        seen = [
            (floor.fewest if floor is not None else 0, not tally.total)
            for (_, tally), floor in zip(self._pairs, self._floors, strict=True)
        ]
        anew = (
            self._version < 0 or missed > MISSED or epoch != self._epoch or self._early > MOST_EARLY + len(self._marks)
        )
        self._version, self._epoch = changes.version, epoch
        before, self._seen = self._seen, seen
        self._versions = [tally.version for _, tally in self._pairs]
        self._surroundings = self._versions_now()
        if len(self._order) > 4 * len(self._spots) + MOST_EARLY:
            self._order = [each for each in self._order if each[1] == each[2].stamp]
            heapq.heapify(self._order)
        if anew or any(map(self._lets_pass, self._pairs, before, seen)):
            self._begin()
            return
        if seen != before:
            self._todo.update(dict.fromkeys(self.view.at))
        else:
            self._todo.update(dict.fromkeys(spot.values for value in valued for spot in self._spots_at.get(value, ())))
        for slot in slots:
            self._take_in(slot)

    def _changed_values(self) -> Iterator[Value]:
        for (relation, tally), version in zip(self._pairs, self._versions, strict=False):
            if relation.place and tally.version != version:
                yield from tally.since(version)

    def _follow_floors(self, slots: list[Slot], values: list[Value], epoch: int) -> None:
        """The places of a spread are those that the state judges it by, whether or not their nodes can be had now."""
        anew = not self._floors_built or epoch != self._epoch
        for at, (relation, tally) in enumerate(self._pairs):
            floor = self._floors[at]
            if floor is None:
                continue
            sites = self._tallies.sites(self._shape, relation.place)
            counts = tally.by_label[relation.place] if relation.place else tally.counts
            some: Iterable[str]
            if anew or self._sites[at] != (sites, sites.version):
                self._sites[at] = (sites, sites.version)
                floor.clear()
                self.looks += len(sites.nodes)
                some = sites.nodes
            elif relation.place:
                some = [value for label, value in values if label == relation.place]
            else:
                some = [slot.node_id for slot in slots]
            for place in some:
                if place in sites.nodes:
                    floor.put(place, counts.get(place, 0))
        self._floors_built = True

    def _lets_pass(self, pair: tuple[Relation, Tally], before: tuple[int, bool], now: tuple[int, bool]) -> bool:
        """Whether a node may pass by now that a relation to nodes has refused."""
        relation, _ = pair
        if relation.place or relation.weight:
            return False
        return now[0] > before[0] or (now[1] and not before[1])

    def _begin(self) -> None:
        """Forget what was found, and look at every spot anew."""
        self._marks.clear()
        self._order.clear()
        self._spots.clear()
        self._spots_at.clear()
        self._early = 0
        self._todo = dict.fromkeys(self.view.at)

    def _make_spot(self, values: Values) -> _Spot:
        spot = self._spots[values] = _Spot(len(self._spots), values, self.view.at[values])
        for label, value in zip(self.view.places_of, values, strict=True):
            if value is not None:
                self._spots_at.setdefault((label, value), []).append(spot)
        return spot

    def _take_in(self, slot: Slot) -> None:
        """A node has changed; of it, what stands before the marks would be missed otherwise."""
        known = self.view.places.get(slot)
        if known is None:
            return
        shelf, place = known
        spot = self._spots.get(shelf.values)
        if spot is None:
            self._todo[shelf.values] = None
            return
        if not spot.opened:
            if spot.stamp < 0 or self._bound_of(shelf) < spot.bound:
                self._line_up(spot)
            return
        mark = self._marks.get(shelf)
        if mark is None:
            self._open(shelf)
        elif place > mark or not slot.room(self.request, 1):
            return
        else:
            self._push(spot, (place[0] + self._offsets[shelf], slot.order, slot.version, slot, None))
        self._line_up(spot)

    # Spots

    def _judge(self, spot: _Spot) -> None:
        """What the relations to labels say of it now."""
        refused, cost = False, 0.0
        for (relation, tally), (floor, _), at in zip(self._pairs, self._seen, self._at, strict=True):
            if at < 0:
                continue
            value = spot.values[at]
            here = None if value is None else tally.by_label[relation.place].get(value, 0)
            if relation.weight:
                cost += penalty(relation, here, tally.total, floor)
            elif not holds(relation, here, tally.total, floor):
                refused = True
                break
        if refused != spot.refused or cost != spot.penalty or spot.stamp < 0:
            spot.refused, spot.penalty = refused, cost
            self._line_up(spot)

    def _line_up(self, spot: _Spot) -> None:
        """Give it the place in the order of spots that is its own by the best that can be had there."""
        bound = None if spot.refused else self._bound(spot)
        if bound is None:
            spot.stamp = -1
        elif spot.stamp < 0 or bound != spot.bound:
            self._stamps += 1
            spot.stamp, spot.bound = self._stamps, bound
            heapq.heappush(self._order, (bound, spot.stamp, spot))

    def _bound(self, spot: _Spot) -> _Bound | None:
        """No node there comes before this; None: there is none."""
        if spot.opened:
            found = spot.heap[0][:2] if spot.heap else None
        else:
            found = None
            for shelf in spot.shelves:
                if not shelf.empty:
                    bound = self._bound_of(shelf)
                    if found is None or bound < found:
                        found = bound
        return (found[0] + spot.penalty, found[1]) if found is not None else None

    def _bound_of(self, shelf: Shelf) -> _Bound:
        standing, order, _ = shelf.first
        return standing + self._offset_of(shelf), order

    def _head_of(self, spot: _Spot, ends_ms: int) -> _Entry | None:
        """The best node there on which every relation lets a task start."""
        if not spot.opened:
            spot.opened = True
            self.looks += SHELF_LOOKS * len(spot.shelves)
            for shelf in spot.shelves:
                self._open(shelf)
        heap = spot.heap
        while heap and self.looks <= self._most:
            entry = heap[0]
            _, _, version, slot, headed = entry
            if slot.version == version:
                on, _ = self.view.places[slot]
                if on.closes_ms < NEVER_MS and ends_ms > on.closes_ms:
                    self._marks[on] = END  # too late for all of it, and time only goes on
                elif not self._places or not self._is_refused(slot):
                    return entry
            heapq.heappop(heap)
            self.looks += 1
            self._go_on(headed)
        return None

    def _go_on(self, shelf: Shelf | None) -> None:
        """After an entry was taken from the heap of a spot: to the next node of its shelf, if it was the head of one."""
        if shelf is not None:
            self._advance(shelf)
        else:
            self._early -= 1

    def _push(self, spot: _Spot, entry: _Entry) -> None:
        self._early += 1
        heapq.heappush(spot.heap, entry)

    def _open(self, shelf: Shelf) -> None:
        self._offset_of(shelf)
        self._marks[shelf] = BEGINNING
        self._advance(shelf)

    def _offset_of(self, shelf: Shelf) -> float:
        offset = self._offsets.get(shelf)
        if offset is None:
            offset = self._scorer.offset(shelf.total, self.request, shelf.free_gpus) + shelf.preference
            self._offsets[shelf] = offset
        return offset

    def _advance(self, shelf: Shelf) -> None:
        place: Place | None = None
        if shelf.free_gpus or not self.request.gpus:
            place, looks = shelf.find(self.request, self._marks[shelf])
            self.looks += looks
        if place is None:
            self._marks[shelf] = END
            return
        self._marks[shelf] = place
        standing, order, slot = place
        entry = (standing + self._offsets[shelf], order, slot.version, slot, shelf)
        heapq.heappush(self._spots[shelf.values].heap, entry)

    # Nodes that are held

    @property
    def best_score(self) -> tuple[float, int]:
        return self._best

    def permits(self, slot: Slot) -> bool:
        return self.ready and self.allows(slot)

    def allows(self, slot: Slot) -> bool:
        facts = slot.node.facts
        for (relation, tally), (low, _) in zip(self._pairs, self._seen, strict=True):
            if not relation.weight and not holds(relation, tally.at(relation, facts), tally.total, low):
                return False
        return True

    def opens(self, values: Values) -> bool:
        for (relation, tally), (low, _), at in zip(self._pairs, self._seen, self._at, strict=True):
            if at < 0 or relation.weight:
                continue
            value = values[at]
            here = None if value is None else tally.by_label[relation.place].get(value, 0)
            if not holds(relation, here, tally.total, low):
                return False
        return True

    @property
    def surroundings(self) -> tuple[int, ...]:
        return *(tally.version for _, tally in self._pairs), *(low for low, _ in self._seen)

    def score(self, slot: Slot) -> tuple[float, int]:
        score, order = super().score(slot)
        for relation, tally, low in self._judged_now():
            if relation.weight:
                score += penalty(relation, tally.at(relation, slot.node.facts), tally.total, low)
        return score, order

    def _judged_now(self) -> Iterator[tuple[Relation, Tally, int]]:
        for (relation, tally), (low, _) in zip(self._pairs, self._seen, strict=True):
            yield relation, tally, low

    # Relations to nodes

    def _is_refused(self, slot: Slot) -> bool:
        facts = slot.node.facts
        return any(
            not relation.place
            and not relation.weight
            and not holds(relation, tally.at(relation, facts), tally.total, floor)
            for (relation, tally), (floor, _) in zip(self._pairs, self._seen, strict=True)
        )

    def _penalty(self, slot: Slot) -> float:
        facts = slot.node.facts
        return sum(
            penalty(relation, tally.at(relation, facts), tally.total, floor)
            for (relation, tally), (floor, _) in zip(self._pairs, self._seen, strict=True)
            if relation.weight and not relation.place
        )
