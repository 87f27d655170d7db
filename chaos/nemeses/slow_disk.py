"""Every sync takes long: a leader with such a disk may not be deposed again and again."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class SlowDisk(Nemesis):
    name = "slow-disk"
    summary = "a manager's disk is slow"
    family = Family.DISK
    needs = (Ability.SYNCS,)
    seconds = (3.0, 12.0)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        manager, delay_ms = stage.any_manager(), stage.chance.choice((20, 100, 500))
        async with stage.claim(manager):
            stage.note(f"{delay_ms} ms a sync")
            await stage.under(seconds, stage.cluster.syncs.slow(manager, delay_ms, seconds))
