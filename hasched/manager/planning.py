"""The planning duty: keeps a planner current, and proposes what it plans.

It wakes when an applied entry gives it something to look at. Plans are bounded slices with a turn of the event loop
between them, so planning never holds up consensus; few are on their way at once, so what happens meanwhile gathers into
the next.
"""

from __future__ import annotations

import asyncio

import structlog

from hasched.api.hub import AgentHub
from hasched.model.errors import HaschedError
from hasched.model.ids import NodeId
from hasched.model.states import PlacementPolicy
from hasched.raft.replica import Replica
from hasched.scheduler.following import Plan
from hasched.scheduler.keeping import Kept
from hasched.scheduler.planner import Planner
from hasched.scheduler.searches import GANG_PORTS
from hasched.statemachine.apply import Applied
from hasched.statemachine.outcomes import AttemptsPreempted, Outcome, PlanTaken

SLICE_UNITS = 256
MAX_PLANS_IN_FLIGHT = 2
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

log = structlog.get_logger(__name__)


class PlanningDuty:
    """Plans for as long as it runs, which is once: nothing is carried over into another run or term."""

    def __init__(
        self, replica: Replica, hub: AgentHub, policy: PlacementPolicy, gang_ports: range = GANG_PORTS
    ) -> None:
        self._replica = replica
        self._hub = hub
        self._planner = Planner(policy, hub.taking_work, gang_ports=gang_ports)
        self._wake = asyncio.Event()
        self._pause_s = 0.0
        self._fault: Exception | None = None

    async def run(self) -> None:
        forget = [self._replica.subscribe(self._observe), self._hub.watch(self._node_came_or_went)]
        self._hub.held_nodes = lambda: self._planner.held_nodes
        self._hub.kept = lambda: self._planner.kept
        try:
            for _ in self._planner.rebuild(self._replica.state):
                await asyncio.sleep(0)
            self._hub.count_ahead = self._planner.count_ahead
            for _ in self._hub.node_classes.follow(self._replica.state):  # so that the first question waits no longer
                await asyncio.sleep(0)
            async with asyncio.TaskGroup() as proposals:
                await self._plan(proposals)
        finally:
            self._hub.held_nodes, self._hub.kept, self._hub.count_ahead = dict, Kept, None
            for stop in forget:
                stop()

    async def _plan(self, proposals: asyncio.TaskGroup) -> None:
        slots = asyncio.Semaphore(MAX_PLANS_IN_FLIGHT)
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._fault is not None:
                raise self._fault
            while self._planner.ready:
                await slots.acquire()
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)
                plan = self._planner.plan(self._replica.state, SLICE_UNITS)
                if plan is None:
                    slots.release()
                else:
                    proposals.create_task(self._propose(plan, slots))
                await asyncio.sleep(0)

    async def _propose(self, plan: Plan, slots: asyncio.Semaphore) -> None:
        """Have a plan decided. One that came to nothing slows down the next: whatever is wrong is not mended by haste."""
        outcome: Outcome | None = None
        try:
            outcome = await self._replica.propose(plan)
        except HaschedError as error:
            log.warning("plan_undecided", code=error.code, cause=error.cause)
        finally:
            self._planner.settle(self._replica.state, plan)
            slots.release()
            self._wake.set()
        if (isinstance(outcome, PlanTaken) and outcome.scheduled) or (
            isinstance(outcome, AttemptsPreempted) and outcome.stopping
        ):
            self._pause_s = 0.0
        else:
            log.info("plan_refused", outcome=repr(outcome))
            self._pause_s = min(max(self._pause_s * 2, FIRST_PAUSE_S), LONGEST_PAUSE_S)

    def _observe(self, applied: Applied) -> None:
        """A planner that missed something can't be trusted any more: its failure ends this run, and the next rebuilds."""
        try:
            self._planner.observe(self._replica.state, applied)
        except Exception as error:
            self._fault = error
        if self._planner.ready or self._fault is not None:
            self._wake.set()

    def _node_came_or_went(self, node_id: NodeId) -> None:
        self._planner.node_came_or_went(self._replica.state, node_id)
        if self._planner.ready:
            self._wake.set()
