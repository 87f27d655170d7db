"""Schedules every second on real daemons, for minutes, while leaders are killed, cut off, frozen and set to other times.

Each schedule is in another zone. What became of every second is read from the ledgers meanwhile, and compared with what was
due and with the jobs.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

from chaos.abilities import Ability
from chaos.checkers import slots
from chaos.checkers.slots import Settled
from chaos.cluster.own import OwnCluster
from chaos.drills.base import Drill
from chaos.drills.play import PASSED, play
from chaos.drills.props import leader_of, until_whole
from chaos.drills.scene import Scene
from chaos.drills.schedules import GRACE_MS, jobs_by_schedule, ledger_of, put
from chaos.safety.ledger import Ledger
from hasched.model.errors import HaschedError
from proofs.report import Proof
from tests.timetable.table import changing_zones

PROOF = "schedules-live"
CALM_S = 4.0
FAULTS = ("leader killed", "leader cut off", "leader frozen", "all managers killed", "clock set")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--schedules", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)


def prove(options: argparse.Namespace) -> Proof:
    return asyncio.run(_prove(options))


async def _prove(options: argparse.Namespace) -> Proof:
    drill = UnderFaults(options)
    with Ledger.open("schedules", command="scripts/prove") as ledger:
        limit_s = options.minutes * 60 * 2 + 300
        part = await play(drill, lambda: OwnCluster(ledger, drill.managers, drill.agents), limit_s=limit_s)
    proof = Proof("Schedules every second on real daemons", ("fault", "times"))
    for name, times in drill.struck.items():
        proof.add(name, times)
    for sentence in drill.wrong[:20]:
        proof.violate(sentence)
    if part.verdict != PASSED:
        proof.violate(f"{part.verdict}: {part.why}")
    proof.facts = {
        "schedules": options.schedules,
        "minutes": options.minutes,
        "slots due": f"{drill.due:,}",
        "slots fired": f"{drill.fired:,}",
        "missed": drill.due - drill.fired,
        "the latest, ms after it was due": drill.late_ms,
    }
    if drill.fired != drill.due:
        proof.violate(f"{drill.due} slots were due, and {drill.fired} were fired")
    return proof


class UnderFaults(Drill):
    name = "schedules-under-faults"
    happened = "Schedulers miss what was due when they changed leaders, or do it twice."
    expects = "Every second of every schedule is settled once, and has one job."
    needs = (Ability.SIGNALS, Ability.CUTS, Ability.CLOCKS)
    agents = 1

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._dice = Random(options.seed)
        self._rows: dict[str, dict[tuple[int, int], Settled]] = {}
        self.struck = dict.fromkeys(FAULTS, 0)
        self.wrong: list[str] = []
        self.due = self.fired = self.late_ms = 0

    async def play(self, scene: Scene) -> None:
        zones = list(changing_zones(2026, 2026))
        first: dict[str, int] = {}
        for number in range(self._options.schedules):
            name = f"z{number}"
            view = await put(scene, name, "* * * * * *", timezone=zones[number % len(zones)])
            first[name] = view.created_ms - view.created_ms % 1000 + 1000
            self._rows[name] = {}
        end_s = scene.now() + self._options.minutes * 60
        while scene.now() < end_s:
            fault = self._dice.choice(FAULTS)
            async with self._fault(scene, fault):
                await asyncio.sleep(self._dice.uniform(1.0, 6.0))
            self.struck[fault] += 1
            await asyncio.sleep(CALM_S)
            await self._read(scene)
        await until_whole(scene)
        for name in first:
            await scene.client.pause_schedule(name, "the proof is over")
        await asyncio.sleep(1.5)
        await self._read(scene)
        jobs = await jobs_by_schedule(scene)
        for name, first_ms in first.items():
            self._compare(name, first_ms, jobs.get(name, []))

    async def _read(self, scene: Scene) -> None:
        for name, rows in self._rows.items():
            try:
                rows.update({(row.first_ms, row.job_id): row for row in await ledger_of(scene, name)})
            except HaschedError:
                return  # later

    def _compare(self, name: str, first_ms: int, jobs: list[tuple[int, int]]) -> None:
        rows = [row for row in self._rows[name].values() if row.outcome != "PAUSED"]
        last_ms = max(row.first_ms for row in rows)
        expected = range(first_ms, last_ms + 1, 1000)
        self.wrong += slots.check(name, expected, rows, jobs, GRACE_MS)
        fired = sum(bool(row.job_id) for row in rows)
        late_ms = max(row.settled_ms - row.first_ms for row in rows)
        self.due, self.fired, self.late_ms = self.due + len(expected), self.fired + fired, max(self.late_ms, late_ms)

    @asynccontextmanager
    async def _fault(self, scene: Scene, fault: str) -> AsyncIterator[None]:
        cluster, dice = scene.cluster, self._dice
        async with AsyncExitStack() as stack:
            match fault:
                case "all managers killed":
                    for name in cluster.managers:
                        await stack.enter_async_context(cluster.processes.down(name, 30.0))
                case "clock set":
                    victim = dice.choice(list(cluster.managers))
                    jump_s = dice.choice((-3600.0, -5.0, 5.0, 40.0))
                    await stack.enter_async_context(cluster.clocks.shifted(victim, jump_s, 0.0, 30.0))
                case _:
                    leader = await leader_of(scene)
                    struck = {
                        "leader killed": cluster.processes.down,
                        "leader cut off": cluster.network.isolated,
                        "leader frozen": cluster.processes.frozen,
                    }[fault]
                    await stack.enter_async_context(struck(leader, 30.0))
            scene.show(fault)
            yield
