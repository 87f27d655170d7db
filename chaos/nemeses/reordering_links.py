"""Packets overtake each other."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.base import Link
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.links import spoil
from chaos.stage import Stage


class ReorderingLinks(Nemesis):
    name = "reordering-links"
    summary = "links that disorder packets"
    family = Family.NETWORK
    needs = (Ability.LINKS,)
    seconds = (3.0, 12.0)
    weight = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        delay_ms = stage.chance.uniform(1, 30)
        await spoil(stage, Link(delay_ms=delay_ms, reordered=stage.chance.choice((0.05, 0.3))), seconds)
