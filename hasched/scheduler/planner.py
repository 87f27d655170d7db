"""The planner: turns what waits and what is free into plans.

It keeps its own indexes (ADR 0006), current from the applied events: who waits (`line`), who is held back (`parking`), what
is free after everything proposed so far (`slots`), and which node is the best for each shape of task (`candidates`). Nothing
of it is made anew for a slice: a pass in which nothing fits costs one look at each changed node for each shape that waits,
however many jobs and tasks it has, and a plan never uses twice what an earlier plan on its way has taken.

Order: what `order` says; unless told otherwise priority, then job id. A task that doesn't fit is passed by others behind it,
but the first few that fit nowhere each hold a node meanwhile, so that they aren't passed for ever (`holds`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from enum import Enum
from itertools import islice
from typing import Any, TypeAlias

from hasched.model.ids import JobId, NodeId, TaskIndex
from hasched.model.policy import PolicyKind
from hasched.model.spec import Resources
from hasched.model.states import PlacementPolicy, TaskState
from hasched.scheduler.candidates import Candidates, Cursor, View
from hasched.scheduler.evictions import MOST_ROOMS
from hasched.scheduler.flights import Flights, JobInFlight, Landing
from hasched.scheduler.gangs import GangLine
from hasched.scheduler.gates import Gate, standard_gates
from hasched.scheduler.head import Head
from hasched.scheduler.holds import Holds
from hasched.scheduler.keeping import NOTHING, Keeping, Kept
from hasched.scheduler.keys import Key
from hasched.scheduler.limits import ANY_LIMIT, LimitGate
from hasched.scheduler.line import Line, WaitingClass
from hasched.scheduler.order import ByPolicies, Order, Rank, group_of
from hasched.scheduler.parking import Parking
from hasched.scheduler.placement import SCORERS
from hasched.scheduler.related import RelatedCursor
from hasched.scheduler.searches import GANG_PORTS
from hasched.scheduler.shapes import Shape, Shapes, limit_of
from hasched.scheduler.slots import Changes, Slot
from hasched.scheduler.tallies import Tallies
from hasched.scheduler.windows import Windows
from hasched.statemachine.apply import Applied
from hasched.statemachine.commands import PlaceGang, Placement, PlacePlan, PreemptAttempts
from hasched.statemachine.events import (
    NODE_CHANGES,
    AttemptEnded,
    GangReopened,
    JobCancelRequested,
    JobDeadlineExceeded,
    JobEnded,
    JobResumed,
    JobSubmitted,
    JobSuspended,
    JobUpdated,
    NodeRegistered,
    PolicyChanged,
    PolicyDeleted,
    TasksEligible,
    TasksScheduled,
)
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.state import State

CLASSES_A_TASK = 16  # so many classes waiting, and one task more of a class is placed in a row
REBUILD_SLICE = 1_000  # jobs or nodes
MOST_PREEMPTING = 32  # jobs of a shape for which others are driven out at a time
TOLD_SLICE = 100  # nodes that are told in a slice what is kept
RELATED_UNITS = 8  # to place a task that is judged by where others run costs as much as so many others
KEPT_BUDGET = 64  # a slice of so few units always sees who holds a node
_LOOKS_A_UNIT = 32  # looking at so many nodes costs about as much as placing a task


Plan: TypeAlias = PlacePlan | PlaceGang | PreemptAttempts
_Draft: TypeAlias = dict[tuple[Landing, int], list[TaskIndex]]  # tasks that are spread each for itself, in their order


class _End(Enum):
    """Why no more tasks of a job were drafted."""

    DONE = 0  # so many were wanted
    FULL = 1  # nothing fits anywhere
    PAUSED = 2  # the budget is spent, or a search isn't finished
    BARRED = 3  # nothing fits but by alternatives that a limit keeps back


class Planner:
    """Feed it every applied entry (`observe`), ask for plans while it is `ready`, and say when each is decided (`settle`).

    `reachable` holds the nodes that can be given work now, None means every healthy one; of a change in it the planner is
    told by `node_came_or_went`.
    """

    def __init__(
        self,
        policy: PlacementPolicy = PlacementPolicy.BIN_PACK,
        reachable: Container[NodeId] | None = None,
        order: Order | None = None,
        gates: Sequence[Gate] | None = None,
        *,
        gang_ports: range = GANG_PORTS,
    ) -> None:
        self._scorer = SCORERS[policy]
        self._reachable = reachable
        self._order = order or ByPolicies()
        self._gates = standard_gates() if gates is None else tuple(gates)
        self._limits = next((gate for gate in self._gates if isinstance(gate, LimitGate)), None)
        self.units_spent = 0  # since the planner was made, for metrics and tests
        self._turn = 0
        self._gang_ports = gang_ports
        self._reset()

    def _reset(self) -> None:
        self._slots: dict[NodeId, Slot] = {}
        self._changes = Changes()
        self._shapes = Shapes()
        self._windows = Windows()
        self._parking = Parking()
        self._flights = Flights()
        self._keeping = Keeping()
        self._kept_before: list[NodeId] = []  # nodes with GPUs that haven't been told yet what is kept now
        self._told = NOTHING
        self._gangs = GangLine(self, self._order, self._changes, self._windows, self._slots)
        self._gangs.ports = self._gang_ports
        self._unlisted: list[JobId] = []  # jobs to be put in line, the last first
        self._unkept = False  # whether the last slice was too long to see who holds a node
        self._grown = False  # whether something may fit that didn't when the shapes aside were last looked at
        self._draft: _Draft = {}  # of the plan that is being made
        self._empty_line()

    def _empty_line(self) -> None:
        self._shapes = Shapes()
        self._tallies = Tallies(self._on_their_way)
        self._candidates = Candidates(self._scorer, self._changes, self._windows, self._slots, self._make_related)
        self._line = Line(self._order.rank, self._forget_shape)
        self._holds = Holds(self._changes, self._windows)
        self._gangs.empty_line(self._holds, self._tallies)
        self._head = Head(
            self._line,
            self._candidates,
            self._holds,
            self._slots,
            self._changes,
            waits=self._waits,
            wants=self._wants,
        )
        self._recheck: list[tuple[Rank, int, Shape]] = []  # shapes aside that are still to be looked at, the first last

    def rebuild(self, state: State) -> Iterator[None]:
        """Start anew from the state, a slice at each step. Entries may be applied and observed between the steps."""
        self._reset()
        self._order.rebuild(state)
        for gate in self._gates:
            gate.rebuild(state)
        self._windows.refresh(state)
        self._keeping.follow(state)
        for number, node_id in enumerate(list(state.nodes)):
            self._refresh(state, node_id)
            if number % REBUILD_SLICE == REBUILD_SLICE - 1:
                yield
        for number, job_id in enumerate(list(state.jobs)):
            self._enqueue(state, job_id)
            self._see_use(state, job_id)
            if number % REBUILD_SLICE == REBUILD_SLICE - 1:
                yield
        self._see_what_is_kept()
        yield

    def node_came_or_went(self, state: State, node_id: NodeId) -> None:
        """Whether the node is `reachable` has changed."""
        self._tallies.node_changed(node_id)
        self._refresh(state, node_id)

    # What happened

    def observe(self, state: State, applied: Applied) -> None:
        """Take in an entry that has just been applied to `state`."""
        self._tallies.follow(state)
        touched: dict[NodeId, None] = {}
        for event in applied.events:
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                handler(self, state, event, touched)
            for gate in self._gates:
                for channel in gate.opened(state, event):
                    self._parking.open(channel)
        for node_id in touched:
            self._refresh(state, node_id)
        self._gangs.stir_unlucky()
        self._see_what_is_kept()
        if self._windows.next_end_ms <= state.now_ms:
            self._open_windows(state)
        accounts = self._order.observe(state, applied)
        again = None if accounts is None else tuple(accounts)
        if again != ():
            self._line.rerank(again)
            self._gangs.rerank(again)

    def settle(self, state: State, plan: Plan) -> None:
        """The plan has been decided, or its outcome won't be known: what of it was not scheduled is free again."""
        if isinstance(plan, PreemptAttempts):
            self._head.settle(state, plan)
        elif isinstance(plan, PlaceGang):
            for node_id, tasks in self._gangs.settle(state, plan).items():
                self._move(state, plan.job_id, node_id, -tasks)
                self._refresh(state, node_id)
            self._enqueue(state, plan.job_id)
        else:
            for landing, tasks in self._flights.end(plan):
                self._land(state, landing, tasks)
                self._move(state, landing[0], landing[1], -tasks)
                self._refresh(state, landing[1])
        for gate in self._gates:
            for channel in gate.given_back():
                self._parking.open(channel)

    def _scheduled(self, state: State, event: TasksScheduled, touched: dict[NodeId, None]) -> None:
        touched[event.node_id] = None
        self._see_use(state, event.job_id)
        if self._gangs.land(state, event.job_id, event.node_id):
            self._enqueue(state, event.job_id)
            return
        landing = (event.job_id, event.node_id, event.choice)
        others = len(event.indices)
        for tasks in self._flights.arrive(landing, others):
            self._land(state, landing, tasks)
            others -= tasks
        if others:
            self._move(state, event.job_id, event.node_id, others)

    def _land(self, state: State, landing: Landing, tasks: int) -> None:
        """So many tasks of a job are not on their way to a node any more."""
        job_id, node_id, choice = landing
        in_flight = self._flights.jobs[job_id]
        slot = self._slots.get(node_id)
        if slot is not None:
            slot.reserve(in_flight.shape.requests[choice], -tasks)
        job = state.jobs.get(job_id)
        if job is not None:
            self.take(state, job, -tasks)
        in_flight.tasks -= tasks
        if not in_flight.tasks:
            del self._flights.jobs[job_id]
            self._enqueue(state, job_id)

    def _ended(self, state: State, event: AttemptEnded, touched: dict[NodeId, None]) -> None:
        touched[event.node_id] = None
        self._see_use(state, event.job_id)
        self._move(state, event.job_id, event.node_id, -1)
        if event.task_state is TaskState.PENDING:
            self._enqueue(state, event.job_id)

    def _job_changed(
        self,
        state: State,
        event: JobSubmitted | JobResumed | JobUpdated | TasksEligible | GangReopened,
        touched: dict[NodeId, None],
    ) -> None:
        self._enqueue(state, event.job_id)

    def _job_updated(self, state: State, event: JobUpdated, touched: dict[NodeId, None]) -> None:
        self._keeping.forget(event.job_id)
        self._see_use(state, event.job_id)
        self._enqueue(state, event.job_id)

    def _job_ended(self, state: State, event: JobEnded, touched: dict[NodeId, None]) -> None:
        self._parking.forget(event.job_id)
        self._keeping.forget(event.job_id)
        self._job_stopped(state, event, touched)

    def _job_stopped(
        self,
        state: State,
        event: JobSuspended | JobCancelRequested | JobEnded | JobDeadlineExceeded,
        touched: dict[NodeId, None],
    ) -> None:
        """It may want nothing any more: see to what it holds."""
        if event.job_id in self._holds.nodes.values():
            self._grown = True

    def _node_changed(self, state: State, event: NodeRegistered, touched: dict[NodeId, None]) -> None:
        """Any of `NODE_CHANGES`."""
        self._head.nodes_changed()
        self._gangs.nodes_changed()
        touched[event.node_id] = None
        self._tallies.node_changed(event.node_id)

    def _policy_changed(self, state: State, event: PolicyChanged | PolicyDeleted, touched: dict[NodeId, None]) -> None:
        if event.kind is PolicyKind.RESERVATION:
            self._open_windows(state)
        elif event.kind is PolicyKind.GPU_ROOM:
            self._keeping.follow(state)

    def _open_windows(self, state: State) -> None:
        """Reservations were made, dropped or are over: every job may have others to use, so all are put in line anew."""
        self._holds.release_all()
        self._windows.refresh(state)
        self._unlisted = list(state.jobs)
        self._unlisted.reverse()
        self._empty_line()

    def _list_again(self, state: State) -> int:
        """Put jobs into line anew whose shape may be another one now. Returns the units spent."""
        for listed in range(REBUILD_SLICE):
            if not self._unlisted:
                return listed // 8
            self._enqueue(state, self._unlisted.pop())
        return REBUILD_SLICE // 8

    def _see_use(self, state: State, job_id: JobId) -> None:
        job = state.jobs.get(job_id)
        if job is not None:
            self._keeping.see(job)

    def _see_what_is_kept(self) -> None:
        """If free GPUs keep more or less than before, every node that has any is to be told: one time after the other."""
        if self._kept_before:
            return
        kept = self._keeping.kept
        if self._told != kept:
            self._told = kept
            self._kept_before = [slot.node_id for slot in self._slots.values() if slot.total.gpus]

    def _tell_what_is_kept(self, state: State) -> int:
        """Tell some nodes. Returns the units spent."""
        some, self._kept_before = self._kept_before[-TOLD_SLICE:], self._kept_before[:-TOLD_SLICE]
        for node_id in some:
            self._refresh(state, node_id)
        self._see_what_is_kept()
        return len(some)

    def _enqueue(self, state: State, job_id: JobId) -> None:
        job = state.jobs.get(job_id)
        if job is not None and self._waiting(job) > 0:
            group = group_of(job)
            access = self._windows.access(group.account)
            if job.starts_together:
                self._gangs.add(group, job, access)
            else:
                shape = self._shapes.of(job, access)
                if self._line.add(group, shape, job_id):
                    self._head.unsettled = True

    def _refresh(self, state: State, node_id: NodeId) -> None:
        node = state.nodes.get(node_id)
        slot = self._slots.get(node_id)
        if node is None:
            self._keeping.forget_node(node_id)
            if slot is not None:
                if slot.held:
                    self._holds.forget_slot(slot)
                del self._slots[node_id]
                slot.usable = False
                self._candidates.forget_slot(slot)
                self._gangs.forget_slot(slot)
                self._changes.forget(slot)
            return
        if slot is None:
            slot = self._slots[node_id] = Slot(node, node.number)
        usable = self._usable(node)
        self._keeping.count(node, usable)
        slot.kept = self._told
        changed, grown = slot.refresh(node, usable)
        if slot.held:
            if slot.usable:
                self._holds.touch(slot)
            else:
                self._holds.forget_slot(slot)
        if changed:
            self._changes.note(slot)
            if grown and slot.usable:
                self._grown = True
                self._gangs.stir()

    def _usable(self, node: Node) -> bool:
        """Whether the node may be given work at all."""
        return node.takes_work and (self._reachable is None or node.id in self._reachable)

    def _forget_shape(self, shape: Shape) -> None:
        self._shapes.forget(shape)
        self._candidates.forget_shape(shape)
        self._head.forget_shape(shape)

    def _move(self, state: State, job_id: JobId, node_id: NodeId, tasks: int) -> None:
        """So many tasks of a job more, or fewer, run on a node or are on their way to it."""
        if not self._tallies:
            return
        job = state.jobs.get(job_id)
        if job is None:
            self._tallies.count_again()
        else:
            self._tallies.change(job, node_id, tasks)

    def _on_their_way(self) -> Iterator[tuple[JobId, NodeId, int]]:
        for ((job_id, node_id, _), _), indices in self._draft.items():
            yield job_id, node_id, len(indices)
        yield from self._flights.on_their_way()
        yield from self._gangs.on_their_way()

    def _make_related(self, shape: Shape, request: Resources, view: View) -> Cursor:
        return RelatedCursor(shape, request, view, self._scorer, self._tallies)

    # What to do

    @property
    def ready(self) -> bool:
        """Whether `plan` has anything to look at."""
        return bool(
            ((self._grown or self._tallies.stirred) and self._line.aside)
            or self._recheck
            or self._parking
            or self._line
            or self._unlisted
            or self._kept_before
            or self._gangs.ready
            or self._head.unsettled
            or self._holds.released
            or self._unkept
            or not self._line.settled
        )

    def plan(self, state: State, budget: int) -> Plan | None:
        """The next slice of placements, or the next gang, or whom to drive out for a job at the head of the line.

        It takes at most `budget` units of work: a task placed, or a class or job looked at. None when the slice found nothing to
        propose; ask again while `ready`.
        """
        self._tallies.follow(state)
        draft = self._draft = {}
        spent = self._list_again(state) if self._unlisted else self._open_gates(state)
        if self._kept_before:
            spent += self._tell_what_is_kept(state)
        self._begin_recheck(state)
        self._line.looks = looks = 0
        self._line.settle()
        while not self._unlisted and spent + (looks + self._line.looks) // _LOOKS_A_UNIT < budget:
            first = self._first_rank
            if self._gangs.stands_before(first):
                if draft:
                    break
                gang, units = self._gangs.plan(state, first, budget - spent)
                spent += units
                if gang is not None:
                    for placement in gang.placements:
                        self._move(state, gang.job_id, placement.node_id, len(placement.indices))
                    self.units_spent += spent
                    self._head.see(state)
                    return gang
            elif self._recheck and self._recheck[-1][0] == first:
                looked, ready = self._look_again(state)
                looks += looked
                if not ready:
                    break
            elif (waiting := self._line.next()) is not None:
                spent += self._plan_class(state, waiting, draft, max(budget - spent - looks // _LOOKS_A_UNIT, 1))
            else:
                break
        looks += self._line.looks
        settled = not self._unlisted and not self._recheck
        full = spent + looks // _LOOKS_A_UNIT >= budget > KEPT_BUDGET
        self._unkept = settled and full and not self._unkept
        if settled and not self._unkept:
            spent += self._gangs.keep_reserve(state)
            self._keep_holds(state)
        self.units_spent += spent + looks // _LOOKS_A_UNIT
        if not draft:
            settled = settled and not self._unkept
            command = self._gangs.drive_out(state) if settled else None
            if command is None and settled:
                command, units = self._head.drive_out(state, self._windows)
                self.units_spent += units
            self._head.see(state)
            return command
        placements = (
            Placement(job_id, node_id, tuple(tasks), choice) for ((job_id, node_id, choice), _), tasks in draft.items()
        )
        plan = PlacePlan(placements=tuple(placements))
        self._flights.depart(plan)
        self._draft = {}
        self._head.see(state)
        return plan

    @property
    def held_nodes(self) -> dict[NodeId, JobId]:
        """The nodes that are kept for jobs at the head of the line, and for which."""
        return self._holds.nodes

    @property
    def kept(self) -> Kept:
        """What each free GPU keeps of its node from tasks without GPUs."""
        return self._told

    def estimate(self, state: State, job_id: JobId) -> int | None:
        """When a job that waits at the head of the line starts at the latest, in ms; None if nobody can say."""
        return self._holds.start_of(state, job_id)

    def _open_gates(self, state: State) -> int:
        """Put into line some of those whose gate has opened. Returns the units spent."""
        if not self._parking:
            return 0
        jobs = self._parking.let_through()
        for job_id in jobs:
            self._enqueue(state, job_id)
        return len(jobs) // 4

    def _begin_recheck(self, state: State) -> None:
        """After something has grown: whoever stands aside is looked at again, each when its turn comes."""
        if self._grown:
            self._parking.open(ANY_LIMIT)
            again = self._line.aside
            self._head.stir()
        elif self._tallies.stirred:
            again = self._tallies.stirred | {shape: None for _, _, shape in self._recheck}
        else:
            return
        self._head.relations_changed(self._tallies.stirred)
        self._grown = False
        self._tallies.stirred = {}
        ranks = [(self._line.rank_of(shape), shape) for shape in again if shape in self._line.aside]
        self._recheck = [(rank, shape.number, shape) for rank, shape in ranks if rank is not None]
        self._recheck.sort(reverse=True)

    @property
    def _first_rank(self) -> Rank | None:
        """That of whoever is next, in line or to be looked at again."""
        while self._recheck and self._recheck[-1][2] not in self._line.aside:
            self._recheck.pop()
        first = self._line.first_rank
        again = self._recheck[-1][0] if self._recheck else None
        return min(first, again) if first is not None and again is not None else first if again is None else again

    def _look_again(self, state: State) -> tuple[int, bool]:
        """See whether the next shape that stands aside fits by now. The looks it took, and whether it is known."""
        rank, _, shape = self._recheck[-1]
        found, looks = self._find(state, shape, rank)
        if found is None and not self._candidates.know(shape):
            return looks, False
        self._recheck.pop()
        if found is not None:
            self._line.call_back(shape)
        return 1 + looks, True

    def _find(
        self, state: State, shape: Shape, rank: Rank, barred: Sequence[int] = ()
    ) -> tuple[tuple[Slot, int] | None, int]:
        """The best node and the request for it, which is none of those barred; None if there is none yet; the looks it took."""
        cursors = self._candidates.cursors(shape)
        looks = 0
        for cursor in cursors:
            if not cursor.ready:
                looks += cursor.prepare()
                if not cursor.ready:
                    return None, looks
        for choice, cursor in enumerate(cursors):
            if choice in barred:
                continue
            cursor.looks = 0
            slot = cursor.best(self._changes, state.now_ms)
            looks += cursor.looks
            if slot is None and not cursor.ready:
                break
            if self._holds:
                looks += len(self._holds)
                held = self._holds.find(state, cursor, (shape, choice, rank))
                if held is not None and (slot is None or cursor.score(held) < cursor.best_score):
                    slot = held
            if slot is not None:
                return (slot, choice), looks
        return None, looks

    def _plan_class(self, state: State, waiting: WaitingClass, draft: _Draft, budget: int) -> int:
        """Place jobs of a class while it is first in line. Returns the units spent."""
        first = waiting.first
        assert first is not None, "a class that stands in line has a job"
        shape, rank = waiting.shape, self._order.rank(waiting.group, first)
        if not self._waits(state, first):
            waiting.drop_first()
            self._line.enter(waiting)
            return 1
        found, looks = self._find(state, shape, rank)
        spent = 1 + looks // _LOOKS_A_UNIT
        if found is None:
            if self._candidates.know(shape):
                return spent + self._set_aside(state, waiting, rank)
            self._line.enter(waiting)
            return spent
        while (job_id := waiting.first) is not None:
            job = state.jobs.get(job_id)
            if job is not None and (job.starts_together or not waiting.group.holds(job)):
                waiting.drop_first()
                self._enqueue(state, job_id)
                continue
            wanted = 0 if job is None else self._wanted(state, job)
            if job is not None and wanted:
                burst = max(self._order.burst, len(self._line) // CLASSES_A_TASK)
                allowed = min(wanted, max(budget - spent, 1), burst)
                rank = self._order.rank(waiting.group, job_id)
                placed, units, ended = self._place(state, job, (shape, rank), (allowed, budget - spent), draft)
                spent += units
                if ended is _End.FULL:
                    return spent + self._set_aside(state, waiting, rank)
                if ended is _End.BARRED:
                    self._park_barred(state, job, shape)
                elif ended is _End.PAUSED or placed == allowed < wanted:
                    break
            waiting.drop_first()
            spent += 1 - bool(wanted)
            if spent >= budget or not self._is_next(waiting):
                break
        self._line.enter(waiting)
        return spent

    def _set_aside(self, state: State, waiting: WaitingClass, rank: Rank) -> int:
        """Nothing of the shape fits anywhere; before others pass it, it may get a hold. Returns the units spent."""
        self._line.set_aside(waiting)
        return self._keep_holds(state) if self._head.needs_look(rank) else 0

    def _keep_holds(self, state: State) -> int:
        """See who holds a node now. Returns the units spent."""
        spent = self._head.keep(state, self._windows)
        if self._holds.released:
            self._holds.released = False
            self._grown = True
            self._gangs.stir()
        return spent

    def _waits(self, state: State, job_id: JobId) -> bool:
        """Whether the job has tasks that want to start, or would if no gate held them back."""
        job = state.jobs.get(job_id)
        return job is not None and not job.suspended and not job.ending and self._waiting(job) > 0

    def _wants(self, state: State, shape: Shape) -> list[tuple[JobId, int]]:
        """How many tasks of each of the first jobs of a shape may start once there is room, `MOST_ROOMS` in all at most.

        What one of them may start the next may not: they are taken to share all limits.
        """
        found: list[tuple[JobId, int]] = []
        sum_before, priority = 0, None
        for job_id in self._line.firsts(shape, MOST_PREEMPTING):
            job = state.jobs.get(job_id)
            if job is None or not job.preempts or not self._waits(state, job_id):
                continue
            priority = job.priority if priority is None else priority
            allowed = min(sum_before + self._waiting(job), MOST_ROOMS)
            for gate in self._gates:
                allowed = gate.allowed(state, job, allowed)
            if 0 in self._rooms_by_choice(state, job, 1):
                continue  # nobody has to go for what a limit may keep back
            if allowed > sum_before and job.priority == priority:
                found.append((job_id, allowed - sum_before))
                sum_before = allowed
        return found

    def _place(
        self, state: State, job: Job, standing: tuple[Shape, Rank], limits: tuple[int, int], draft: _Draft
    ) -> tuple[int, int, _End]:
        """Draft tasks of a job onto the best nodes within limits of tasks and units. How many, the units, and why no more."""
        shape, rank = standing
        wanted, budget = limits
        changes, fills = self._changes, self._scorer.fills and not shape.relations
        weight = RELATED_UNITS if shape.relations else 1
        in_flight = self._flights.jobs.get(job.id) or JobInFlight(shape, limit_of(job))
        indices = job.pending_indices(in_flight.next_index)
        placed, looks, ended = 0, 0, _End.DONE
        rooms = self._rooms_by_choice(state, job, wanted)
        while placed < wanted:
            if placed * weight + looks // _LOOKS_A_UNIT >= budget and placed + looks:
                ended = _End.PAUSED
                break
            barred = [number for number, room in enumerate(rooms) if room <= 0]
            found, looked = self._find(state, shape, rank, barred)
            looks += looked
            if found is None:
                ended = _End.PAUSED if not self._candidates.know(shape) else _End.BARRED if barred else _End.FULL
                break
            slot, choice = found
            request = shape.requests[choice]
            most = wanted - placed if fills else 1
            most = min(most, rooms[choice]) if rooms else most
            room = self._holds.room(state, slot, (shape, choice, rank), most) if slot.held else slot.room(request, most)
            tasks = list(islice(indices, room))
            if not tasks:
                break
            self._turn += 1
            slot.turn = self._turn
            slot.take(request, len(tasks))
            slot.reserved_until_ms = max(slot.reserved_until_ms, state.now_ms + in_flight.limit_ms)
            changes.note(slot)
            if slot.held:
                self._holds.count(slot, shape, rank, len(tasks))
            apart = tasks[0] + 1 if shape.is_spread else 0
            draft.setdefault(((job.id, slot.node_id, choice), apart), []).extend(tasks)
            self._move(state, job.id, slot.node_id, len(tasks))
            in_flight.next_index = tasks[-1] + 1
            placed += len(tasks)
            if rooms:
                rooms[choice] -= len(tasks)
        if placed:
            in_flight.tasks += placed
            self._flights.jobs[job.id] = in_flight
            self.take(state, job, placed)
        if self._holds.released:
            self._keep_holds(state)
        return placed, placed * weight + looks // _LOOKS_A_UNIT, ended

    def _rooms_by_choice(self, state: State, job: Job, wanted: int) -> list[int]:
        """How many tasks the limits let start by each of the job's alternatives; empty where all are alike."""
        rooms = self._limits.room_by_choice(state, job, wanted) if self._limits is not None else None
        return list(rooms or ())

    def _park_barred(self, state: State, job: Job, shape: Shape) -> None:
        """Until a limit or room for it has changed."""
        assert self._limits is not None, "nothing else bars alternatives"
        self._parking.park(job, Key(ANY_LIMIT, (self._limits.key(state, job).kind, shape.number)))

    def _is_next(self, waiting: WaitingClass) -> bool:
        """Whether a class that is out of line would come first if it entered now."""
        if not self._line.is_next(waiting):
            return False
        rank = self._line.rank_of_class(waiting)
        return not self._gangs.stands_before(rank) and not (self._recheck and self._recheck[-1][0] < rank)

    def enlist(self, state: State, job_id: JobId) -> None:
        """Put a job into the line where it belongs now."""
        self._enqueue(state, job_id)

    def allowed(self, state: State, job: Job, least: int, most: int) -> int:
        """How many of a job's tasks may start together now; 0 if not `least`, and then it is parked."""
        for gate in self._gates:
            most = gate.allowed(state, job, most)
            if most < least:
                self._parking.park(job, gate.key(state, job))
                return 0
        return most

    def take(self, state: State, job: Job, tasks: int) -> None:
        """Tell the gates and the order of tasks that are on their way now; negative: not any more."""
        for gate in self._gates:
            gate.take(state, job, tasks)
        self._order.take(state, job, tasks)

    def _waiting(self, job: Job) -> int:
        """How many tasks of the job are neither held nor on their way."""
        in_flight = self._flights.jobs.get(job.id)
        return job.eligible - (in_flight.tasks if in_flight is not None else 0)

    def _wanted(self, state: State, job: Job) -> int:
        """How many tasks of the job may start beyond those that are on their way. A job that a gate holds back is parked."""
        wanted = self._waiting(job)
        for gate in self._gates:
            if wanted <= 0:
                break
            wanted = gate.allowed(state, job, wanted)
            if wanted <= 0:
                self._parking.park(job, gate.key(state, job))
        return max(wanted, 0)


_HANDLERS: dict[type, Callable[[Planner, State, Any, dict[NodeId, None]], None]] = {
    TasksScheduled: Planner._scheduled,
    AttemptEnded: Planner._ended,
    JobSubmitted: Planner._job_changed,
    JobResumed: Planner._job_changed,
    JobSuspended: Planner._job_stopped,
    JobCancelRequested: Planner._job_stopped,
    JobDeadlineExceeded: Planner._job_stopped,
    JobUpdated: Planner._job_updated,
    JobEnded: Planner._job_ended,
    TasksEligible: Planner._job_changed,
    GangReopened: Planner._job_changed,
    PolicyChanged: Planner._policy_changed,
    PolicyDeleted: Planner._policy_changed,
    **dict.fromkeys(NODE_CHANGES, Planner._node_changed),
}
