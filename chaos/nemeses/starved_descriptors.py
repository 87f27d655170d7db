"""A manager can open nothing more: it must not die of it, nor lose its peers for good."""

from __future__ import annotations

from contextlib import AsyncExitStack

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.wires import wire
from chaos.stage import Stage

CONNECTIONS = 10


class StarvedDescriptors(Nemesis):
    name = "starved-descriptors"
    summary = "a manager runs out of file descriptors"
    family = Family.DISK
    needs = (Ability.SYNCS,)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        manager, spare = stage.any_manager(), stage.chance.randint(0, 5)
        async with (
            stage.claim(manager),
            stage.cluster.syncs.starved(manager, spare, seconds),
            AsyncExitStack() as connections,
        ):
            for _ in range(CONNECTIONS):
                await connections.enter_async_context(wire(stage.cluster.context(manager)))
            await stage.hold(seconds)
