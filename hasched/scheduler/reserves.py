"""Reserves: the nodes that are kept for the first gang that fits nowhere, so that it isn't passed for ever.

Each of them is a hold for some of the gang's tasks: others get what has surely ended by the time there is room for those, or
what fits beside. So the nodes run empty, sooner or later all of them have room at once, and the gang starts there or, if
there is room elsewhere before, there. Of the nodes that lack the least they are those that surely have room first.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from hasched.model.wire import AttemptKey
from hasched.scheduler.holds import Blocked, Hold, Holds, Wanted, fits_all, room_in_time
from hasched.scheduler.order import Rank
from hasched.scheduler.placement import free_share
from hasched.scheduler.preemption import NOTHING, Cost, Ousting
from hasched.scheduler.rooms import Part, Place, Rooms
from hasched.scheduler.shapes import NEVER_MS
from hasched.scheduler.slots import Changes, Slot
from hasched.statemachine.job import Job
from hasched.statemachine.state import State

LOOKS_A_STEP = 150  # nodes looked at before others have their turn
ATTEMPTS_A_LOOK = 4  # to see whom of so many could be driven out costs as much as a look
HOLDS_A_STEP = 32  # of which it is found out who has to go
CLOSE_LOOKS = 64  # nodes of which it is worked out when they surely have room,
CLOSE_STEP = 4  # so many at a time
DROPPED_AT_ONCE = 1000  # of those looked at, once it is known whom to take


Picking: TypeAlias = Iterator[dict[Slot, Wanted] | None]


class Reserve:
    """The holds of a gang, one a node. `asked`: whoever had to go for it was told so, or nobody has to."""

    __slots__ = ("asked", "holds", "job_id", "judged", "rooms", "search", "version")

    def __init__(self, job_id: int, rooms: Rooms) -> None:
        self.job_id = job_id
        self.rooms = rooms
        self.judged = (
            rooms.related.versions if rooms.related is not None else ()
        )  # what the gang's relations were judged by
        self.holds: list[Hold] = []
        self.asked = False
        self.search: Iterator[tuple[AttemptKey, ...] | None] | None = None  # for who has to go
        self.version = 0  # of the changes of nodes that `gather` has looked at


class _Candidate(NamedTuple):
    cost: Cost  # of making room there for one task, of nodes where others are driven out
    spared: bool  # it has GPUs, and the gang wants none
    lacks: float  # the part of its room for the gang that is taken
    busy: float
    order: int
    slot: Slot
    empty: Slot  # as it would be if nothing ran there
    rooms: tuple[int, ...]  # how many tasks with each request it would take then

    @property
    def tasks(self) -> int:
        return max(min(self.rooms), 1)


def pick(state: State, rooms: Rooms, slots: list[Slot], standing: tuple[Rank, Holds]) -> Picking:
    """Step by step, None until the last: what of the smallest gang should be held on which nodes; nothing if no nodes could."""
    yield from _pick(state, rooms, slots, standing, None)


def pick_by_force(state: State, rooms: Rooms, slots: list[Slot], standing: tuple[Rank, Holds], winner: Job) -> Picking:
    """The same for a gang that may drive others out: the nodes on which that costs the least, if there are so many."""
    picked: dict[Slot, Wanted] | None = None
    for picked in _pick(state, rooms, slots, standing, winner):
        if picked is None:
            yield None
    yield from (picked,) if picked else pick(state, rooms, slots, standing)


def _pick(state: State, rooms: Rooms, slots: list[Slot], standing: tuple[Rank, Holds], winner: Job | None) -> Picking:
    """`winner`: the gang, if others have to go for it; else everybody ends in time. If a chosen node is another by then, anew."""
    while True:
        wanted = yield from _pick_once(state, rooms, slots, standing, winner)
        if all(_may_be_held(state, rooms, slot, standing) for slot in wanted):
            yield wanted
            return
        yield None


def _may_be_held(state: State, rooms: Rooms, slot: Slot, standing: tuple[Rank, Holds]) -> bool:
    rank, holds = standing
    return (
        slot.usable
        and slot.node_id in state.nodes
        and rooms.admits(slot, state.now_ms)
        and not (slot.held and holds.stands_before(slot, rank))
    )


def _pick_once(
    state: State, rooms: Rooms, slots: list[Slot], standing: tuple[Rank, Holds], winner: Job | None
) -> Generator[None, None, dict[Slot, Wanted]]:
    ousting = Ousting(state, winner) if winner is not None else None
    places: dict[str, list[_Candidate]] = {}
    looks = 0
    for slot in slots:
        looks += 1 if ousting is None else 1 + len(slot.node.attempts) // ATTEMPTS_A_LOOK
        if looks >= LOOKS_A_STEP:
            looks = 0
            yield None
        if not _may_be_held(state, rooms, slot, standing):
            continue
        empty = (slot.emptied() if ousting is None else ousting.cleared(slot)).held_for(rooms.shape.requests[0])
        found = tuple(rooms.room(empty, request, rooms.shape.most) for request in rooms.shape.requests)
        if any(found):
            now = sum(rooms.room(slot, request, rooms.shape.most) for request in rooms.shape.requests)
            spared = slot.total.gpus > 0 and not any(request.gpus for request in rooms.shape.requests)
            standing_here = (spared, 1.0 - now / sum(found), 1.0 - free_share(slot), slot.order)
            value = slot.node.info.labels.get(rooms.shape.near[0], "") if rooms.shape.must_be_near else ""
            cost = _cost_of(ousting, slot, rooms, found) if ousting is not None else NOTHING
            places.setdefault(value, []).append(_Candidate(cost, *standing_here, slot, empty, found))
    if rooms.shape.must_be_near:
        places.pop("", None)
    offers: list[tuple[int, float, str, list[Part], Sequence[_Candidate]]] = []
    for value, candidates in sorted(places.items()):
        yield None
        least = rooms.shape.least
        if winner is None:
            pool = yield from _lowest(candidates, least, CLOSE_LOOKS // len(places))
            chosen = yield from _first_to_have_room(state, rooms, pool)
        else:
            chosen = yield from _lowest(candidates, least)
        used, parts = chosen, (yield from _fill(rooms, chosen, state.now_ms))
        if not parts:
            used, parts = candidates, (yield from _fill(rooms, candidates, state.now_ms))
        if parts:
            lost, busy = sum(each.cost[0] for each in chosen), sum(each.busy for each in chosen)
            offers.append((lost, busy, value, parts, used))
    wanted = _by_node(rooms, *min(offers, key=lambda each: each[:3])[3:]) if offers else {}
    for candidates in places.values():
        while candidates:  # to let go of ten thousand copies takes as long as a slice may
            del candidates[-DROPPED_AT_ONCE:]
            yield None
    return wanted


def _cost_of(ousting: Ousting, slot: Slot, rooms: Rooms, found: tuple[int, ...]) -> Cost:
    """What it costs to have the room there that there is without those who may be driven out, for each thousand tasks."""
    kind, most = next((kind, min(room, rooms.shape.least)) for kind, room in enumerate(found) if room)
    victims = ousting.on(slot, ((rooms.shape.requests[kind], most),))
    if victims is None:
        return NOTHING
    attempts, priority, work_ms = victims.cost
    return attempts * 1000 // most, priority, work_ms * 1000 // most


def _lowest(candidates: list[_Candidate], tasks: int, nodes: int = 0) -> Generator[None, None, list[_Candidate]]:
    """The first of them, as many as take so many tasks, and so many nodes at least if there are."""
    heap, taken = list(candidates), list[_Candidate]()
    heapq.heapify(heap)
    while heap and (tasks > 0 or len(taken) < nodes):
        taken.append(heapq.heappop(heap))
        tasks -= taken[-1].tasks
        if not len(taken) % LOOKS_A_STEP:
            yield None
    return taken


def _first_to_have_room(state: State, rooms: Rooms, pool: list[_Candidate]) -> Generator[None, None, list[_Candidate]]:
    """As many as will do, of those that lack the least the first to have room."""
    least = rooms.shape.least
    if len(pool) > CLOSE_LOOKS:
        return _enough(pool, least)
    times: dict[Slot, int] = {}
    for number, each in enumerate(pool, 1):
        times[each.slot] = _room_ms(state, rooms, each)
        if not number % CLOSE_STEP:
            yield None
    return _enough(sorted(pool, key=lambda each: (each.spared, times[each.slot], *each[2:5])), least)


def _enough(candidates: list[_Candidate], tasks: int) -> list[_Candidate]:
    taken: list[_Candidate] = []
    for each in candidates:
        if tasks <= 0:
            break
        taken.append(each)
        tasks -= each.tasks
    return taken


def _room_ms(state: State, rooms: Rooms, candidate: _Candidate) -> int:
    """When it surely has room for as much of the gang as it would take empty."""
    slot = candidate.slot
    if slot.node_id not in state.nodes:
        return NEVER_MS
    request, tasks = max(zip(rooms.shape.requests, candidate.rooms, strict=True), key=lambda each: each[1])
    return room_in_time(state, slot, ((request, tasks),))[0]


def _fill(rooms: Rooms, candidates: list[_Candidate], now_ms: int) -> Generator[None, None, list[Part]]:
    place, taken = Place(len(rooms.shape.requests)), list[Part]()
    place.slots = {each.empty: each.rooms for each in candidates}
    for _ in rooms.fill(place, rooms.shape.least, now_ms, taken, copies=True):
        yield None
    return taken


def _by_node(rooms: Rooms, parts: list[Part], candidates: Sequence[_Candidate]) -> dict[Slot, Wanted]:
    slots = {each.empty: each.slot for each in candidates}
    wanted: dict[Slot, Wanted] = {}
    for empty, part, tasks, _ in parts:
        slot = slots[empty]
        wanted[slot] = (*wanted.get(slot, ()), (rooms.shape.parts[part][0], tasks))
    return wanted


def keep(holds: Holds, rooms: Rooms, gang: Blocked, wanted: dict[Slot, Wanted]) -> Reserve:
    """Hold these nodes for the gang; who holds one and stands behind it has to look for another."""
    reserve = Reserve(gang.job_id, rooms)
    for slot, tasks in wanted.items():
        if slot.held:
            holds.forget_slot(slot)
        reserve.holds.append(holds.hold_for(gang, slot, tasks))
    for hold in reserve.holds:
        hold.together = reserve.holds
    rooms.own = dict.fromkeys(wanted)
    return reserve


def is_sound(state: State, reserve: Reserve) -> bool:
    """Whether the gang could start on its nodes once they are empty: who came or went may have decided against it."""
    rooms = reserve.rooms
    if rooms.related is None or rooms.related.versions == reserve.judged:
        return True
    place, taken = Place(len(rooms.shape.requests)), list[Part]()
    for hold in reserve.holds:
        empty = hold.slot.emptied()
        place.slots[empty] = tuple(rooms.room(empty, request, rooms.shape.most) for request in rooms.shape.requests)
    for _ in rooms.fill(place, rooms.shape.least, state.now_ms, taken, copies=True):
        pass
    reserve.judged = rooms.related.versions
    return bool(taken)


def gather(state: State, holds: Holds, reserve: Reserve, changes: Changes) -> int:
    """Hold nodes that have come to have room in place of those that have none yet, latest first. Returns the looks it took."""
    version, reserve.version = reserve.version, changes.version
    late = [hold for hold in reserve.holds if holds.is_kept(hold) and not fits_all(hold.slot, hold.wanted)]
    late.sort(key=lambda hold: hold.start_ms)
    looks, rooms = len(late), reserve.rooms
    for slot in list(changes.since(version)) if version and late else ():
        looks += 1
        if slot in rooms.own or not late or not _may_be_held(state, rooms, slot, (late[0].rank, holds)):
            continue
        for number in reversed(range(len(late))):
            hold = late[number]
            if fits_all(slot, hold.wanted) and rooms.are_near(slot, hold.slot):
                _move(holds, reserve, hold, slot)
                del late[number]
                break
    return looks


def _move(holds: Holds, reserve: Reserve, hold: Hold, slot: Slot) -> None:
    """Hold another node for the same part of the gang."""
    holds.release(hold)
    if slot.held:
        holds.forget_slot(slot)
    del reserve.rooms.own[hold.slot]
    reserve.rooms.own[slot] = None
    other = holds.hold_for(Blocked(hold.rank, hold.shape, hold.job_id), slot, hold.wanted)
    reserve.holds[reserve.holds.index(hold)] = other
    other.together = reserve.holds


def release(holds: Holds, reserve: Reserve) -> None:
    reserve.rooms.own = {}
    for hold in reserve.holds:
        holds.release(hold)


def find_victims(state: State, reserve: Reserve, winner: Job) -> Iterator[tuple[AttemptKey, ...] | None]:
    """Who has to go so that the whole gang can start on the nodes that it holds; nobody, if that wouldn't be enough.

    Step by step, None until the last.
    """
    ousting, found = Ousting(state, winner), list[AttemptKey]()
    for number, hold in enumerate(reserve.holds):
        if number % HOLDS_A_STEP == HOLDS_A_STEP - 1:
            yield None
        victims = ousting.on(hold.slot, hold.wanted)
        if victims is None:
            yield ()
            return
        found += ousting.name(victims)
        ousting.take(victims)
    yield tuple(found)
