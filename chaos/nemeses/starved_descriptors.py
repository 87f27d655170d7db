"""A manager can open nothing more: it must not die of it, nor lose its peers for good."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.wires import wires
from chaos.stage import Stage

CONNECTIONS = 10


class StarvedDescriptors(Nemesis):
    name = "starved-descriptors"
    summary = "a manager runs out of file descriptors"
    family = Family.DISK
    needs = (Ability.SYNCS, Ability.RESTARTS)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        manager, spare = stage.any_manager(), stage.chance.randint(0, 5)
        async with stage.claim(manager):
            async with stage.cluster.syncs.starved(manager, spare, seconds), wires(stage, [manager], CONNECTIONS):
                await stage.hold(seconds)
            if stage.cluster.processes.pid(manager) is None:
                stage.note(f"{manager} ended")
            if not await stage.recovers(manager):
                stage.note(f"{manager} does not take part again")
