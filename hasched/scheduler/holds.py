"""Holds: room that is kept for those who stand first and fit nowhere (backfill with a start reservation).

A shape that stands aside while others pass it would wait for ever if they took whatever comes free. So the first few that
wait each hold a node: the one on which they can start the soonest, by the time limits of what runs there. On it others are
started only if they have surely ended by then, or fit beside what it is held for. So a hold is kept whatever they do, and a
job that holds a node starts at the held time at the latest, if limits are kept; earlier if a node has room earlier.

Where what runs has no time limit, no time can be named: then the node that lacks the least is held, and others get only what
fits beside. A hold is cheap: it looks closely at a few nodes that are the most free, once, and again only at its own node
when something changes there (ADR 0015).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from hasched.model.ids import JobId, NodeId
from hasched.model.spec import Resources
from hasched.scheduler.candidates import Cursor
from hasched.scheduler.order import Rank
from hasched.scheduler.shapes import NEVER_MS, Shape
from hasched.scheduler.slots import Changes, Slot, least
from hasched.scheduler.usage import ends_of
from hasched.scheduler.windows import Windows
from hasched.statemachine.state import State

MOST_HOLDS = 8
CLOSE_LOOKS = 8  # that it costs to see whether a task may start on a held node that has room
REFRESHED_AT_ONCE = 128  # holds of which it is worked out when they can start
NODES_A_HOLD = 16  # of so many nodes one may be held; one always may


Wanted: TypeAlias = tuple[tuple[Resources, int], ...]  # so many tasks with each request


class Blocked(NamedTuple):
    """A shape that fits nowhere, with its first job."""

    rank: Rank
    shape: Shape
    job_id: JobId


class Offer(NamedTuple):
    """When a task could start on a node at the latest, and what it lacks there now, as a part of the node."""

    start_ms: int
    spared: bool  # it has GPUs and the task wants none: it is held only if no other could hold the task
    lacks: float
    order: int
    slot: Slot
    choice: int


class Hold:
    """For some tasks; mostly it is one. `beside` is what others may have on the node until its start and beyond."""

    __slots__ = (
        "beside",
        "choice",
        "job_id",
        "made",
        "rank",
        "shape",
        "slot",
        "stale",
        "start_ms",
        "together",
        "wanted",
    )

    def __init__(self, blocked: Blocked, slot: Slot, wanted: Wanted) -> None:
        self.rank, self.shape, self.job_id = blocked
        self.slot = slot
        self.wanted = wanted
        self.choice = 0
        self.made = 0  # tasks for which others were driven out, or for which enough room comes by itself
        self.start_ms = 0  # not worked out yet
        self.beside = slot
        self.stale = True
        self.together: Sequence[Hold] = (self,)  # those that start at once with it

    def refresh(self, state: State) -> None:
        """Work out anew when it can start, and what is left beside it."""
        self.stale = False
        self.start_ms, then = room_in_time(state, self.slot, self.wanted)
        for request, tasks in self.wanted:
            then.take(request, tasks)
        self.beside = then

    def room(self, shape: Shape, request: Resources, most: int, now_ms: int, together_ms: int) -> int:
        """How many tasks of a shape that stands behind may start on the node now; `together_ms`: when all of the gang can."""
        now = self.slot.room(request, most)
        if not now or self._ends_in_time(shape, now_ms, together_ms):
            return now
        slot, first = self.slot, self.wanted[0][0]
        if request.gpus and not first.gpus and not slot.kept.gives_way(first, slot.total):
            request = slot.kept.beyond(request, slot.total)  # the rest isn't for the holder anyway
        return self.beside.room(request, now)

    def is_for(self, shape: Shape, rank: Rank) -> bool:
        """Whether a shape may use all of the node: it holds it, or stands before the holder."""
        return shape is self.shape or rank < self.rank

    def _ends_in_time(self, shape: Shape, now_ms: int, together_ms: int) -> bool:
        """Before all of the gang can start; where nobody knows when that is, before this node has room for its part."""
        start_ms = together_ms
        if start_ms == NEVER_MS:
            start_ms = self.start_ms
        return start_ms < NEVER_MS and now_ms + shape.limit_ms <= start_ms


class Holds:
    """`find` and `room` answer for the nodes that are held, which are among nobody's candidates."""

    def __init__(self, changes: Changes, windows: Windows) -> None:
        self._changes = changes
        self._windows = windows
        self._holds: dict[Shape, Hold] = {}
        self._more: dict[Shape, dict[Slot, Hold]] = {}  # where others were driven out for more of its tasks
        self._of_slot: dict[Slot, Hold] = {}
        self._denied: dict[
            Cursor, tuple[Rank, tuple[int, ...]]
        ] = {}  # who found nothing here: the best rank, and what ran
        self._together: tuple[Sequence[Hold], int] | None = None  # holds of a gang, and when all of them can start
        self.behind = False  # that isn't known yet
        self.released = False  # whether a node was let go since somebody last set it to False
        self.version = 0  # rises whenever other nodes are held, or for others
        self.looks = 0  # at held nodes, since somebody last set it to 0

    def find(self, state: State, cursor: Cursor, asked: tuple[Shape, int, Rank]) -> Slot | None:
        """The best held node on which a task of this shape may start."""
        shape, choice, rank = asked
        denied, surroundings = self._denied.get(cursor), cursor.surroundings if shape.relations else ()
        if denied is not None and denied[0] <= rank and denied[1] == surroundings:
            return None  # time goes on, so what a hold leaves to others only gets less
        request = shape.requests[choice]
        cpu_milli, memory_bytes, gpus = least(request)
        self.looks += len(self._of_slot)
        best: tuple[float, int] | None = None
        found: Slot | None = None
        own = self._more.get(shape)
        for slot in self._of_slot if own is None else (*own, self._holds[shape].slot, *self._of_slot):
            if slot.cpu_milli < cpu_milli or slot.memory_bytes < memory_bytes or slot.gpus < gpus:
                continue
            self.looks += CLOSE_LOOKS
            if not cursor.view.admits(slot):
                continue
            if shape.relations and not cursor.permits(slot):
                continue
            closes_ms = self._windows.closes_ms(slot.node_id, shape.access)
            if closes_ms < NEVER_MS and state.now_ms + shape.limit_ms > closes_ms:
                continue
            if self.room(state, slot, asked, 1) and (best is None or cursor.score(slot) < best):
                best, found = cursor.score(slot), slot
                if own is not None and self._of_slot[slot].shape is shape:
                    break  # there may be hundreds
        if found is None and not self.behind and cursor.ready:
            self._denied[cursor] = rank, surroundings
        return found

    def room(self, state: State, slot: Slot, asked: tuple[Shape, int, Rank], most: int) -> int:
        """How many tasks of a shape and rank may start on a held node now. Who stands before the holder may use it all."""
        shape, choice, rank = asked
        hold = self._of_slot[slot]
        request = shape.requests[choice]
        if shape is hold.shape:
            return slot.held_for(request).room(request, most)
        if hold.is_for(shape, rank):
            return slot.room(request, most)
        together_ms = self._start_together(state, hold.together)
        return hold.room(shape, request, most, state.now_ms, together_ms) if together_ms is not None else 0

    def _start_together(self, state: State, holds: Sequence[Hold]) -> int | None:
        """When all of these can start; None while that isn't worked out, for there may be thousands (`catch_up`)."""
        if self._together is not None and self._together[0] is holds:
            return self._together[1]
        if self.behind and len(holds) > 1:
            return None
        stale = [each for each in holds if each.stale]
        for each in stale[:REFRESHED_AT_ONCE]:
            each.refresh(state)
        if len(stale) > REFRESHED_AT_ONCE:
            self.behind = True
            return None
        start_ms = max(each.start_ms for each in holds)
        if len(holds) > 1:
            self._together = (holds, start_ms)
        return start_ms

    def catch_up(self, state: State) -> None:
        """Go on with working out when those can start that are held together; once it is known, others may have more."""
        self.behind = False
        for holds in {hold.rank: hold.together for hold in self._of_slot.values() if len(hold.together) > 1}.values():
            if self._start_together(state, holds) is None:
                return
        self._denied.clear()
        self.released = True

    def count(self, slot: Slot, shape: Shape, rank: Rank, tasks: int) -> None:
        """Tasks were placed on a held node. It isn't held any more for those of the holder, nor if others stand before it."""
        hold = self._of_slot[slot]
        if hold.shape is shape and hold.made > tasks:
            self.set_made(hold, hold.made - tasks)
        elif hold.is_for(shape, rank):
            self._release(hold)
        else:
            self.touch(slot)

    def touch(self, slot: Slot) -> None:
        """Something has changed on a held node."""
        self._of_slot[slot].stale = True
        self._together = None
        self._denied.clear()

    def limit(self, nodes: int) -> int:
        """How many holds there may be."""
        return max(1, min(MOST_HOLDS, nodes // NODES_A_HOLD))

    def keep(self, blocked: Iterable[Blocked]) -> Blocked | None:
        """Hold for these alone. Returns the first that has no hold yet."""
        first: Blocked | None = None
        wanted: dict[Shape, None] = {}
        for one in blocked:
            wanted[one.shape] = None
            for hold in self.of_shape(one.shape):
                hold.rank, hold.job_id = one.rank, one.job_id
            if first is None and one.shape not in self._holds:
                first = one
        for shape in list(self._holds):
            if shape not in wanted:
                self.forget_shape(shape)
        return first

    def hold(self, blocked: Blocked, offer: Offer) -> None:
        wanted = ((blocked.shape.requests[offer.choice], 1),)
        hold = self._holds[blocked.shape] = self.hold_for(blocked, offer.slot, wanted)
        hold.choice = offer.choice

    def hold_for(self, blocked: Blocked, slot: Slot, wanted: Wanted) -> Hold:
        """Hold a node for some tasks of a gang, among others. These holds are the caller's to keep and to release."""
        hold = self._of_slot[slot] = Hold(blocked, slot, wanted)
        slot.held = True
        self._changed(slot)
        return hold

    def of_shape(self, shape: Shape) -> list[Hold]:
        """All holds for single tasks of a shape."""
        hold = self._holds.get(shape)
        return [] if hold is None else [hold, *self._more.get(shape, {}).values()]

    def made(self, slot: Slot, shape: Shape) -> int:
        """For how many tasks of a shape room has been made on a node."""
        hold = self._of_slot.get(slot)
        return hold.made if hold is not None and hold.shape is shape else 0

    def make(self, hold: Hold, slot: Slot) -> Hold:
        """Room is being made on a node for one task more of the shape that another node is held for; the hold of this one."""
        there = self._of_slot.get(slot)
        if there is not None and there.shape is not hold.shape:
            self._release(there)  # it stands behind
            there = None
        if there is None and not hold.made:
            self._move(hold, slot)
            there = hold
        elif there is None:
            there = self.hold_for(Blocked(hold.rank, hold.shape, hold.job_id), slot, hold.wanted)
            there.choice = hold.choice
            self._more.setdefault(hold.shape, {})[slot] = there
        self.set_made(there, there.made + 1)
        return there

    def set_made(self, hold: Hold, tasks: int) -> None:
        """So many tasks have, or will have, room at a hold; without any it is let go, but for the last of its shape."""
        if not tasks and self._more.get(hold.shape):
            self._release(hold)
            return
        hold.made = tasks
        hold.wanted = ((hold.shape.requests[hold.choice], max(tasks, 1)),)
        self.touch(hold.slot)

    def is_kept(self, hold: Hold) -> bool:
        """Whether it hasn't been released."""
        return self._of_slot.get(hold.slot) is hold

    def stands_before(self, slot: Slot, rank: Rank) -> bool:
        """Whether a held node is held for somebody before this place."""
        return self._of_slot[slot].rank < rank

    def any_before(self, rank: Rank) -> bool:
        """Whether any node is."""
        return any(hold.rank < rank for hold in self._of_slot.values())

    def behind_of(self, rank: Rank) -> dict[Slot, None]:
        """The nodes that are held for single tasks behind this place."""
        return {each.slot: None for hold in self if rank < hold.rank for each in self.of_shape(hold.shape)}

    def release(self, hold: Hold) -> None:
        """Let a node go, if it is still held so."""
        if self.is_kept(hold):
            self._release(hold)

    def _move(self, hold: Hold, slot: Slot) -> None:
        """Hold another node for the same."""
        before = hold.slot
        del self._of_slot[before]
        before.held, slot.held = False, True
        hold.slot, hold.stale = slot, True
        self._of_slot[slot] = hold
        self.released = True
        self._changed(before)
        self._changed(slot)

    def __iter__(self) -> Iterator[Hold]:
        return iter(self._holds.values())

    def of(self, slot: Slot) -> Hold:
        return self._of_slot[slot]

    def forget_slot(self, slot: Slot) -> None:
        """The node is gone, takes no work any more, or is somebody else's to hold."""
        self._release(self._of_slot[slot])

    def _release(self, hold: Hold) -> None:
        del self._of_slot[hold.slot]
        more = self._more.get(hold.shape)
        if self._holds.get(hold.shape) is hold:
            del self._holds[hold.shape]
            if more:
                first = next(iter(more))
                self._holds[hold.shape] = more.pop(first)
        elif more is not None:
            more.pop(hold.slot, None)
        if not more:
            self._more.pop(hold.shape, None)
        hold.slot.held = False
        self.released = True
        self._changed(hold.slot)

    def _changed(self, slot: Slot) -> None:
        self.version += 1
        self._together = None
        self._denied.clear()
        self._changes.note(slot)

    @property
    def nodes(self) -> dict[NodeId, JobId]:
        """The nodes that are held, and for whom."""
        return {slot.node_id: hold.job_id for slot, hold in self._of_slot.items()}

    def start_of(self, state: State, job_id: JobId) -> int | None:
        """When a job that holds a node can start at the latest; None if it holds none, or that can't be known."""
        start_ms = 0
        for hold in self._of_slot.values():
            if hold.job_id == job_id:
                if hold.stale:
                    hold.refresh(state)
                    self._together = None
                start_ms = max(start_ms, hold.start_ms)
        return start_ms if 0 < start_ms < NEVER_MS else None

    def release_all(self) -> None:
        for hold in list(self._of_slot.values()):
            self._release(hold)

    def forget_shape(self, shape: Shape) -> None:
        """Nothing of it waits any more."""
        for hold in reversed(self.of_shape(shape)):
            self._release(hold)

    def all_before(self, rank: Rank, limit: int) -> bool:
        """Whether there are as many holds as there may be, and all of them of shapes that stand before this rank."""
        return len(self._holds) >= limit and all(hold.rank < rank for hold in self._holds.values())

    def __len__(self) -> int:
        """How many nodes are held."""
        return len(self._of_slot)


def fits_all(slot: Slot, wanted: Wanted) -> bool:
    """Whether there is room for all of these tasks."""
    if len(wanted) > 1:
        slot = slot.copy()
    for number, (request, tasks) in enumerate(wanted):
        if number:
            slot.take(*wanted[number - 1])
        if slot.room(request, tasks) < tasks:
            return False
    return True


def room_in_time(state: State, slot: Slot, wanted: Wanted) -> tuple[int, Slot]:
    """When a node has surely room for these tasks, and what is free there then. `NEVER_MS`, and now, if one can't say."""
    held = slot.held_for(wanted[0][0])
    then = held.copy()
    if fits_all(then, wanted):
        return state.now_ms, then
    ends: list[tuple[int, Resources | None]] = [*ends_of(state, slot.node)]
    if slot.reserved_until_ms:
        ends.append((slot.reserved_until_ms, None))  # what is on its way
        ends.sort(key=lambda end: end[0])
    start_ms = NEVER_MS
    if not ends or ends[0][0] >= NEVER_MS:
        return start_ms, then
    for end_ms, asked in ends:
        if end_ms >= NEVER_MS or end_ms > start_ms:
            break
        if asked is None:
            then.give_back_reserved(slot)
        else:
            then.give_back(asked)
        if start_ms == NEVER_MS and fits_all(then, wanted):
            start_ms = end_ms
    return (start_ms, then) if start_ms < NEVER_MS else (NEVER_MS, held.copy())
