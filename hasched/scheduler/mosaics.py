"""Mosaics: gangs that stand in relations to others, or to themselves, laid out node by node.

Of such a gang a sum over all nodes says too little. So its tasks are laid one after the other, as single tasks would be: each
at the spot that is the best by the rules, with those counted that were laid before. A spot is all nodes that are alike in the
labels of the rules. What one order of laying finds no place for another might; only one is tried for each place where all of
the gang has to be, or had better be, near to each other.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TypeAlias, TypeVar

from hasched.model.facts import NodeFacts
from hasched.model.spec import Resources
from hasched.scheduler.floors import Floor
from hasched.scheduler.relations import penalty
from hasched.scheduler.shapes import Shape
from hasched.scheduler.slots import Slot
from hasched.scheduler.tallies import Tallies, Tally
from hasched.statemachine.census import Sites, place_of
from hasched.statemachine.relations import Relation, RelationKind, holds

MOST_TRIES = 8  # places where all of a gang may be near to each other

NODES_A_STEP = 48
TASKS_A_STEP = 10
STEP = 8  # units, and others may have their turn

T = TypeVar("T")
Steps: TypeAlias = Generator[int, None, T]  # yields the units that each step took
Asked: TypeAlias = tuple[int, Resources, int]  # a part of the gang, by its number: so many tasks with a request
Take: TypeAlias = Callable[[Slot, int], None]  # so many tasks on a node
_NOBODY: Mapping[str, int] = {}


class Related:
    """The relations of a shape of gang, with what they are judged by. Of its own tasks none runs yet."""

    def __init__(self, shape: Shape, tallies: Tallies) -> None:
        self._shape = shape
        self._tallies = tallies
        self._pairs: list[tuple[Relation, Tally | None]] = [
            (each, None if each.whose.job_id else tallies.hold(each)) for each in shape.relations
        ]

    def release(self) -> None:
        for relation, tally in self._pairs:
            if tally is not None:
                self._tallies.release(relation)

    @property
    def versions(self) -> tuple[int, ...]:
        """Others, once more or fewer of those run who are meant, or there are other places."""
        tallies = tuple(tally.version for _, tally in self._pairs if tally is not None)
        return tallies + tuple(sites.version for sites in self._sites() if sites is not None)

    def prepare(self) -> int:
        """Go on counting what isn't counted yet. Returns the looks it took, 0 if all is."""
        for _, tally in self._pairs:
            if tally is not None and tally.missing:
                return self._tallies.build(tally)
        for relation, _ in self._pairs:
            if not relation.weight and (census := self._tallies.census(relation)).missing:
                return self._tallies.build_census(census)
        return next((self._tallies.build_sites(each) for each in self._sites() if each is not None and each.missing), 0)

    def begin(self) -> list[_Rule]:
        """The rules, with nothing laid."""
        return [_Rule(*pair, sites) for pair, sites in zip(self._pairs, self._sites(), strict=True)]

    def _sites(self) -> Iterator[Sites | None]:
        for relation, _ in self._pairs:
            spread = relation.kind is RelationKind.SPREAD
            yield self._tallies.sites(self._shape, relation.place) if spread else None


class _Rule:
    """A relation while a gang is laid: `own` are its tasks so far at each place."""

    __slots__ = ("_counts", "_total", "floor", "own", "relation")

    def __init__(self, relation: Relation, tally: Tally | None, sites: Sites | None) -> None:
        self.relation = relation
        self._counts = _NOBODY
        if tally is not None:
            self._counts = tally.by_label[relation.place] if relation.place else tally.counts
        self._total = tally.total if tally is not None else 0
        self.own: dict[str, int] = {}
        self.floor = Floor()
        for place in sites.nodes if sites is not None else ():
            self.floor.put(place, 0)

    @property
    def one_place(self) -> bool:
        """Whether all tasks have to be at one place, whichever it is."""
        relation = self.relation
        return relation.kind is RelationKind.NEAR and relation.itself and not relation.weight and not self._total

    def seen_from(self, facts: NodeFacts) -> tuple[int | None, int, int]:
        place, relation = place_of(self.relation.place, facts), self.relation
        here = None if place is None else self._counts.get(place, 0)
        total = self._total
        if relation.itself:
            here = None if place is None or here is None else here + self.own.get(place, 0)
            total += sum(self.own.values()) if relation.kind is RelationKind.NEAR else 0
        return here, total, self.floor.fewest

    def allows(self, facts: NodeFacts) -> bool:
        return bool(self.relation.weight) or holds(self.relation, *self.seen_from(facts))

    def take(self, facts: NodeFacts, tasks: int) -> bool:
        """Whether that which has the fewest has more now."""
        place = place_of(self.relation.place, facts)
        if place is None:
            return False
        self.own[place] = self.own.get(place, 0) + tasks
        if self.relation.kind is not RelationKind.SPREAD:
            return False
        before = self.floor.fewest
        if place in self.floor:
            self.floor.put(place, self.own[place])
        return self.floor.fewest > before


class _Spot:
    """All nodes that are alike in the labels of the rules, those first that the next task should go to."""

    __slots__ = ("facts", "nodes", "number", "room")

    def __init__(self, number: int, facts: NodeFacts) -> None:
        self.number = number
        self.facts = facts  # of one of its nodes
        self.nodes: list[tuple[int, float, bool, int, int, Slot]] = []
        self.room = 0


