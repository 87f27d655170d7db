"""No room is left: a manager lets others lead, an agent takes no work, and both go on by themselves."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class FullDisk(Nemesis):
    name = "full-disk"
    summary = "the disk of a manager or an agent is full"
    family = Family.DISK
    needs = (Ability.DISKS,)
    seconds = (2.0, 10.0)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        victim = stage.chance.choice(stage.free([*stage.cluster.managers, *stage.cluster.agents]))
        async with stage.claim(victim):
            await stage.under(seconds, stage.cluster.disks.full(victim, seconds))
            if not await stage.recovers(victim):
                stage.note(f"{victim} does not take part again")
