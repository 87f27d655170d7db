"""One host is heard by another and doesn't hear it."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class OneWayCut(Nemesis):
    name = "one-way-cut"
    summary = "nothing gets from one host to another, and everything back"
    family = Family.NETWORK
    needs = (Ability.CUTS,)
    seconds = (2.0, 12.0)
    weight = 3

    async def strike(self, stage: Stage, seconds: float) -> None:
        manager = stage.chance.choice(stage.cluster.managers)
        hosts = (*stage.cluster.managers, *stage.cluster.agents)
        other = stage.chance.choice([host for host in hosts if host != manager])
        pair = (manager, other) if stage.chance.random() < 0.5 else (other, manager)
        async with stage.claim_links([pair], *pair):
            stage.note(f"nothing from {pair[0]} to {pair[1]}")
            await stage.under(seconds, stage.cluster.network.cut([pair], seconds))
