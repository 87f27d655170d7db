"""Gangs in the planner: jobs of which all tasks, or the first few, start together.

They stand in a line of their own, in classes like everybody else, and each is planned when its turn comes: after those in
the other line that stand before it. One that fits nowhere stands aside until enough has grown. A plan for a gang is one
command, decided whole or refused whole; until it is decided, its room is reserved like that of any plan on its way. To find it
may take several slices (`searches.py`), in which nobody else is planned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from hasched.model.ids import JobId, NodeId
from hasched.model.spec import GangTerms
from hasched.scheduler.holds import Blocked, Holds
from hasched.scheduler.line import Line, WaitingClass
from hasched.scheduler.mosaics import Related
from hasched.scheduler.order import Account, Order, Rank, RankGroup
from hasched.scheduler.reserves import (
    LOOKS_A_STEP,
    Picking,
    Reserve,
    find_victims,
    gather,
    is_sound,
    keep,
    pick,
    pick_by_force,
    release,
)
from hasched.scheduler.rooms import GangShape, Rooms, relations_to_lay
from hasched.scheduler.searches import GANG_PORTS, Asked, GangFlight, Search, free_port
from hasched.scheduler.shapes import NEVER_MS, Shape, ShapeKey, limit_of, rounded_up, traits_of
from hasched.scheduler.slots import Changes, Slot
from hasched.scheduler.tallies import Tallies
from hasched.scheduler.windows import Access, Windows
from hasched.statemachine.commands import PlaceGang, PreemptAttempts
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.state import State

MOST_AT_ONCE = 512  # tasks of an elastic job that start together, if that many have to; the others follow one by one
LOOKS_A_UNIT = 2


class _Key(NamedTuple):
    shape: ShapeKey
    terms: GangTerms
    least: int
    most: int


class GangShapes:
    """Each shape of gang once."""

    def __init__(self) -> None:
        self._shapes: dict[_Key, GangShape] = {}
        self._keys: dict[Shape, _Key] = {}
        self._made = 0

    def of(self, job: Job, access: Access) -> GangShape:
        assert job.gang is not None, "a job whose tasks start one by one has no such shape"
        limit_ms = limit_of(job)
        most = job.count if job.gang.whole else max(job.floor, min(job.eligible, MOST_AT_ONCE))
        key = _Key(
            ShapeKey(
                job.resources,
                job.placement,
                limit_ms if limit_ms == NEVER_MS else rounded_up(limit_ms),
                access,
                relations_to_lay(job) if job.placement is not None else (),
                traits_of(job),
            ),
            job.gang,
            max(job.floor, 1),
            most,
        )
        shape = self._shapes.get(key)
        if shape is None:
            self._made += 1
            parts = tuple((group.resources, group.count) for group in job.gang.groups) or ((job.resources, most),)
            shape = self._shapes[key] = GangShape(key.shape, self._made, parts, key.least)
            self._keys[shape] = key
        return shape

    def forget(self, shape: Shape) -> None:
        del self._shapes[self._keys.pop(shape)]


class Host(Protocol):
    """What gangs need of the planner."""

    def allowed(self, state: State, job: Job, least: int, most: int) -> int:
        """How many of the job's tasks may start now; 0 if not `least`, and then it waits until a gate opens."""

    def enlist(self, state: State, job_id: JobId) -> None:
        """Put a job into the line where it belongs now."""

    def take(self, state: State, job: Job, tasks: int) -> None:
        """Tell the gates of tasks that are on their way now; negative: not any more."""


