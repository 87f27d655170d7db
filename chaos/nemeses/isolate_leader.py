"""The leader loses all other hosts, while clients still reach it."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.topology import between
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class IsolateLeader(Nemesis):
    name = "isolate-leader"
    summary = "the leader is cut off from all other hosts, and clients still reach it"
    family = Family.NETWORK
    needs = (Ability.ISOLATION,)
    seconds = (1.0, 10.0)
    weight = 4

    async def strike(self, stage: Stage, seconds: float) -> None:
        leader = await stage.leader()
        hosts = (*stage.cluster.managers, *stage.cluster.agents)
        async with stage.claim_links(between([leader], hosts), leader):
            await stage.under(seconds, stage.cluster.network.isolated(leader, seconds))
