"""Packets come twice."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.base import Link
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.links import spoil
from chaos.stage import Stage


class DuplicatingLinks(Nemesis):
    name = "duplicating-links"
    summary = "links that double packets"
    family = Family.NETWORK
    needs = (Ability.LINKS,)
    seconds = (3.0, 12.0)
    weight = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        await spoil(stage, Link(duplicated=stage.chance.choice((0.05, 0.3, 1.0))), seconds)
