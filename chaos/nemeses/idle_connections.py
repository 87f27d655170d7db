"""Connections that never say anything."""

from __future__ import annotations

from contextlib import AsyncExitStack

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.wires import wire
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
        async with AsyncExitStack() as connections:
            opened = 0
            for manager in stage.cluster.managers * CONNECTIONS:
                if stage.is_over:
                    break
                opened += await connections.enter_async_context(wire(stage.cluster.context(manager))) is not None
            stage.note(f"{opened} connections")
            await stage.hold(seconds)
