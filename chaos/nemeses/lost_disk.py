"""A manager's disk is replaced by an empty one: it has no vote until it is filled."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class LostDisk(Nemesis):
    name = "lost-disk"
    summary = "a manager loses its disk and comes back with an empty one"
    family = Family.DISK
    needs = (Ability.SIGNALS, Ability.RESTARTS, Ability.DISKS)
    seconds = (0.5, 5.0)

    async def strike(self, stage: Stage, seconds: float) -> None:
        processes = stage.cluster.processes
        async with stage.spare_manager() as manager:
            await processes.kill(manager)
            try:
                await stage.cluster.disks.wipe(manager)
                await stage.hold(seconds)
            finally:
                await processes.start(manager)
