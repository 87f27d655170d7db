"""Connections break again and again, and new ones are possible at once."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.topology import both_ways
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class ResetConnections(Nemesis):
    name = "reset-connections"
    summary = "connections between hosts are reset, again and again"
    family = Family.NETWORK
    needs = (Ability.CUTS,)
    seconds = (3.0, 10.0)

    async def strike(self, stage: Stage, seconds: float) -> None:
        hosts = [*stage.cluster.managers, *stage.cluster.agents]
        until = stage.record.now() + seconds
        resets = 0
        while stage.record.now() < until and not stage.is_over:
            manager = stage.chance.choice(stage.cluster.managers)
            other = stage.chance.choice([host for host in hosts if host != manager])
            await stage.cluster.network.reset(both_ways([(manager, other)]))
            resets += 1
            await stage.hold(stage.chance.uniform(0.05, 1.0))
        stage.note(f"{resets} times")
