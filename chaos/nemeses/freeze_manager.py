"""SIGSTOP of any manager, for one to thirty seconds."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class FreezeManager(Nemesis):
    name = "freeze-manager"
    summary = "SIGSTOP of a manager for up to half a minute"
    family = Family.PROCESS
    seconds = (1.0, 30.0)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        manager = stage.any_manager()
        async with stage.claim(manager):
            await stage.under(seconds, stage.cluster.processes.frozen(manager, seconds))
