"""A manager, leader or not, loses all other hosts: it must not believe that it leads, nor disturb when it is back."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.topology import between
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class IsolateManager(Nemesis):
    name = "isolate-manager"
    summary = "a manager is cut off from all other hosts, and clients still reach it"
    family = Family.NETWORK
    needs = (Ability.ISOLATION,)
    seconds = (1.0, 10.0)
    weight = 2

    async def strike(self, stage: Stage, seconds: float) -> None:
        manager = stage.chance.choice(stage.cluster.managers)
        hosts = (*stage.cluster.managers, *stage.cluster.agents)
        async with stage.claim_links(between([manager], hosts), manager):
            await stage.under(seconds, stage.cluster.network.isolated(manager, seconds))
