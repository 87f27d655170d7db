"""What the planner knows: its own indexes (ADR 0006), kept current from every entry that is applied.

Who waits (`line`, `gangs`), who is held back (`parking`), what is free after everything proposed so far (`slots`, `flights`), and
which node is the best for each shape of task (`candidates`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, TypeAlias

from hasched.model.ids import JobId, NodeId, TaskIndex
from hasched.model.policy import PolicyKind
from hasched.model.spec import Resources
from hasched.model.states import PlacementPolicy, TaskState
from hasched.scheduler.ahead import Ahead
from hasched.scheduler.candidates import Candidates, Cursor, View
from hasched.scheduler.flights import Flights, Landing
from hasched.scheduler.gangs import GangLine
from hasched.scheduler.gates import Gate, standard_gates
from hasched.scheduler.head import Head
from hasched.scheduler.holds import Holds
from hasched.scheduler.keeping import NOTHING, Keeping
from hasched.scheduler.limits import LimitGate
from hasched.scheduler.line import Line
from hasched.scheduler.order import ByPolicies, Order, Rank, group_of
from hasched.scheduler.parking import Parking
from hasched.scheduler.placement import SCORERS
from hasched.scheduler.related import RelatedCursor
from hasched.scheduler.searches import GANG_PORTS
from hasched.scheduler.shapes import Shape, Shapes
from hasched.scheduler.slots import Changes, Slot
from hasched.scheduler.standing import Standing
from hasched.scheduler.tallies import Tallies
from hasched.scheduler.wholes import Wholes
from hasched.scheduler.windows import Windows
from hasched.statemachine.apply import Applied
from hasched.statemachine.commands import PlaceGang, PlacePlan, PreemptAttempts
from hasched.statemachine.events import (
    NODE_CHANGES,
    AttemptEnded,
    GangReopened,
    JobCancelRequested,
    JobDeadlineExceeded,
    JobDue,
    JobEnded,
    JobResumed,
    JobSubmitted,
    JobSuspended,
    JobUpdated,
    NodeRegistered,
    PolicyChanged,
    PolicyDeleted,
    TasksEligible,
    TasksReleased,
    TasksScheduled,
)
from hasched.statemachine.node import Node
from hasched.statemachine.state import State

REBUILD_SLICE = 1_000  # jobs or nodes

Plan: TypeAlias = PlacePlan | PlaceGang | PreemptAttempts
Draft: TypeAlias = dict[tuple[Landing, int], list[TaskIndex]]  # tasks that are spread each for itself, in their order


class Following(Standing):
    """`reachable` holds the nodes that can be given work now, None means every healthy one; of a change in it the planner is
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
        self._ahead = Ahead(self._order.rank)
        self._flights = Flights()
        self._keeping = Keeping()
        self._kept_before: list[NodeId] = []  # nodes with GPUs that haven't been told yet what is kept now
        self._told = NOTHING
        self._gangs = GangLine(self, self._order, self._changes, self._windows, self._slots)
        self._gangs.ports = self._gang_ports
        self._unlisted: list[JobId] = []  # jobs to be put in line, the last first
        self._unkept = False  # whether the last slice was too long to see who holds a node
        self._grown = False  # whether something may fit that didn't when the shapes aside were last looked at
        self._draft: Draft = {}  # of the plan that is being made
        self._empty_line()

    def _empty_line(self) -> None:
        self._shapes = Shapes()
        self._standing = {}
        self._tallies = Tallies(self._on_their_way)
        self._candidates = Candidates(self._scorer, self._changes, self._windows, self._slots, self._make_related)
        self._line = Line(self._order.rank, self._forget_shape)
        self._holds = Holds(self._changes, self._windows)
        self._gangs.empty_line(self._holds, self._tallies)
        self._wholes = Wholes(self._line, self._candidates, self._windows)
        self._head = Head(
            self._line,
            self._candidates,
            self._holds,
            self._slots,
            self._changes,
            wholes=self._wholes,
            stands=self._stands,
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
            self._ahead.see(state, job_id)
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
        begun = 0  # the job of which tasks have just started, and nothing else happened since
        for event in applied.events:
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                handler(self, state, event, touched)
            if (job_id := getattr(event, "job_id", 0)) and isinstance(job_id, int):
                started = isinstance(event, TasksScheduled)
                if not (started and job_id == begun):  # a gang makes an event for each of its nodes
                    if job_id in self._standing and not (started and self._waits(state, job_id)):
                        del self._standing[job_id]
                    self._ahead.see(state, job_id, started=started)
                begun = job_id if started else 0
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
        event: JobSubmitted | JobResumed | JobDue | JobUpdated | TasksEligible | TasksReleased | GangReopened,
        touched: dict[NodeId, None],
    ) -> None:
        self._enqueue(state, event.job_id)

    def _job_updated(self, state: State, event: JobUpdated, touched: dict[NodeId, None]) -> None:
        self._keeping.forget(event.job_id)
        self._ahead.move(state, event.job_id)
        self._see_use(state, event.job_id)
        self._enqueue(state, event.job_id)
        self._job_stopped(state, event, touched)  # it may wait for others now

    def _job_ended(self, state: State, event: JobEnded, touched: dict[NodeId, None]) -> None:
        self._parking.forget(event.job_id)
        self._keeping.forget(event.job_id)
        self._job_stopped(state, event, touched)

    def _job_stopped(
        self,
        state: State,
        event: JobSuspended | JobCancelRequested | JobEnded | JobDeadlineExceeded | JobUpdated,
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
                self._wholes.forget_slot(slot)
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

    def enlist(self, state: State, job_id: JobId) -> None:
        """Put a job into the line where it belongs now."""
        self._enqueue(state, job_id)


_HANDLERS: dict[type, Callable[[Following, State, Any, dict[NodeId, None]], None]] = {
    TasksScheduled: Following._scheduled,
    AttemptEnded: Following._ended,
    JobSubmitted: Following._job_changed,
    JobResumed: Following._job_changed,
    JobDue: Following._job_changed,
    JobSuspended: Following._job_stopped,
    JobCancelRequested: Following._job_stopped,
    JobDeadlineExceeded: Following._job_stopped,
    JobUpdated: Following._job_updated,
    JobEnded: Following._job_ended,
    TasksEligible: Following._job_changed,
    TasksReleased: Following._job_changed,
    GangReopened: Following._job_changed,
    PolicyChanged: Following._policy_changed,
    PolicyDeleted: Following._policy_changed,
    **dict.fromkeys(NODE_CHANGES, Following._node_changed),
}
