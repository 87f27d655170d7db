"""The power of one machine fails: what it did not sync is gone, and on a node all that ran."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class PowerCutOne(Nemesis):
    name = "power-cut-one"
    summary = "a power cut of one manager or node"
    family = Family.DISK
    needs = (Ability.POWER, Ability.RESTARTS)
    seconds = (0.5, 4.0)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        victim = stage.chance.choice(stage.free([*stage.cluster.managers, *stage.cluster.agents]))
        async with stage.claim(victim):
            try:
                await stage.cluster.disks.cut_power([victim])
                await stage.hold(seconds)
            finally:
                await stage.cluster.processes.start(victim)
