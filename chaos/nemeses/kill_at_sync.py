"""SIGKILL in front of a sync: what was written is not promised, and nobody may have been told."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class KillAtSync(Nemesis):
    name = "kill-at-sync"
    summary = "a manager dies in front of its n-th sync"
    family = Family.DISK
    needs = (Ability.SYNCS, Ability.RESTARTS)
    seconds = (4.0, 10.0)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        processes, manager, nth = stage.cluster.processes, stage.any_manager(), stage.chance.randint(1, 40)
        async with stage.claim(manager), stage.cluster.syncs.killed(manager, nth, seconds):
            if await stage.until(lambda: processes.pid(manager) is None, seconds):
                stage.note(f"{manager} died at sync {nth}")
            else:
                stage.note(f"{manager} did not come to sync {nth}")
