"""SIGSTOP of an agent: it may wake up to a cluster that has given its tasks away."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class FreezeAgent(Nemesis):
    name = "freeze-agent"
    summary = "SIGSTOP of an agent for a while"
    family = Family.AGENT
    seconds = (1.0, 12.0)
    managers = 1
    agents = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        agent = stage.any_agent()
        async with stage.claim(agent):
            await stage.under(seconds, stage.cluster.processes.frozen(agent, seconds))
