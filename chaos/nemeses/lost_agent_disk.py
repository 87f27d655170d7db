"""A node comes back with an empty disk: what it ran is lost and known to be."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class LostAgentDisk(Nemesis):
    name = "lost-agent-disk"
    summary = "a node loses its power and comes back with an empty disk"
    family = Family.AGENT
    needs = (Ability.POWER, Ability.RESTARTS, Ability.DISKS)
    seconds = (0.5, 2.0)
    weight = 1
    managers = 1
    agents = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        processes, agent = stage.cluster.processes, stage.any_agent()
        async with stage.claim(agent):
            await stage.cluster.disks.cut_power([agent])
            try:
                await stage.cluster.disks.wipe(agent)
                await stage.hold(seconds)
            finally:
                await processes.start(agent)
