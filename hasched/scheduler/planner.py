"""The planner: turns what waits and what is free into plans.

It keeps its own indexes (ADR 0006), current from the applied events: waiting jobs by equivalence class, and nodes by what
is free after everything proposed so far. So a pass in which nothing fits costs one test per class that waits, however
many tasks it has, and a plan never uses twice what an earlier plan on its way has taken.

Order: priority, then job id. Within that it is greedy: a task that doesn't fit is passed by smaller ones behind it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterator
from itertools import islice
from typing import Any, TypeAlias

from hasched.model.ids import JobId, NodeId, TaskIndex
from hasched.model.spec import Resources
from hasched.model.states import PlacementPolicy, TaskState
from hasched.scheduler.placement import SCORERS
from hasched.scheduler.slots import Slot
from hasched.scheduler.waiting import Line, WaitingClass
from hasched.statemachine.apply import Applied
from hasched.statemachine.commands import Placement, PlacePlan
from hasched.statemachine.events import (
    NODE_CHANGES,
    AttemptEnded,
    JobResumed,
    JobSubmitted,
    NodeRegistered,
    TasksEligible,
    TasksScheduled,
)
from hasched.statemachine.job import Job
from hasched.statemachine.state import State

REBUILD_SLICE_JOBS = 2_000
_NODES_A_UNIT = 16  # looking at so many nodes costs about as much as placing a task

_Candidates: TypeAlias = list[tuple[float, int, Slot]]


class _Flight:
    """A plan on its way: how many tasks of each (job, node) the log has not answered for yet."""

    __slots__ = ("plan", "tasks")

    def __init__(self, plan: PlacePlan) -> None:
        self.plan = plan
        self.tasks = {(p.job_id, p.node_id): len(p.indices) for p in plan.placements}


class _InFlight:
    """What is on its way for one job. Indices below `next_index` have been proposed, or were not eligible then."""

    __slots__ = ("next_index", "resources", "tasks")

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.tasks = 0
        self.next_index = 0


class Planner:
    """Feed it every applied entry (`observe`), ask for plans while it is `ready`, and say when each is decided (`settle`).

    `reachable` holds the nodes that can be given work now, None means every healthy one; of a change in it the planner is
    told by `node_came_or_went`.
    """

    def __init__(
        self, policy: PlacementPolicy = PlacementPolicy.BIN_PACK, reachable: Container[NodeId] | None = None
    ) -> None:
        self._scorer = SCORERS[policy]
        self._reachable = reachable
        self.units_spent = 0  # since the planner was made, for metrics and tests
        self._turn = 0
        self._reset()

    def _reset(self) -> None:
        self._slots: dict[NodeId, Slot] = {}
        self._slots_made = 0
        self._line = Line()
        self._grown: dict[NodeId, Slot] = {}  # since every class in line was tried
        self._recall = False
        self._jobs_in_flight: dict[JobId, _InFlight] = {}
        self._flights: list[_Flight] = []

    def rebuild(self, state: State) -> Iterator[None]:
        """Start anew from the state, a slice at each step. Entries may be applied and observed between the steps."""
        self._reset()
        for node_id in state.nodes:
            self._refresh(state, node_id)
        waiting = list(state.jobs)
        for start in range(0, len(waiting), REBUILD_SLICE_JOBS):
            for job_id in waiting[start : start + REBUILD_SLICE_JOBS]:
                self._enqueue(state, job_id)
            yield

    def node_came_or_went(self, state: State, node_id: NodeId) -> None:
        """Whether the node is `reachable` has changed."""
        self._refresh(state, node_id)

    # What happened

    def observe(self, state: State, applied: Applied) -> None:
        """Take in an entry that has just been applied to `state`."""
        touched: dict[NodeId, None] = {}
        for event in applied.events:
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                handler(self, state, event, touched)
        for node_id in touched:
            self._refresh(state, node_id)

    def settle(self, state: State, plan: PlacePlan) -> None:
        """The plan has been decided, or its outcome won't be known: what of it was not scheduled is free again."""
        flight = next(flight for flight in self._flights if flight.plan is plan)
        self._flights.remove(flight)
        for (job_id, node_id), tasks in flight.tasks.items():
            if tasks:
                self._land(state, job_id, node_id, tasks)
                self._refresh(state, node_id)

    def _scheduled(self, state: State, event: TasksScheduled, touched: dict[NodeId, None]) -> None:
        touched[event.node_id] = None
        left = len(event.indices)
        key = (event.job_id, event.node_id)
        for flight in self._flights:
            tasks = min(left, flight.tasks.get(key, 0))
            if tasks:
                flight.tasks[key] -= tasks
                left -= tasks
                self._land(state, *key, tasks)

    def _land(self, state: State, job_id: JobId, node_id: NodeId, tasks: int) -> None:
        """So many tasks of a job are not on their way to the node any more."""
        in_flight = self._jobs_in_flight[job_id]
        slot = self._slots.get(node_id)
        if slot is not None:
            slot.reserve(in_flight.resources, -tasks)
        in_flight.tasks -= tasks
        if not in_flight.tasks:
            del self._jobs_in_flight[job_id]
            self._enqueue(state, job_id)

    def _ended(self, state: State, event: AttemptEnded, touched: dict[NodeId, None]) -> None:
        touched[event.node_id] = None
        job = state.jobs.get(event.job_id)
        if job is not None and (event.task_state is TaskState.PENDING or job.max_running):
            self._enqueue(state, event.job_id)

    def _job_changed(
        self,
        state: State,
        event: JobSubmitted | JobResumed | TasksEligible,
        touched: dict[NodeId, None],
    ) -> None:
        self._enqueue(state, event.job_id)

    def _node_changed(self, state: State, event: NodeRegistered, touched: dict[NodeId, None]) -> None:
        """Any of `NODE_CHANGES`."""
        touched[event.node_id] = None

    def _enqueue(self, state: State, job_id: JobId) -> None:
        job = state.jobs.get(job_id)
        if job is not None and self._wanted(job) > 0:
            self._line.add(job)

    def _refresh(self, state: State, node_id: NodeId) -> None:
        node = state.nodes.get(node_id)
        if node is None:
            self._slots.pop(node_id, None)
            self._grown.pop(node_id, None)
            return
        slot = self._slots.get(node_id)
        if slot is None:
            self._slots_made += 1
            slot = self._slots[node_id] = Slot(node_id, self._slots_made)
        reachable = self._reachable is None or node_id in self._reachable
        if slot.refresh(node, reachable) and slot.usable:
            self._grown[node_id] = slot
            self._recall = True

    # What to do

    @property
    def ready(self) -> bool:
        """Whether `plan` has anything to look at."""
        return self._recall or bool(self._line)

    def plan(self, state: State, budget: int) -> PlacePlan | None:
        """The next slice of placements, at most `budget` units of work: a task placed, or a class or job looked at.

        None when the slice found nothing to start; ask again while `ready`.
        """
        if self._recall:
            self._recall = False
            self._line.call_back()
        draft: dict[tuple[JobId, NodeId], list[TaskIndex]] = {}
        candidates: dict[WaitingClass, _Candidates] = {}
        spent = 0
        while spent < budget and (waiting := self._line.next()) is not None:
            spent += self._plan_class(state, waiting, candidates, draft, budget - spent)
        self.units_spent += spent
        if not self._line:
            self._grown.clear()
        if not draft:
            return None
        plan = PlacePlan(
            placements=tuple(Placement(job_id, node_id, tuple(tasks)) for (job_id, node_id), tasks in draft.items())
        )
        self._flights.append(_Flight(plan))
        return plan

    def _plan_class(
        self,
        state: State,
        waiting: WaitingClass,
        candidates: dict[WaitingClass, _Candidates],
        draft: dict[tuple[JobId, NodeId], list[TaskIndex]],
        budget: int,
    ) -> int:
        """Place jobs of a class while it is first in line. Returns the units spent."""
        spent = 1
        nodes = candidates.get(waiting)
        if nodes is None:
            nodes = candidates[waiting] = self._candidates(waiting)
            spent += len(self._grown if waiting.known_full else self._slots) // _NODES_A_UNIT
        while (job_id := waiting.first) is not None:
            job = state.jobs.get(job_id)
            wanted = 0 if job is None else self._wanted(job)
            if job is not None and wanted:
                allowed = min(wanted, max(budget - spent, 1))
                placed = self._place(job, allowed, nodes, draft)
                spent += placed
                if placed < allowed and not nodes:
                    self._line.set_aside(waiting)
                    return spent
                if placed == allowed < wanted:
                    break
            waiting.drop_first()
            spent += 1 - bool(wanted)
            if spent >= budget or not self._line.is_next(waiting):
                break
        self._line.enter(waiting)
        return spent

    def _candidates(self, waiting: WaitingClass) -> _Candidates:
        """The nodes that a task of this class fits, as a heap by score."""
        request, score = waiting.key.resources, self._scorer.score
        slots = self._grown if waiting.known_full else self._slots
        nodes = [
            (score(slot, request), slot.order, slot) for slot in slots.values() if slot.usable and slot.room(request, 1)
        ]
        heapq.heapify(nodes)
        return nodes

    def _place(
        self, job: Job, wanted: int, nodes: _Candidates, draft: dict[tuple[JobId, NodeId], list[TaskIndex]]
    ) -> int:
        """Draft up to `wanted` tasks of a job onto the best nodes. Nodes that are full leave `nodes`."""
        request, (score, fills) = job.resources, self._scorer
        in_flight = self._jobs_in_flight.get(job.id) or _InFlight(request)
        indices = job.pending_indices(in_flight.next_index)
        placed = 0
        while placed < wanted and nodes:
            rank, order, slot = nodes[0]
            room = slot.room(request, wanted - placed if fills else 1)
            if not room:
                heapq.heappop(nodes)
                continue
            if not fills and (now := score(slot, request)) > rank:
                heapq.heapreplace(nodes, (now, order, slot))
                continue
            tasks = list(islice(indices, room))
            if not tasks:
                break
            self._turn += 1
            slot.turn = self._turn
            slot.take(request, len(tasks))
            draft.setdefault((job.id, slot.node_id), []).extend(tasks)
            in_flight.next_index = tasks[-1] + 1
            placed += len(tasks)
        if placed:
            in_flight.tasks += placed
            self._jobs_in_flight[job.id] = in_flight
        return placed

    def _wanted(self, job: Job) -> int:
        """How many tasks of the job may start beyond those that are on their way."""
        if job.suspended or job.cancelling:
            return 0
        in_flight = self._jobs_in_flight.get(job.id)
        proposed = in_flight.tasks if in_flight is not None else 0
        wanted = job.eligible - proposed
        if job.max_running:
            wanted = min(wanted, job.max_running - job.active - proposed)
        return max(wanted, 0)


_HANDLERS: dict[type, Callable[[Planner, State, Any, dict[NodeId, None]], None]] = {
    TasksScheduled: Planner._scheduled,
    AttemptEnded: Planner._ended,
    JobSubmitted: Planner._job_changed,
    JobResumed: Planner._job_changed,
    TasksEligible: Planner._job_changed,
    **dict.fromkeys(NODE_CHANGES, Planner._node_changed),
}
