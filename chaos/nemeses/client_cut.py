"""Clients lose a manager that its peers still reach."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.network import OUTSIDE
from chaos.cluster.topology import both_ways
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class ClientCut(Nemesis):
    name = "client-cut"
    summary = "clients don't reach a manager, and its peers do"
    family = Family.NETWORK
    needs = (Ability.CUTS,)
    seconds = (2.0, 12.0)

    async def strike(self, stage: Stage, seconds: float) -> None:
        manager = stage.chance.choice(stage.cluster.managers)
        pairs = both_ways([(OUTSIDE, manager)])
        async with stage.claim_links(pairs, manager):
            await stage.under(seconds, stage.cluster.network.cut(pairs, seconds))
