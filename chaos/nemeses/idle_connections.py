"""Connections that never say anything."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.wires import wires
from chaos.stage import Stage

CONNECTIONS = 100  # to each manager


class IdleConnections(Nemesis):
    name = "idle-connections"
    summary = "hundreds of connections that say nothing"
    family = Family.LOAD
    needs = ()
    managers = 1
    seconds = (3.0, 10.0)
    weight = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        async with wires(stage, stage.cluster.managers, CONNECTIONS) as opened:
            stage.note(f"{len(opened)} connections")
            await stage.hold(seconds)