class GangLine:
    def __init__(self, host: Host, order: Order, changes: Changes, windows: Windows, slots: dict[NodeId, Slot]) -> None:
        self._host = host
        self._order = order
        self._changes = changes
        self._windows = windows
        self._slots = slots
        self._flights: dict[JobId, GangFlight] = {}
        self._search: Search | None = None
        self.ports = GANG_PORTS
        self.empty_line(Holds(changes, windows), Tallies(self.on_their_way))

    def empty_line(self, holds: Holds, tallies: Tallies) -> None:
        """Nobody waits and nothing is held; what is on its way stays so."""
        self._tallies = tallies
        self._seen: dict[
            Shape, tuple[int, ...]
        ] = {}  # of shapes with relations that stand aside, what they were judged by
        if self._search is not None:
            self._search.give_up()
            self._search = None
        self._unlucky = False  # somebody stands aside though there seemed to be room
        self._unkept = False  # it hasn't been seen yet for whom nodes are to be kept now
        self._holds = holds
        self._shapes = GangShapes()
        self._rooms: dict[Shape, Rooms] = {}
        self._line = Line(self._order.rank, self._forget_shape)
        self._recheck: dict[Shape, None] = {}  # shapes aside that are still to be looked at
        self._reserve: Reserve | None = None
        self._passing: Blocked | None = None  # whom the nodes are open to that those hold who stand behind it
        self._picking: tuple[JobId, Picking] | None = None
        self._hopeless: dict[JobId, None] = {}  # that no nodes could hold, as long as nodes stay as they are
        self._later: tuple[JobId, int] | None = (
            None  # whom the holds of now leave too few nodes, and the version of those
        )

    def add(self, group: RankGroup, job: Job, access: Access) -> None:
        if self._waits(job):
            self._line.add(group, self._shapes.of(job, access), job.id)

    def rerank(self, accounts: Iterable[Account] | None) -> None:
        self._line.rerank(accounts)

    def forget_slot(self, slot: Slot) -> None:
        for rooms in self._rooms.values():
            rooms.forget(slot)

    def stir(self) -> None:
        """Something has grown: who stands aside may fit now."""
        self._recheck = dict(self._line.aside)

    def stir_unlucky(self) -> None:
        """Something has happened: who stands aside though there seemed to be room is tried again."""
        if self._unlucky:
            self._unlucky = False
            self.stir()

    def nodes_changed(self) -> None:
        """There are other nodes, or they are others."""
        self._hopeless.clear()

    @property
    def ready(self) -> bool:
        """Whether `plan` has anything to look at."""
        asks = self._reserve is not None and not self._reserve.asked
        return bool(
            self._search
            or self._recheck
            or self._picking
            or asks
            or self._line
            or (self._unkept and self._line.aside)
            or self._moved()
        )

    def _moved(self) -> list[Shape]:
        """The shapes that stand aside and may fit now, because some have come or gone to whom they stand in relations."""
        return [
            shape for shape, seen in self._seen.items() if shape in self._line.aside and seen != self._judged_by(shape)
        ]

    def _judged_by(self, shape: Shape) -> tuple[int, ...]:
        rooms = self._rooms.get(shape)
        return rooms.related.versions if rooms is not None and rooms.related is not None else ()

    def _set_aside(self, waiting: WaitingClass) -> None:
        self._line.set_aside(waiting)
        self._unkept = True
        if waiting.shape.relations:
            self._seen[waiting.shape] = self._judged_by(waiting.shape)

    def stands_before(self, rank: Rank | None) -> bool:
        """Whether somebody here is to be tried before a place in the other line; None: its end."""
        if self._seen:
            self._recheck.update(dict.fromkeys(self._moved()))
        if self._recheck or self._search is not None:
            return True
        first = self._line.first_rank
        return first is not None and (rank is None or first < rank)

    # What is on its way

    def on_their_way(self) -> Iterator[tuple[JobId, NodeId, int]]:
        """Tasks of each job on each node that the log has not answered for."""
        for job_id, flight in self._flights.items():
            for node_id, parts in flight.left.items():
                yield job_id, node_id, sum(tasks for _, tasks in parts)

    def land(self, state: State, job_id: JobId, node_id: NodeId) -> bool:
        """The job's tasks on a node were scheduled. Whether they were on their way."""
        flight = self._flights.get(job_id)
        if flight is None or node_id not in flight.left:
            return False
        self._let_go(flight, node_id)
        if not flight.left:
            self._end(state, job_id)
        return True

    def settle(self, state: State, command: PlaceGang) -> dict[NodeId, int]:
        """The plan was decided, or nobody will know: the nodes on which something of it is free again, with how many tasks."""
        flight = self._flights.get(command.job_id)
        if flight is None or flight.command is not command:
            return {}
        nodes = {node_id: flight.tasks_on(node_id) for node_id in flight.left}
        for node_id in nodes:
            self._let_go(flight, node_id)
        self._end(state, command.job_id)
        return nodes

    def _let_go(self, flight: GangFlight, node_id: NodeId) -> None:
        slot = self._slots.get(node_id)
        for request, tasks in flight.left.pop(node_id):
            if slot is not None:
                slot.reserve(request, -tasks)

    def _end(self, state: State, job_id: JobId) -> None:
        flight = self._flights.pop(job_id)
        job = state.jobs.get(job_id)
        if job is not None:
            self._host.take(state, job, -flight.size)

    # What to do

    def plan(self, state: State, before: Rank | None, budget: int) -> tuple[PlaceGang | None, int]:
        """The next gang that fits, of those that stand before a place in the other line, and the units spent."""
        self._line.settle()
        spent = self._call_back(state, budget) if self._search is None else 0
        while spent < budget and (self._search or (not self._recheck and self.stands_before(before))):
            if self._search is None:
                spent += self._begin(state)
            while self._search is not None and spent < budget:
                try:
                    spent += next(self._search.steps)
                except StopIteration as end:
                    plan = self._conclude(state, self._search, end.value)
                    if plan is not None:
                        return plan, spent + 1
        return None, spent

    def _call_back(self, state: State, budget: int) -> int:
        looks = 0
        while self._recheck and looks < budget * LOOKS_A_UNIT:
            shape = next(iter(self._recheck))
            rooms, looked = self._look(state, shape)
            looks += 1 + looked
            if rooms is None:
                continue
            del self._recheck[shape]
            if shape.relations:
                self._seen[shape] = self._judged_by(shape)
            if shape in self._line.aside and rooms.size_allowed(rooms.shape.most):
                self._line.call_back(shape)
            elif self._reserve is not None and self._reserve.rooms is rooms:
                looks += self._gather(state, self._reserve)
        return looks // LOOKS_A_UNIT

    def _gather(self, state: State, reserve: Reserve) -> int:
        """Keep nodes for the gang that have come to have room, in place of some that haven't yet. Returns the looks it took."""
        job = state.jobs.get(reserve.job_id)
        if job is None or job.preempts or reserve.rooms.related is not None:
            return (
                0  # whoever has to go was told so where the nodes are kept; and relations were judged for all of them
            )
        return gather(state, self._holds, reserve, self._changes)

    def _look(self, state: State, shape: Shape) -> tuple[Rooms | None, int]:
        """The table of a shape as things are now, None while it is being made; and the looks that it took."""
        rooms = self._rooms.get(shape)
        if rooms is None:
            assert isinstance(shape, GangShape)
            rooms = self._rooms[shape] = Rooms(shape, self._changes, self._windows, self._slots.values())
            rooms.related = Related(shape, self._tallies) if shape.relations else None
        if rooms.related is not None and (looks := rooms.related.prepare()):
            return None, looks
        looks = rooms.build(state.now_ms) if not rooms.complete else rooms.catch_up(state.now_ms)
        if rooms.complete and looks:
            looks += rooms.catch_up(state.now_ms)
        return (rooms if rooms.complete else None), looks

    def _begin(self, state: State) -> int:
        """Begin to plan the first job of the class that stands first, or put the class where it belongs. Returns the units."""
        waiting = self._line.next()
        assert waiting is not None, "somebody stands in line"
        rooms, looks = self._look(state, waiting.shape)
        spent = 1 + looks // LOOKS_A_UNIT
        job = state.jobs.get(waiting.first or 0)
        if rooms is None:
            self._line.enter(waiting)
        elif job is None or not self._is_of(waiting, job):
            self._leave(state, waiting, waiting.first or 0)
        elif not (size := rooms.size_allowed(rooms.shape.most)):
            self._set_aside(waiting)
        elif not (size := self._host.allowed(state, job, rooms.shape.least, size)):
            waiting.drop_first()
            self._line.enter(waiting)
        else:
            job_id = job.id

            def waits() -> bool:
                then = state.jobs.get(job_id)
                return (
                    then is not None
                    and self._is_of(waiting, then)
                    and bool(self._host.allowed(state, then, size, size))
                )

            asked = Asked(job_id, size, waits, lambda job, node: self._free_port(state, job, node))
            self._search = Search(state, waiting, rooms, asked)
        return spent

    def _is_of(self, waiting: WaitingClass, job: Job) -> bool:
        """Whether the job waits, and is still one of this class."""
        shape = waiting.shape
        return self._waits(job) and waiting.group.holds(job) and self._shapes.of(job, shape.access) is shape

    def _leave(self, state: State, waiting: WaitingClass, job_id: JobId) -> None:
        """The job leaves a class that is out of line; if it waits elsewhere, it stands there."""
        waiting.drop(job_id)
        self._line.enter(waiting)
        self._host.enlist(state, job_id)

    def _conclude(self, state: State, search: Search, flight: GangFlight | None) -> PlaceGang | None:
        """What comes of a search that has ended."""
        self._search = None
        waiting, job_id = search.waiting, search.asked.job_id
        job = state.jobs.get(job_id)
        if flight is None:
            if not search.moot and job is not None and self._is_of(waiting, job):
                self._unlucky = self._unlucky or search.unlucky
                self._set_aside(waiting)
                rooms, _ = self._look(state, waiting.shape)
                if rooms is None or 0 < rooms.size_allowed(rooms.shape.most) < search.asked.size:
                    self._recheck[waiting.shape] = None  # nodes have shrunk meanwhile: a smaller one may fit
            else:
                self._leave(state, waiting, job_id)
            return None
        assert job is not None, "it was looked at in the same step"
        for slot in [slot for slot in search.rooms.behind if slot.held and slot.node_id in flight.left]:
            self._holds.forget_slot(slot)  # who held it looks for another
        self._flights[job_id] = flight
        self._host.take(state, job, flight.size)
        waiting.drop(job_id)
        self._line.enter(waiting)
        if self._reserve is not None and self._reserve.job_id == job_id:
            self._let_reserve_go(self._reserve)
            self._unkept = True
        return flight.command

    def keep_reserve(self, state: State) -> int:
        """See to it that the first gang that fits nowhere has nodes kept for it, and no other. Returns the units spent."""
        self._unkept = False
        if not self._line.aside and self._reserve is None and self._picking is None and self._passing is None:
            return 0
        first = self._first_blocked(state)
        self._let_pass(state, first)
        reserve = self._reserve
        if reserve is not None:
            kept = first is not None and first.job_id == reserve.job_id
            if kept and all(self._holds.is_kept(hold) for hold in reserve.holds) and is_sound(state, reserve):
                return 1
            self._let_reserve_go(reserve)
        if first is None or first.job_id in self._hopeless or self._later == (first.job_id, self._holds.version):
            self._picking = None
            return 1
        rooms, looks = self._look(state, first.shape)
        if rooms is None:
            self._unkept = True
            return 1 + looks // LOOKS_A_UNIT
        if self._picking is None or self._picking[0] != first.job_id:
            slots, standing = list(self._slots.values()), (first.rank, self._holds)
            job = state.jobs[first.job_id]
            steps = (
                pick_by_force(state, rooms, slots, standing, job)
                if job.preempts
                else pick(state, rooms, slots, standing)
            )
            self._picking = (first.job_id, steps)
        wanted = next(self._picking[1])
        if wanted is not None:
            self._picking = None
            if not all(slot.usable for slot in wanted):
                self._unkept = True
                return 1  # they have changed since they were looked at
            if wanted:
                self._reserve = keep(self._holds, rooms, first, wanted)
                if any(hold.slot.held_for(hold.wanted[0][0]) is not hold.slot for hold in self._reserve.holds):
                    self._recheck[first.shape] = None  # what is kept for GPUs gives way to it
            elif self._holds.any_before(first.rank):
                self._later = (first.job_id, self._holds.version)
            else:
                self._hopeless[first.job_id] = None
        return 1 + LOOKS_A_STEP // LOOKS_A_UNIT

    def _let_pass(self, state: State, first: Blocked | None) -> None:
        """Open to the first gang that fits nowhere what others hold who stand behind it, until it has been tried with that."""
        passing = self._passing
        if passing is not None and passing.shape not in self._line.aside:
            job = state.jobs.get(passing.job_id)
            if job is not None and self._waits(job):
                first = passing
        if passing is not None and (first is None or first.shape is not passing.shape):
            rooms = self._rooms.get(passing.shape)
            if rooms is not None:
                rooms.let_pass({})
        self._passing = first
        rooms = self._rooms.get(first.shape) if first is not None else None
        if first is not None and rooms is not None and rooms.let_pass(self._holds.behind_of(first.rank)):
            self._recheck[first.shape] = None

    def drive_out(self, state: State) -> PreemptAttempts | None:
        """Whom the gang that nodes are kept for drives out of them, if it may: asked once, when they are chosen."""
        reserve = self._reserve
        job = state.jobs.get(reserve.job_id) if reserve is not None else None
        if reserve is None or reserve.asked:
            return None
        if job is None or not job.preempts:
            reserve.asked = True
            return None
        reserve.search = reserve.search or find_victims(state, reserve, job)
        victims = next(reserve.search)
        if victims is None:
            return None
        reserve.asked = True
        if not victims:
            return None
        reason = f"gang {job.id} has a higher priority and needs the room"
        return PreemptAttempts(attempts=victims, for_job=job.id, reason=reason)

    def _let_reserve_go(self, reserve: Reserve) -> None:
        self._reserve = None
        release(self._holds, reserve)

    def _first_blocked(self, state: State) -> Blocked | None:
        while found := self._line.blocked(1):
            ((rank, shape, job_id),) = found
            job, waiting = state.jobs.get(job_id), self._line.first_class(shape)
            if job is not None and waiting is not None and self._is_of(waiting, job):
                return Blocked(rank, shape, job_id)
            self._line.call_back(shape)
        return None

    def _waits(self, job: Job) -> bool:
        if job.suspended or job.ending or job.active or job.not_before_ms or job.id in self._flights:
            return False
        return job.eligible == job.count if job.is_gang else job.eligible >= max(job.floor, 1)

    def _free_port(self, state: State, job: Job, node: Node) -> int:
        flying = {
            flight.command.port: None
            for flight in self._flights.values()
            if flight.command.placements[0].node_id == node.id
        }
        return free_port(state, job, node, flying, self.ports)

    def _forget_shape(self, shape: Shape) -> None:
        rooms = self._rooms.pop(shape, None)
        if rooms is not None and rooms.related is not None:
            rooms.related.release()
        self._seen.pop(shape, None)
        self._recheck.pop(shape, None)
        self._shapes.forget(shape)
