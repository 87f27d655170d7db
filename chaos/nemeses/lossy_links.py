"""Packets get lost, and TCP makes pauses of it."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.base import Link
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.links import spoil
from chaos.stage import Stage


class LossyLinks(Nemesis):
    name = "lossy-links"
    summary = "links that lose packets"
    family = Family.NETWORK
    needs = (Ability.LINKS,)
    seconds = (3.0, 12.0)

    async def strike(self, stage: Stage, seconds: float) -> None:
        await spoil(stage, Link(loss=stage.chance.choice((0.02, 0.1, 0.3))), seconds)
