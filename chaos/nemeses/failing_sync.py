"""A sync returns EIO: the manager must stop, since nobody knows what the kernel kept."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class FailingSync(Nemesis):
    name = "failing-sync"
    summary = "a manager's sync fails"
    family = Family.DISK
    needs = (Ability.SYNCS, Ability.RESTARTS)
    seconds = (4.0, 10.0)

    async def strike(self, stage: Stage, seconds: float) -> None:
        processes, nth = stage.cluster.processes, stage.chance.randint(1, 20)
        async with stage.spare_manager() as manager, stage.cluster.syncs.failing(manager, nth, seconds):
            if await stage.until(lambda: processes.pid(manager) is None, seconds):
                stage.note(f"{manager} stopped at sync {nth}")
            else:
                stage.note(f"{manager} did not stop: it may not have come to sync {nth}")
