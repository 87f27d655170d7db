"""What an agent reported, or what it was answered, is lost with the connection: it must be said again, and count once."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.topology import between
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class LostReports(Nemesis):
    name = "lost-reports"
    summary = "an agent's reports, or the answers to them, are lost with their connections"
    family = Family.AGENT
    needs = (Ability.CUTS,)
    seconds = (4.0, 12.0)
    managers = 1
    agents = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        agent = stage.any_agent()
        links = between([agent], stage.cluster.managers)
        until = stage.record.now() + seconds
        async with stage.claim_links(links, agent):
            while stage.record.now() < until and not stage.is_over:
                reports = stage.chance.random() < 0.5
                lost = [pair for pair in links if (pair[0] == agent) == reports]
                away_s = stage.chance.uniform(0.2, 1.0)
                async with stage.cluster.network.cut(lost, away_s + 1):
                    await stage.hold(away_s)
                    await stage.cluster.network.reset(links)
                await stage.hold(stage.chance.uniform(0.5, 1.5))
