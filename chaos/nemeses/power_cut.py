"""The power of all managers fails at one moment: what they did not sync is gone."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class PowerCut(Nemesis):
    name = "power-cut"
    summary = "a power cut of all managers at one moment"
    family = Family.DISK
    needs = (Ability.POWER, Ability.RESTARTS)
    seconds = (0.5, 4.0)
    weight = 1
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        processes, managers = stage.cluster.processes, list(stage.cluster.managers)
        async with stage.claim(*managers):
            try:
                await stage.cluster.disks.cut_power(managers)
                await stage.hold(seconds)
            finally:
                for manager in managers:
                    await processes.start(manager)
