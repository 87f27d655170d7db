"""Reserves: the nodes that are kept for the first gang that fits nowhere, so that it isn't passed for ever.

Each of them is a hold for some of the gang's tasks: others get what has surely ended by the time there is room for those, or
what fits beside. So the nodes run empty, sooner or later all of them have room at once, and the gang starts there or, if
there is room elsewhere before, there. They are those that are the emptiest, and of those the ones that are surely free first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import msgspec

from hasched.model.spec import Resources
from hasched.model.wire import AttemptKey
from hasched.scheduler.holds import Blocked, Hold, Holds, Wanted
from hasched.scheduler.order import Rank
from hasched.scheduler.placement import free_share
from hasched.scheduler.preemption import victims_on, without_lower
from hasched.scheduler.rooms import Part, Place, Rooms
from hasched.scheduler.slots import Slot
from hasched.scheduler.usage import ends_of
from hasched.statemachine.job import Job
from hasched.statemachine.state import State

LOOKS_A_STEP = 150  # nodes looked at before others have their turn
CLOSE_LOOKS = 64  # nodes of which it is worked out when they are surely free


Picking: TypeAlias = Iterator[dict[Slot, Wanted] | None]


class Reserve:
    """The holds of a gang, one a node. `asked`: whoever had to go for it was told so, or nobody has to."""

    __slots__ = ("asked", "holds", "job_id", "rooms")

    def __init__(self, job_id: int, rooms: Rooms) -> None:
        self.job_id = job_id
        self.rooms = rooms
        self.holds: list[Hold] = []
        self.asked = False


class _Candidate(NamedTuple):
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
    yield from _pick(state, rooms, slots, standing, Slot.emptied)


def pick_by_force(state: State, rooms: Rooms, slots: list[Slot], standing: tuple[Rank, Holds], winner: Job) -> Picking:
    """The same for a gang that may drive others out: nodes on which that is enough, if there are so many."""
    picked: dict[Slot, Wanted] | None = None
    for picked in _pick(state, rooms, slots, standing, lambda slot: without_lower(state, winner, slot)):
        if picked is None:
            yield None
    yield from (picked,) if picked else pick(state, rooms, slots, standing)


def _pick(
    state: State, rooms: Rooms, slots: list[Slot], standing: tuple[Rank, Holds], clear: Callable[[Slot], Slot]
) -> Picking:
    """`clear` says what a node would be without those who have to go."""
    rank, holds = standing
    places: dict[str, list[_Candidate]] = {}
    for number, slot in enumerate(slots):
        if number % LOOKS_A_STEP == LOOKS_A_STEP - 1:
            yield None
        if not slot.usable or not rooms.admits(slot, state.now_ms) or (slot.held and holds.stands_before(slot, rank)):
            continue
        empty = clear(slot)
        found = tuple(rooms.room(empty, request, rooms.shape.most) for request in rooms.shape.requests)
        if any(found):
            value = slot.node.info.labels.get(rooms.shape.near[0], "") if rooms.shape.must_be_near else ""
            places.setdefault(value, []).append(_Candidate(1.0 - free_share(slot), slot.order, slot, empty, found))
    if rooms.shape.must_be_near:
        places.pop("", None)
    offers: list[tuple[float, str, list[Part], list[_Candidate]]] = []
    for value, candidates in sorted(places.items()):
        chosen = _first_to_be_free(state, sorted(candidates, key=lambda each: each[:2]), rooms.shape.least)
        parts = _fill(rooms, chosen, state.now_ms) or _fill(rooms, candidates, state.now_ms)
        if parts is not None:
            offers.append((sum(each.busy for each in chosen), value, parts, candidates))
    yield _by_node(rooms, *min(offers, key=lambda each: each[:2])[2:]) if offers else {}


def _first_to_be_free(state: State, candidates: list[_Candidate], least: int) -> list[_Candidate]:
    """As many as will do, of the emptiest those that are free first."""
    pool = _enough(candidates, 2 * least)
    if len(pool) <= CLOSE_LOOKS:
        pool.sort(key=lambda each: (_free_ms(state, each.slot), *each[:2]))
    return _enough(pool, least)


def _enough(candidates: list[_Candidate], tasks: int) -> list[_Candidate]:
    taken: list[_Candidate] = []
    for each in candidates:
        if tasks <= 0:
            break
        taken.append(each)
        tasks -= each.tasks
    return taken


def _free_ms(state: State, slot: Slot) -> int:
    ends = ends_of(state, slot.node)
    return ends[-1][0] if ends else state.now_ms


def _fill(rooms: Rooms, candidates: list[_Candidate], now_ms: int) -> list[Part] | None:
    place = Place(len(rooms.shape.requests))
    place.slots = {each.empty: each.rooms for each in candidates}
    return rooms.fill(place, rooms.shape.least, now_ms)


def _by_node(rooms: Rooms, parts: list[Part], candidates: list[_Candidate]) -> dict[Slot, Wanted]:
    slots = {each.empty: each.slot for each in candidates}
    wanted: dict[Slot, Wanted] = {}
    for empty, part, tasks in parts:
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
    rooms.own = dict.fromkeys(wanted)
    return reserve


def release(holds: Holds, reserve: Reserve) -> None:
    reserve.rooms.own = {}
    for hold in reserve.holds:
        holds.release(hold)


def find_victims(state: State, reserve: Reserve, winner: Job) -> tuple[AttemptKey, ...]:
    """Who has to go so that the whole gang can start on the nodes that it holds; nobody, if that wouldn't be enough."""
    found: list[AttemptKey] = []
    for hold in reserve.holds:
        victims = victims_on(state, winner, sum_of(hold.wanted), hold.slot)
        if victims is None:
            return ()
        found += victims.attempts
    return tuple(found)


def sum_of(wanted: Wanted) -> Resources:
    """What all of these tasks ask for together. Where they differ in the GPUs that will do, it is those of the first."""
    countables: dict[str, int] = {}
    for request, tasks in wanted:
        for name, amount in request.countables:
            countables[name] = countables.get(name, 0) + amount * tasks
    first = next((request for request, _ in wanted if request.gpus), wanted[0][0])
    return msgspec.structs.replace(
        first,
        cpu_milli=sum(request.cpu_milli * tasks for request, tasks in wanted),
        memory_bytes=sum(request.memory_bytes * tasks for request, tasks in wanted),
        gpus=sum(request.gpus * tasks for request, tasks in wanted),
        disk_bytes=sum(request.disk_bytes * tasks for request, tasks in wanted),
        countables=tuple(sorted(countables.items())),
    )
