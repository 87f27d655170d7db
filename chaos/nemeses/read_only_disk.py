"""A file system turns read-only, as after an error of its device."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class ReadOnlyDisk(Nemesis):
    name = "read-only-disk"
    summary = "a manager's disk turns read-only"
    family = Family.DISK
    needs = (Ability.SIGNALS, Ability.RESTARTS, Ability.DISKS)
    seconds = (2.0, 8.0)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        manager = stage.any_manager()
        async with stage.claim(manager):
            await stage.under(seconds, stage.cluster.disks.read_only(manager, seconds))
