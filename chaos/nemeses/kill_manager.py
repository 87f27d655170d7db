"""SIGKILL of any manager, leader or not."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class KillManager(Nemesis):
    name = "kill-manager"
    summary = "SIGKILL of a manager, which comes back later"
    family = Family.PROCESS
    seconds = (0.5, 8.0)
    weight = 3
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        manager = stage.any_manager()
        async with stage.claim(manager):
            await stage.under(seconds, stage.cluster.processes.down(manager, seconds))
