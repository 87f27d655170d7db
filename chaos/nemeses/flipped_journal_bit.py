"""A bit of a journal flips at rest: the manager must refuse it, and is filled anew."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.rot import rot
from chaos.stage import Stage


class FlippedJournalBit(Nemesis):
    name = "flipped-journal-bit"
    summary = "a bit of a manager's journal flips, and the manager is built anew"
    family = Family.DISK
    needs = (Ability.SIGNALS, Ability.RESTARTS, Ability.DISKS)
    seconds = (2.0, 6.0)
    weight = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        async with stage.spare_manager() as manager:
            await rot(stage, manager, "journal", seconds)
