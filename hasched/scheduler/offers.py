"""Offers: the node that a shape which fits nowhere should hold, looked for in steps.

Of nodes that are alike the fullest and the emptiest are looked at closely, whatever their labels; those that the relations of
the shape refuse now are passed by place after place, for all nodes of a place are judged at once. So a search costs the places
and shelves of a view, and no step is long. What changes meanwhile is looked at before it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from hasched.model.spec import Resources
from hasched.scheduler.candidates import Cursor
from hasched.scheduler.holds import Offer, room_in_time
from hasched.scheduler.mosaics import Steps
from hasched.scheduler.shapes import NEVER_MS, Shape
from hasched.scheduler.shelves import Place
from hasched.scheduler.slots import Changes, Slot
from hasched.scheduler.windows import Windows
from hasched.statemachine.state import State

CLOSE_LOOKS = 12  # nodes of which it is worked out when a task could start there
ENDS = CLOSE_LOOKS // 2  # of nodes that are alike, from either end
MOST_OF_A_KIND = 16 * ENDS  # that are kept before those between the ends are dropped
PLACE_LOOKS = 2  # to see whether relations let a task start at a place costs as much as a look at so many shelves,
NODE_LOOKS = 4  # and to see what a node lacks
LOOKS_A_STEP = 500
LOOKS_A_UNIT = 12
MOST_TRIES = 3  # while others start and end of whom the shape's tasks stand in relations to

_Near: TypeAlias = tuple[bool, float, int, Slot]  # whether it is to be spared, what it lacks, and its order


class _Asked(NamedTuple):
    """Whom is asked for, and by which of the alternatives."""

    cursor: Cursor
    choice: int


class OfferSearch:
    """`go_on` until it returns True: then `found` is the offer, or None: no node that its rules permit now has so much in all."""

    def __init__(
        self, state: State, shape: Shape, cursors: Sequence[Cursor], changes: Changes, windows: Windows
    ) -> None:
        self.shape = shape
        self.found: Offer | None = None
        self.spares: Callable[[Resources, Slot], bool] = lambda request, slot: False  # what is left to others
        self.shaken = False  # whether what its rules permit is something else than when the search began
        self._state = state
        self._cursors = [_Asked(cursor, choice) for choice, cursor in enumerate(cursors)]
        self._changes = changes
        self._windows = windows
        self._looks = 0
        self._steps = self._run()

    def go_on(self) -> tuple[bool, int]:
        """One step. Whether it was the last, and the units that it took."""
        self._looks = 0
        done = next(self._steps, None) is None
        return done, 1 + self._looks // LOOKS_A_UNIT

    def _run(self) -> Steps[None]:
        for _ in range(MOST_TRIES):
            self.shaken = False
            near: list[tuple[_Near, _Asked]] = []
            for asked in self._cursors:
                near += [(each, asked) for each in (yield from self._look_at(asked.cursor))]
            self.found = yield from self._choose(near)
            if self.found is not None or not self.shaken:
                return

    def _choose(self, near: list[tuple[_Near, _Asked]]) -> Steps[Offer | None]:
        """Of these the one where a task can start the soonest."""
        if self._looks >= LOOKS_A_STEP // 2:
            yield self._looks
        for asked in self._cursors:
            yield from self._prepare(asked.cursor)
        now = [(self._near(asked.cursor, slot), slot, asked.choice) for (*_, slot), asked in near]
        offers = [Offer(0, *each[:3], slot, choice) for each, slot, choice in now if each is not None]
        offers.sort(key=lambda offer: offer[1:4])
        offers = [offer for offer in offers if offer.spared is offers[0].spared][:CLOSE_LOOKS]
        for number, offer in enumerate(offers):
            request = self.shape.requests[offer.choice]
            self._looks += NODE_LOOKS + 2 * len(offer.slot.node.attempts)
            start_ms, _ = room_in_time(self._state, offer.slot, ((request, 1),))
            offers[number] = offer._replace(start_ms=start_ms)
        return min(offers, key=lambda offer: offer[:4], default=None)

    def _prepare(self, cursor: Cursor) -> Steps[None]:
        while not cursor.ready:
            self._looks += cursor.prepare()
            yield self._looks
        self._looks += cursor.view.catch_up()

    def _pause(self, cursor: Cursor) -> Steps[None]:
        """Let others have their turn."""
        yield self._looks
        yield from self._prepare(cursor)

    def _look_at(self, cursor: Cursor) -> Steps[list[_Near]]:
        """Nodes that could hold a task if less ran there, those that lack the least among them."""
        yield from self._prepare(cursor)
        version = self._changes.version
        near = yield from self._among(cursor, (yield from self._ends(cursor)))
        if not near:  # they have something that few have: look at all
            near = yield from self._among_all(cursor)
        for _ in range(MOST_TRIES):
            if version == self._changes.version:
                return near
            changed = list(self._changes.since(version))
            version = self._changes.version
            near = _closest([*near, *(yield from self._among(cursor, changed))])
        self.shaken = self.shaken or version != self._changes.version
        return near

    def _ends(self, cursor: Cursor) -> Steps[list[Slot]]:
        """Of the nodes of each kind some from either end."""
        kinds: dict[Hashable, list[Place]] = {}
        for values, shelves in list(cursor.view.at.items()):
            self._looks += PLACE_LOOKS
            if cursor.opens(values):
                self._looks += len(shelves)
                for shelf in shelves:
                    some = kinds.setdefault(shelf.kind, [])
                    some += shelf.ends(ENDS)
                    if len(some) > MOST_OF_A_KIND:
                        some[:] = _ends_of(some)
            if self._looks >= LOOKS_A_STEP:
                yield from self._pause(cursor)
        return [slot for some in kinds.values() for _, _, slot in _ends_of(some)]

    def _among(self, cursor: Cursor, slots: Iterable[Slot]) -> Steps[list[_Near]]:
        found: list[_Near] = []
        for slot in slots:
            self._looks += NODE_LOOKS
            near = self._near(cursor, slot)
            if near is not None:
                found.append(near)
            if self._looks >= LOOKS_A_STEP:
                yield from self._pause(cursor)
        return _closest(found)

    def _among_all(self, cursor: Cursor) -> Steps[list[_Near]]:
        found: list[_Near] = []
        for values, shelves in list(cursor.view.at.items()):
            self._looks += PLACE_LOOKS
            if self._looks >= LOOKS_A_STEP:
                yield from self._pause(cursor)
            if cursor.opens(values):
                for shelf in shelves:
                    if not shelf.empty:
                        found = _closest([*found, *(yield from self._among(cursor, shelf.slots()))])
        return found

    def _near(self, cursor: Cursor, slot: Slot) -> _Near | None:
        """What a node lacks, if it could be held."""
        request: Resources = cursor.request
        if (
            slot not in cursor.view.places
            or not slot.could_hold(request)
            or self._windows.closes_ms(slot.node_id, self.shape.access) < NEVER_MS
            or not cursor.allows(slot)
            or self.spares(request, slot)
        ):
            return None
        return slot.total.gpus > 0 and not request.gpus, slot.shortfall(request), slot.order, slot


def _closest(found: list[_Near]) -> list[_Near]:
    return sorted(dict.fromkeys(found), key=lambda each: each[:3])[:CLOSE_LOOKS]


def _ends_of(places: list[Place]) -> list[Place]:
    """Some from either end of all of these."""
    places.sort()
    return places if len(places) <= 2 * ENDS else places[:ENDS] + places[-ENDS:]
