"""Managers and agents fall into two parts; clients reach both."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.topology import between
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class SplitHalves(Nemesis):
    name = "split-halves"
    summary = "a majority of the managers is cut off from the rest, with agents and clients on both sides"
    family = Family.NETWORK
    needs = (Ability.CUTS,)
    seconds = (2.0, 12.0)
    weight = 4

    async def strike(self, stage: Stage, seconds: float) -> None:
        managers = stage.cluster.managers
        majority = stage.chance.sample(managers, len(managers) // 2 + 1)
        one_side = majority + [agent for agent in stage.cluster.agents if stage.chance.random() < 0.5]
        other_side = [host for host in (*managers, *stage.cluster.agents) if host not in one_side]
        pairs = between(one_side, other_side)
        async with stage.claim_links(pairs, *one_side, *other_side):
            stage.note(f"{' '.join(one_side)} | {' '.join(other_side)}")
            await stage.under(seconds, stage.cluster.network.cut(pairs, seconds))
