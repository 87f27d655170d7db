"""Each manager reaches only its neighbours, so that most don't hear the leader."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.topology import chain
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class Chain(Nemesis):
    name = "chain"
    summary = "managers reach their neighbours in a row only"
    family = Family.NETWORK
    needs = (Ability.CUTS,)
    seconds = (3.0, 15.0)

    async def strike(self, stage: Stage, seconds: float) -> None:
        row = list(stage.cluster.managers)
        stage.chance.shuffle(row)
        pairs = chain(row)
        async with stage.claim_links(pairs, *row):
            stage.note(" - ".join(row))
            await stage.under(seconds, stage.cluster.network.cut(pairs, seconds))
