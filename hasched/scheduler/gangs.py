"""Gangs in the planner: jobs of which all tasks, or the first few, start together.

They stand in a line of their own, in classes like everybody else, and each is planned when its turn comes: after those in
the other line that stand before it. One that fits nowhere stands aside until enough has grown. A plan for a gang is one
command, decided whole or refused whole; until it is decided, its room is reserved like that of any plan on its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from hasched.model.ids import JobId, NodeId, TaskIndex
from hasched.model.spec import GangTerms, Resources
from hasched.scheduler.holds import Blocked, Holds
from hasched.scheduler.line import Line, WaitingClass
from hasched.scheduler.order import Account, Order, Rank, RankGroup
from hasched.scheduler.reserves import LOOKS_A_STEP, Picking, Reserve, find_victims, keep, pick, pick_by_force, release
from hasched.scheduler.rooms import GangShape, Part, Rooms
from hasched.scheduler.shapes import NEVER_MS, Shape, ShapeKey, limit_of, rounded_up, traits_of
from hasched.scheduler.slots import Changes, Slot
from hasched.scheduler.windows import Access, Windows
from hasched.statemachine.commands import PlaceGang, Placement, PreemptAttempts
from hasched.statemachine.job import Job
from hasched.statemachine.rules.gangs import ports_in_use
from hasched.statemachine.state import State

FIRST_PORT, LAST_PORT = 29_400, 29_999  # of rank 0, unless the managers' configuration says otherwise
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
                traits=traits_of(job),
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


class _Flight:
    """A gang on its way: what is reserved for it on each node, and the port of the first."""

    __slots__ = ("command", "left", "size")

    def __init__(self, command: PlaceGang, taken: Iterable[Part], shape: GangShape, size: int) -> None:
        self.command = command
        self.size = size
        self.left: dict[NodeId, list[tuple[Resources, int]]] = {}
        for slot, part, tasks in taken:
            self.left.setdefault(slot.node_id, []).append((shape.parts[part][0], tasks))


def tasks_of(command: PlaceGang, node_id: NodeId) -> int:
    """How many tasks of the gang go to a node."""
    return sum(len(placement.indices) for placement in command.placements if placement.node_id == node_id)


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
        self._flights: dict[JobId, _Flight] = {}
        self.ports = range(FIRST_PORT, LAST_PORT + 1)
        self.empty_line(Holds(changes, windows))

    def empty_line(self, holds: Holds) -> None:
        """Nobody waits and nothing is held; what is on its way stays so."""
        self._holds = holds
        self._shapes = GangShapes()
        self._rooms: dict[Shape, Rooms] = {}
        self._line = Line(self._order.rank, self._forget_shape)
        self._recheck: dict[Shape, None] = {}  # shapes aside that are still to be looked at
        self._reserve: Reserve | None = None
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

    def nodes_changed(self) -> None:
        """There are other nodes, or they are others."""
        self._hopeless.clear()

    @property
    def ready(self) -> bool:
        """Whether `plan` has anything to look at."""
        return bool(self._line or self._recheck or self._picking or (self._reserve and not self._reserve.asked))

    def stands_before(self, rank: Rank | None) -> bool:
        """Whether somebody here is to be tried before a place in the other line; None: its end."""
        if self._recheck:
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

    def settle(self, state: State, command: PlaceGang) -> list[NodeId]:
        """The plan was decided, or nobody will know: the nodes on which something of it is free again."""
        flight = self._flights.get(command.job_id)
        if flight is None or flight.command is not command:
            return []
        nodes = list(flight.left)
        for node_id in nodes:
            self._let_go(flight, node_id)
        self._end(state, command.job_id)
        return nodes

    def _let_go(self, flight: _Flight, node_id: NodeId) -> None:
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
        spent = self._call_back(state, budget)
        while spent < budget and not self._recheck and self.stands_before(before):
            waiting = self._line.next()
            assert waiting is not None, "somebody stands in line"
            plan, units = self._try(state, waiting)
            spent += units
            if plan is not None:
                return plan, spent
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
            if shape in self._line.aside and rooms.size_allowed(rooms.shape.most):
                self._line.call_back(shape)
        return looks // LOOKS_A_UNIT

    def _look(self, state: State, shape: Shape) -> tuple[Rooms | None, int]:
        """The table of a shape as things are now, None while it is being made; and the looks that it took."""
        rooms = self._rooms.get(shape)
        if rooms is None:
            assert isinstance(shape, GangShape)
            rooms = self._rooms[shape] = Rooms(shape, self._changes, self._windows, self._slots.values())
        looks = rooms.build(state.now_ms) if not rooms.complete else rooms.catch_up(state.now_ms)
        if rooms.complete and looks:
            looks += rooms.catch_up(state.now_ms)
        return (rooms if rooms.complete else None), looks

    def _try(self, state: State, waiting: WaitingClass) -> tuple[PlaceGang | None, int]:
        """Plan the first job of a class that was taken out of the line, and put the class where it belongs."""
        rooms, looks = self._look(state, waiting.shape)
        spent = 1 + looks // LOOKS_A_UNIT
        plan, stays = (None, True) if rooms is None else self._plan_first(state, waiting, rooms)
        if plan is not None:
            spent += self._flights[plan.job_id].size
        if not stays:
            waiting.drop_first()
        self._line.enter(waiting)
        return plan, spent

    def _plan_first(self, state: State, waiting: WaitingClass, rooms: Rooms) -> tuple[PlaceGang | None, bool]:
        """The plan for the first job of a class, and whether the job stays in it: set aside, if it fits nowhere."""
        job = state.jobs.get(waiting.first or 0)
        if job is None or not self._waits(job):
            return None, False
        shape = rooms.shape
        if not waiting.group.holds(job) or self._shapes.of(job, shape.access) is not shape:
            self._host.enlist(state, job.id)  # it has changed since
            return None, False
        size = rooms.size_allowed(shape.most)
        taken = None
        if size:
            size = self._host.allowed(state, job, shape.least, size)
            if not size:
                return None, False
            taken = rooms.choose(size, state.now_ms)
        plan = self._make_plan(state, job, shape, taken) if taken is not None else None
        if plan is None:
            if taken is not None:
                rooms.give_back(taken)
            self._line.stand_aside(waiting)
            return None, True
        for slot in dict.fromkeys(part.slot for part in taken or ()):
            slot.reserved_until_ms = max(slot.reserved_until_ms, state.now_ms + limit_of(job))
            self._changes.note(slot)
        self._flights[job.id] = _Flight(plan, taken or (), shape, size)
        self._host.take(state, job, size)
        if self._reserve is not None and self._reserve.job_id == job.id:
            self._let_reserve_go(self._reserve)
        return plan, False

    def keep_reserve(self, state: State) -> int:
        """See to it that the first gang that fits nowhere has nodes kept for it, and no other. Returns the units spent."""
        if not self._line.aside and self._reserve is None and self._picking is None:
            return 0
        first = self._first_blocked(state)
        reserve = self._reserve
        if reserve is not None:
            kept = first is not None and first.job_id == reserve.job_id
            if kept and all(self._holds.is_kept(hold) for hold in reserve.holds):
                return 1
            self._let_reserve_go(reserve)
        if first is None or first.job_id in self._hopeless or self._later == (first.job_id, self._holds.version):
            self._picking = None
            return 1
        rooms, looks = self._look(state, first.shape)
        if rooms is None:
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
            if wanted:
                self._reserve = keep(self._holds, rooms, first, wanted)
            elif self._holds.any_before(first.rank):
                self._later = (first.job_id, self._holds.version)
            else:
                self._hopeless[first.job_id] = None
        return 1 + LOOKS_A_STEP // LOOKS_A_UNIT

    def drive_out(self, state: State) -> PreemptAttempts | None:
        """Whom the gang that nodes are kept for drives out of them, if it may: asked once, when they are chosen."""
        reserve = self._reserve
        job = state.jobs.get(reserve.job_id) if reserve is not None else None
        if reserve is None or reserve.asked:
            return None
        reserve.asked = True
        victims = find_victims(state, reserve, job) if job is not None and job.preempts else ()
        if job is None or not victims:
            return None
        reason = f"gang {job.id} has a higher priority and needs the room"
        return PreemptAttempts(attempts=victims, for_job=job.id, reason=reason)

    def _let_reserve_go(self, reserve: Reserve) -> None:
        self._reserve = None
        release(self._holds, reserve)

    def _first_blocked(self, state: State) -> Blocked | None:
        for rank, shape, job_id in self._line.blocked():
            job = state.jobs.get(job_id)
            if job is not None and self._waits(job):
                return Blocked(rank, shape, job_id)
            self._line.call_back(shape)
        return None

    def _waits(self, job: Job) -> bool:
        if job.suspended or job.ending or job.active or job.not_before_ms or job.id in self._flights:
            return False
        return job.eligible == job.count if job.is_gang else job.eligible >= max(job.floor, 1)

    def _make_plan(self, state: State, job: Job, shape: GangShape, taken: list[Part]) -> PlaceGang | None:
        """Ranks follow each other on a node as far as they can, and the node of rank 0 comes first."""
        indices: dict[NodeId, list[TaskIndex]] = {}
        starts = _starts_of(shape)
        pending = job.pending_indices()
        for slot, part, tasks in sorted(taken, key=lambda each: each.part):
            here = indices.setdefault(slot.node_id, [])
            if job.is_gang:
                here += range(starts[part], starts[part] + tasks)
                starts[part] += tasks
            else:
                here += (next(pending) for _ in range(tasks))
        placements = tuple(
            Placement(job.id, node_id, tuple(sorted(ranks)))
            for node_id, ranks in sorted(indices.items(), key=lambda each: min(each[1]))
        )
        if not job.is_gang:
            return PlaceGang(job_id=job.id, placements=placements)
        port = self._free_port(state, job, placements[0].node_id)
        return PlaceGang(job_id=job.id, placements=placements, port=port) if port else None

    def _free_port(self, state: State, job: Job, node_id: NodeId) -> int:
        """One of the range that no other gang has there; 0 if there is none. Neighbours in time get different ones."""
        node = state.nodes.get(node_id)
        if node is None:
            return 0
        used = ports_in_use(state, node)
        used.update(
            (flight.command.port, None)
            for flight in self._flights.values()
            if flight.command.placements[0].node_id == node_id
        )
        first = job.id % len(self.ports)
        return next((port for port in (*self.ports[first:], *self.ports[:first]) if port not in used), 0)

    def _forget_shape(self, shape: Shape) -> None:
        self._rooms.pop(shape, None)
        self._recheck.pop(shape, None)
        self._shapes.forget(shape)


def _starts_of(shape: GangShape) -> list[int]:
    """The first rank of each part."""
    starts = [0]
    for _, count in shape.parts:
        starts.append(starts[-1] + count)
    return starts
