"""Schedules in a simulated cluster: somebody puts them, and what became of every slot is compared with what was due.

When they are due is worked out here by counting, not by the timetable. They are planned less far ahead than usual, so that faults
come between plans.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from chaos.checkers import slots
from chaos.checkers.slots import Settled
from hasched.manager import schedules as duty
from hasched.model.errors import HaschedError
from hasched.model.schedule import CatchUp, Overlap, ScheduleSpec
from hasched.model.spec import JobSpec, Resources
from hasched.raft.replica import Applied
from hasched.statemachine import events as e
from hasched.statemachine.commands import Command, PauseSchedule, PutSchedule
from hasched.statemachine.schedules import parse_parent
from tests.simulation.manager import ask
from tests.simulation.network import Certificate
from tests.simulation.patches import Patches

if TYPE_CHECKING:
    from tests.simulation.loop import HostLoop
    from tests.simulation.manager import SimulatedManager
    from tests.simulation.world import World

PATIENCE_S = 8.0
GRACE_MS = 20_000
JOB = JobSpec(name="tick", command=("task",), env={"RUN_MS": "50", "EXIT": "0"}, resources=Resources(cpu_milli=1))
SPECS = {
    "every": ScheduleSpec(every_ms=1500, catch_up=CatchUp.ALL, catch_up_limit=30, grace_ms=GRACE_MS, job=JOB),
    "second": ScheduleSpec(
        cron="*/2 * * * * *", timezone="Australia/Lord_Howe", grace_ms=GRACE_MS, overlap=Overlap.QUEUE, job=JOB
    ),
    "jittered": ScheduleSpec(every_ms=2500, jitter_ms=4000, grace_ms=GRACE_MS, overlap=Overlap.FORBID, job=JOB),
}


class Schedules:
    """Who puts the schedules, and pauses them in the end; and what was told of them."""

    def __init__(self, world: World, patches: Patches) -> None:
        self._world = world
        self._random = world.stream("schedules")
        self._loop = world.client("keeper")
        self._settled: dict[str, list[Settled]] = {name: [] for name in SPECS}
        self._jobs: dict[str, list[tuple[int, int]]] = {name: [] for name in SPECS}
        self._seen: dict[int, None] = {}
        self.finished = True  # nobody waits for a schedule: it is paused
        world.on_applied.append(self._applied)
        patches.set(duty, "LEAD_MS", 3000)
        patches.set(duty, "AHEAD_MS", 4000)

    def start(self) -> None:
        self._loop.create_task(
            self._tell([PutSchedule(name=name, spec=spec, actor="keeper") for name, spec in SPECS.items()])
        )

    def stop(self) -> None:
        """Nothing more is fired, so that the jobs come to an end."""
        self._loop.create_task(self._tell([PauseSchedule(name=name, actor="keeper") for name in SPECS]))

    async def _tell(self, commands: list[Command]) -> None:
        await tell(self._world, self._loop, self._random, "keeper", commands)

    def _applied(self, _manager: SimulatedManager, applied: Applied) -> None:
        if applied.index in self._seen:
            return
        self._seen[applied.index] = None
        now_ms = applied.now_ms
        for event in applied.events:
            match event:
                case e.SlotFired():
                    row = Settled(event.slot_ms, 0, 1, event.outcome.name, now_ms, event.job_id)
                    self._settled[event.schedule].append(row)
                case e.SlotsSkipped():
                    row = Settled(event.first_ms, event.step_ms, event.count, event.outcome.name, now_ms, 0)
                    self._settled[event.schedule].append(row)
                case e.JobSubmitted(parent=parent, job_id=job_id) if parent:
                    found = parse_parent(parent)
                    assert found is not None
                    self._jobs[found[0]].append((found[1], job_id))
                case _:
                    pass

    def verdict(self) -> list[str]:
        """Everything is healed, and the managers agree."""
        manager = self._world.leader()
        assert manager is not None
        state = manager.replica.state
        wrong: list[str] = []
        for name, spec in SPECS.items():
            schedule = state.schedules.get(name)
            if schedule is None:
                continue  # nobody could put it before all was healed
            if schedule.planned_ms < state.now_ms:
                wrong.append(f"{name} is planned to {schedule.planned_ms}, and it is {state.now_ms}")
            open_slots = {each.slot_ms: None for each in schedule.pending} | {
                each.slot_ms: None for each in schedule.waiting
            }
            if any(each.fire_ms < state.now_ms - 10_000 for each in schedule.pending):
                wrong.append(f"{name} has a slot that is never settled")
            step_ms = spec.every_ms or 2000
            first_ms = schedule.created_ms + step_ms
            if spec.cron:
                first_ms = schedule.created_ms - schedule.created_ms % step_ms + step_ms
            expected = [
                slot_ms for slot_ms in range(first_ms, schedule.planned_ms + 1, step_ms) if slot_ms not in open_slots
            ]
            wrong += slots.check(name, expected, self._settled[name], self._jobs[name], GRACE_MS)
        return wrong


async def tell(world: World, loop: HostLoop, random: Random, name: str, commands: list[Command]) -> None:
    """Until a manager has taken all of them."""
    certificate = Certificate("user", name)
    while True:
        manager = random.choice(list(world.managers))
        try:
            async with asyncio.timeout(PATIENCE_S):
                await ask(loop, certificate, manager, lambda host: host.replica.propose_many(commands))
            return
        except (HaschedError, OSError):
            await asyncio.sleep(random.uniform(0.2, 1.0))
