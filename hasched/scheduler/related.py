"""The candidates of a shape that stands in relations to other tasks: the cursor's nodes, as these let them pass."""

from __future__ import annotations

import heapq

from hasched.model.spec import Resources
from hasched.scheduler.candidates import Cursor, View
from hasched.scheduler.placement import Scorer
from hasched.scheduler.relations import Relation, RelationKind, Tallies, Tally, holds, penalty
from hasched.scheduler.shapes import Shape
from hasched.scheduler.shelves import END
from hasched.scheduler.slots import Changes, Slot

SAMPLE = 64  # the best nodes by all else, among which a wish decides where each node is a place of its own


class RelatedCursor(Cursor):
    """A node that a relation refuses is passed over until it changes, or until the relation may let it pass.

    Nodes of one shelf are alike in every label that a relation names, so one refusal for a label's value passes over the shelf.
    """

    __slots__ = ("_floors", "_pairs", "_samples", "_seen", "_tallies", "_wishes")

    def __init__(self, shape: Shape, request: Resources, view: View, scorer: Scorer, tallies: Tallies) -> None:
        super().__init__(shape, request, view, scorer)
        self._tallies = tallies
        self._pairs: list[tuple[Relation, Tally]] = [(each, tallies.hold(each)) for each in shape.relations]
        self._wishes = any(each.weight for each in shape.relations)
        self._samples = any(each.weight and not each.place for each in shape.relations)
        self._floors: list[int] = []
        self._seen: object = None

    def release(self) -> None:
        for relation, _ in self._pairs:
            self._tallies.release(relation)

    @property
    def ready(self) -> bool:
        return self.view.complete and not any(tally.missing for _, tally in self._pairs)

    def prepare(self) -> int:
        if not self.view.complete:
            return self.view.build()
        for _, tally in self._pairs:
            if tally.missing:
                return self._tallies.build(tally)
        return 0

    def best(self, changes: Changes, now_ms: int) -> Slot | None:
        self.looks += self.view.catch_up()
        self._look_around()
        found: list[tuple[float, int, int, Slot, object]] = []
        while (slot := super().best(changes, now_ms)) is not None:
            self.looks += 1
            refused = self._refusal(slot)
            if refused is not None:
                self._pass_over(slot, bool(refused.place))
                continue
            if not self._wishes:
                return slot
            score, order, version, _, headed = heapq.heappop(self._heap)
            total = score + self._penalty(slot)
            if self._samples:
                found.append((total, order, version, slot, (score, order, version, slot, None)))
                if headed is not None:
                    self._advance(headed)
                if len(found) >= SAMPLE:
                    break
            else:
                found.append((total, order, version, slot, (score, order, version, slot, headed)))
        for *_, entry in found:
            heapq.heappush(self._heap, entry)  # type: ignore[misc]  # it is an entry as it was taken from there
        return min(found, key=lambda each: each[:2])[3] if found else None

    def _look_around(self) -> None:
        """Note what all places have in common. If something may pass now that didn't, look at everything anew."""
        self._floors = [self._floor(relation, tally) for relation, tally in self._pairs]
        seen = []
        for (relation, tally), floor in zip(self._pairs, self._floors, strict=True):
            if relation.weight:
                continue
            match relation.kind:
                case RelationKind.NEAR:
                    seen.append((tally.version if relation.place else 0, int(tally.total == 0)))
                case RelationKind.APART:
                    seen.append((tally.lowered if relation.place else 0, 0))
                case RelationKind.SPREAD:
                    seen.append((tally.lowered if relation.place else 0, floor))
        if seen != self._seen:
            self._seen = seen
            self._version = -1

    def _floor(self, relation: Relation, tally: Tally) -> int:
        """How many tasks there are at the place, of those that the rules allow, which has the fewest."""
        if relation.kind is not RelationKind.SPREAD:
            return 0
        if relation.place:
            at = self.view.places_of.index(relation.place)
            values = dict.fromkeys(alike.places[at] for alike, shelf in self.view.shelves.items() if not shelf.empty)
            counts = tally.by_label[relation.place]
            return min((counts.get(value, 0) for value in values if value is not None), default=0)
        if len(tally.counts) < len(self.view.places):
            return 0
        return min((tally.counts.get(slot.node_id, 0) for slot in self.view.places), default=0)

    def _refusal(self, slot: Slot) -> Relation | None:
        """A relation that must hold, and would not."""
        facts = slot.node.facts
        for (relation, tally), floor in zip(self._pairs, self._floors, strict=True):
            if not relation.weight and not holds(relation, tally.at(relation, facts), tally.total, floor):
                return relation
        return None

    def _penalty(self, slot: Slot) -> float:
        facts = slot.node.facts
        return sum(
            penalty(relation, tally.at(relation, facts), tally.total, floor)
            for (relation, tally), floor in zip(self._pairs, self._floors, strict=True)
            if relation.weight
        )

    def _pass_over(self, slot: Slot, whole_shelf: bool) -> None:
        *_, headed = heapq.heappop(self._heap)
        if whole_shelf:
            self._marks[self.view.places[slot][0]] = END
        elif headed is not None:
            self._advance(headed)
