"""Agents die and come back one after the other, faster than anybody can settle."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class AgentsComeAndGo(Nemesis):
    name = "agents-come-and-go"
    summary = "agents die and come back, one after the other"
    family = Family.AGENT
    seconds = (5.0, 15.0)
    managers = 1
    agents = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        until = stage.record.now() + seconds
        while stage.record.now() < until and not stage.is_over:
            agent, away_s = stage.any_agent(), stage.chance.uniform(0.1, 1.5)
            async with stage.claim(agent):
                await stage.under(away_s, stage.cluster.processes.down(agent, away_s))
            await stage.hold(stage.chance.uniform(0.1, 1.0))
