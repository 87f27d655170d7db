"""Managers reach only one of them, which may not be the leader."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.topology import star
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class Star(Nemesis):
    name = "star"
    summary = "managers reach one of them and nobody else"
    family = Family.NETWORK
    needs = (Ability.CUTS,)
    seconds = (3.0, 15.0)

    async def strike(self, stage: Stage, seconds: float) -> None:
        managers = list(stage.cluster.managers)
        centre = stage.chance.choice(managers)
        pairs = star(centre, managers)
        async with stage.claim_links(pairs, *managers):
            stage.note(f"{centre} in the centre")
            await stage.under(seconds, stage.cluster.network.cut(pairs, seconds))
