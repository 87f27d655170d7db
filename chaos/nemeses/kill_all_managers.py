"""SIGKILL of all managers: what was accepted stands on their disks alone."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class KillAllManagers(Nemesis):
    name = "kill-all-managers"
    summary = "SIGKILL of all managers at once"
    family = Family.PROCESS
    seconds = (0.5, 4.0)
    weight = 1
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        managers = list(stage.cluster.managers)
        async with stage.claim(*managers):
            await stage.under(seconds, *(stage.cluster.processes.down(each, seconds) for each in managers))
