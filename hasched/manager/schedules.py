"""The schedules duty: works out which slots are due next, and has them written into the log before they are.

A schedule is planned for a minute and a half, and always to its next slot if that comes within a day. So a slot that is due just
when a leader dies is known to the next one, which has only the clock to step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import islice

import structlog

from hasched.model.errors import HaschedError
from hasched.model.schedule import NEVER_MS, gather
from hasched.raft.replica import Replica
from hasched.statemachine.apply import Applied
from hasched.statemachine.commands import PlanSlots
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.schedules import Schedule
from hasched.statemachine.state import State
from hasched.timetable.slots import slots_of

LEAD_MS = 30_000  # a schedule that is planned for less is planned on
AHEAD_MS = 90_000
FAR_MS = 24 * 3_600_000  # without a slot for so long, that there is none is all that is planned
MAX_SLOTS = 5000  # in one plan
MAX_PLANS = 50  # on their way at once
LONGEST_SLEEP_S = 1.0  # the wall clock may be set ahead while we sleep
FAULT_PAUSE_S = 60.0

log = structlog.get_logger(__name__)


class ScheduleDuty:
    """Plans for as long as it runs, which is once. Whatever another leader plans as well, the state machine takes once."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._changed = asyncio.Event()
        self._held: dict[tuple[str, int], float] = {}  # what can't be planned now, by name and revision, and until when

    async def run(self) -> None:
        unsubscribe = self._replica.subscribe(self._observe)
        try:
            while True:
                self._changed.clear()
                plans = []
                for name in self._to_plan():
                    schedule = self._replica.state.schedules.get(name)
                    plan = self._plan(schedule) if schedule is not None else None
                    if plan is not None:
                        plans.append(plan)
                    await asyncio.sleep(0)
                if plans:
                    await self._propose(plans)
                else:
                    await self._sleep()
        finally:
            unsubscribe()

    def _to_plan(self) -> list[str]:
        now_s = asyncio.get_running_loop().time()
        state, until_ms = self._replica.state, self._replica.clock_ms() + LEAD_MS
        self._held = {key: until_s for key, until_s in self._held.items() if until_s > now_s}
        found = least_planned(state, until_ms)
        return list(
            islice((name for name in found if (name, state.schedules[name].revision) not in self._held), MAX_PLANS)
        )

    def _plan(self, schedule: Schedule) -> PlanSlots | None:
        try:
            return plan_slots(schedule, self._replica.clock_ms())
        except Exception:  # one that can't be understood, by whatever mistake, must not keep others from being planned
            log.exception("schedule_unplannable", schedule=schedule.name)
            self._hold(schedule.name, schedule.revision, FAULT_PAUSE_S)
            return None

    def _hold(self, name: str, revision: int, pause_s: float) -> None:
        self._held[name, revision] = asyncio.get_running_loop().time() + pause_s

    async def _propose(self, plans: list[PlanSlots]) -> None:
        outcomes = await asyncio.gather(*map(self._replica.propose, plans), return_exceptions=True)
        for plan, outcome in zip(plans, outcomes, strict=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, HaschedError):
                raise outcome
            if isinstance(outcome, HaschedError | Rejected):
                log.warning("slots_not_planned", schedule=plan.name, code=outcome.code, cause=outcome.cause)
                self._hold(plan.name, plan.revision, LONGEST_SLEEP_S)

    async def _sleep(self) -> None:
        state = self._replica.state
        wait_s = LONGEST_SLEEP_S
        if not self._held:
            if not state.schedule_plans:
                await self._changed.wait()
                return
            wait_s = min(max((state.schedule_plans[0][0] - LEAD_MS - self._replica.clock_ms()) / 1000, 0.01), wait_s)
        try:
            async with asyncio.timeout(wait_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def _observe(self, _applied: Applied) -> None:
        plans = self._replica.state.schedule_plans
        if plans and plans[0][0] < self._replica.clock_ms() + LEAD_MS:
            self._changed.set()


def least_planned(state: State, until_ms: int) -> Iterator[str]:
    """The names of the schedules that are planned to before a time, the least planned first."""
    heap = state.schedule_plans
    frontier = [(heap[0], 0)] if heap else []
    found: dict[str, None] = {}
    while frontier:
        plan, place = heappop(frontier)
        if plan[0] >= until_ms:
            return
        if state.is_schedule_planned(plan) and plan[1] not in found:
            found[plan[1]] = None
            yield plan[1]
        for below in (2 * place + 1, 2 * place + 2):
            if below < len(heap):
                heappush(frontier, (heap[below], below))


def plan_slots(schedule: Schedule, now_ms: int) -> PlanSlots | None:
    """What comes next of a schedule; None if nothing new can be said. Raises ValueError where it can't be understood."""
    spec, after_ms = schedule.spec, schedule.planned_ms
    far_ms = now_ms + FAR_MS
    taken: list[tuple[int, int]] = []
    until_ms = NEVER_MS if is_last(schedule, far_ms) else far_ms
    for slot_ms, verdict in slots_of(spec, schedule.created_ms, after_ms, far_ms):
        enough = bool(taken) and taken[-1][0] > now_ms and slot_ms > now_ms + AHEAD_MS
        if enough or len(taken) == MAX_SLOTS:
            until_ms = taken[-1][0]
            break
        taken.append((slot_ms, int(verdict)))
    if until_ms <= after_ms:
        return None
    return PlanSlots(
        name=schedule.name,
        revision=schedule.revision,
        after_ms=after_ms,
        until_ms=until_ms,
        runs=tuple(gather(taken)),
    )


def is_last(schedule: Schedule, time_ms: int) -> bool:
    """Whether no slot is due later than a time."""
    spec = schedule.spec
    return bool(spec.end_ms and spec.end_ms <= time_ms) or bool(spec.at and spec.at[-1] <= time_ms)
