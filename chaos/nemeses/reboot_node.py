"""A node loses its agent, its supervisor and all tasks at once."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class RebootNode(Nemesis):
    name = "reboot-node"
    summary = "a node is reset: its agent, supervisor and tasks are gone at once"
    family = Family.AGENT
    needs = (Ability.SIGNALS, Ability.RESTARTS)
    seconds = (0.5, 2.0)
    managers = 1
    agents = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        agent = stage.any_agent()
        async with stage.claim(agent):
            await stage.cluster.processes.reboot(agent)
            await stage.hold(seconds)
