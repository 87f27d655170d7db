"""Packets take long, and each another time: up to several election timeouts."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.base import Link
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.links import spoil
from chaos.stage import Stage


class SlowLinks(Nemesis):
    name = "slow-links"
    summary = "links with delay and jitter"
    family = Family.NETWORK
    needs = (Ability.LINKS,)
    seconds = (3.0, 12.0)
    weight = 3

    async def strike(self, stage: Stage, seconds: float) -> None:
        delay_ms = stage.chance.choice((5, 50, 150, 400))
        await spoil(stage, Link(delay_ms=delay_ms, jitter_ms=delay_ms * stage.chance.random()), seconds)
