"""Heartbeats and entries share a link with hardly any room."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.base import Link
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.links import spoil
from chaos.stage import Stage


class NarrowLink(Nemesis):
    name = "narrow-link"
    summary = "links that let few bytes a second through"
    family = Family.NETWORK
    needs = (Ability.LINKS,)
    seconds = (3.0, 12.0)

    async def strike(self, stage: Stage, seconds: float) -> None:
        bytes_per_s = stage.chance.choice((20_000, 100_000, 500_000))
        await spoil(stage, Link(bytes_per_s=bytes_per_s), seconds)
