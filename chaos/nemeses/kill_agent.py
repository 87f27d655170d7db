"""SIGKILL of an agent alone: its tasks run on under the supervisor."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class KillAgent(Nemesis):
    name = "kill-agent"
    summary = "SIGKILL of an agent, whose tasks run on"
    family = Family.AGENT
    seconds = (0.5, 8.0)
    weight = 3
    managers = 1
    agents = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        agent = stage.any_agent()
        async with stage.claim(agent):
            await stage.under(seconds, stage.cluster.processes.down(agent, seconds))