class _Laying:
    """What is laid of a gang, one part after the other."""

    def __init__(self, rules: list[_Rule], most_on_a_node: int) -> None:
        self._rules = rules
        self._labelled = [rule for rule in rules if rule.relation.place]
        self._on_nodes = [rule for rule in rules if not rule.relation.place]
        self._most_on_a_node = most_on_a_node
        self._singly = any(rule.relation.itself and rule.relation.kind is not RelationKind.NEAR for rule in rules)
        self._here: dict[Slot, int] = {}  # tasks laid on a node

    def lay(self, request: Resources, tasks: int, pool: list[Slot], take: Take) -> Steps[int]:
        """Lay so many tasks that ask for the same, or as many as there is place for. Returns how many."""
        spots = yield from self._spots(request, tasks, pool)
        line = [(self._rank(spot), spot.number, spot) for spot in spots]
        heapq.heapify(line)
        aside: list[_Spot] = []
        left, tries = tasks, 0
        while left and line:
            tries += 1
            if not tries % TASKS_A_STEP:
                yield STEP
            rank, _, spot = heapq.heappop(line)
            now = self._rank(spot)
            if now > rank:
                heapq.heappush(line, (now, spot.number, spot))
                continue
            slot = self._next(spot, request) if _allow(self._labelled, spot.facts) else None
            if slot is None:
                aside.append(spot)
                continue
            most = 1 if self._singly else min(left, self._most_on_a_node - self._here.get(slot, 0))
            count = slot.room(request, most)
            take(slot, count)
            self._here[slot] = self._here.get(slot, 0) + count
            risen = [rule.take(slot.node.facts, count) for rule in self._rules]
            self._put(spot, slot, request, left)
            heapq.heappush(line, (self._rank(spot), spot.number, spot))
            if any(risen):  # the lowest of a spread has more now: others may, too
                for each in aside:
                    heapq.heappush(line, (self._rank(each), each.number, each))
                aside.clear()
            left -= count
        return tasks - left

    def _spots(self, request: Resources, tasks: int, pool: list[Slot]) -> Steps[list[_Spot]]:
        labels = tuple(dict.fromkeys(rule.relation.place for rule in self._labelled))
        spots: dict[tuple[str | None, ...], _Spot] = {}
        for number, slot in enumerate(pool, 1):
            if not number % NODES_A_STEP:
                yield STEP
            facts = slot.node.facts
            values = tuple(map(facts.labels.get, labels))
            spot = spots.get(values)
            if spot is None:
                spot = spots[values] = _Spot(len(spots), facts)
            self._put(spot, slot, request, tasks)
        return list(spots.values())

    def _put(self, spot: _Spot, slot: Slot, request: Resources, tasks: int) -> None:
        here = self._here.get(slot, 0)
        room = slot.room(request, min(tasks, self._most_on_a_node - here)) if here < self._most_on_a_node else 0
        if room:
            spread = sum(_has(rule, slot.node.facts) for rule in self._on_nodes)
            cost = _cost(self._on_nodes, slot.node.facts)
            heapq.heappush(spot.nodes, (spread, cost, not here, -room, slot.order, slot))
            spot.room = max(spot.room, room)

    def _next(self, spot: _Spot, request: Resources) -> Slot | None:
        """The node that the next task there goes to; it is taken out."""
        while spot.nodes:
            slot = spot.nodes[0][-1]
            if _allow(self._on_nodes, slot.node.facts):
                heapq.heappop(spot.nodes)
                if slot.room(request, 1):
                    return slot
            elif any(rule.relation.kind is RelationKind.SPREAD for rule in self._on_nodes):
                return None  # nor may any other that has as many; the lowest may rise
            else:
                heapq.heappop(spot.nodes)
        return None

    def _rank(self, spot: _Spot) -> tuple[int, float, int]:
        spread = sum(_has(rule, spot.facts) for rule in self._labelled)
        if self._on_nodes and spot.nodes:
            spread += spot.nodes[0][0]
        return spread, _cost(self._labelled, spot.facts), -spot.room


def _has(rule: _Rule, facts: NodeFacts) -> int:
    """How many tasks of a gang that has to be spread are there."""
    if rule.relation.weight or rule.relation.kind is not RelationKind.SPREAD:
        return 0
    return rule.own.get(place_of(rule.relation.place, facts) or "", 0)


def _allow(rules: list[_Rule], facts: NodeFacts) -> bool:
    return all(rule.allows(facts) for rule in rules)


def _cost(rules: list[_Rule], facts: NodeFacts) -> float:
    """How much worse it is there by what is wished for."""
    return sum(penalty(rule.relation, *rule.seen_from(facts)) for rule in rules if rule.relation.weight)


def gathering(related: Related) -> str | None:
    """The label, or the node, at one value of which all of the gang has to be; None: it hasn't."""
    return next((rule.relation.place for rule in related.begin() if rule.one_place), None)


def places_in_order(label: str, parts: list[Asked], pool: list[Slot]) -> list[list[Slot]]:
    """The nodes of each place where all of a gang may be, those of the roomiest first; of some places."""
    places: dict[str, list[Slot]] = {}
    for slot in pool:
        place = place_of(label, slot.node.facts)
        if place is not None:
            places.setdefault(place, []).append(slot)
    rooms = {
        place: min(sum(slot.room(request, tasks) for slot in there) for _, request, tasks in parts)
        for place, there in places.items()
    }
    return [places[place] for place in heapq.nlargest(MOST_TRIES, places, key=lambda each: (rooms[each], each))]


def lay(related: Related, parts: list[Asked], pool: list[Slot], most: int, take: Callable[[int], Take]) -> Steps[int]:
    """Lay tasks of each part, as many as there is place for, `most` on a node. Returns how many.

    `take` is told part by part what it is to be taken: it takes the room on the nodes.
    """
    laying, laid = _Laying(related.begin(), most), 0
    for number, request, tasks in parts:
        laid += yield from laying.lay(request, tasks, pool, take(number))
    return laid
