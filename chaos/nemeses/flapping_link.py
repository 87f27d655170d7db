"""A link that comes and goes: elections must not follow its rhythm."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.topology import both_ways
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class FlappingLink(Nemesis):
    name = "flapping-link"
    summary = "a link between two managers comes and goes"
    family = Family.NETWORK
    needs = (Ability.CUTS,)
    seconds = (4.0, 15.0)

    async def strike(self, stage: Stage, seconds: float) -> None:
        one, other = stage.chance.sample(stage.cluster.managers, 2)
        pairs = both_ways([(one, other)])
        until = stage.record.now() + seconds
        async with stage.claim_links(pairs, one, other):
            while stage.record.now() < until and not stage.is_over:
                away_s = stage.chance.uniform(0.1, 1.0)
                await stage.under(away_s, stage.cluster.network.cut(pairs, away_s))
                await stage.hold(stage.chance.uniform(0.1, 1.0))
