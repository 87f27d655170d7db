"""SIGKILL of a majority: the rest must accept nothing until they are back."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class KillMajority(Nemesis):
    name = "kill-majority"
    summary = "SIGKILL of as many managers as make a majority"
    family = Family.PROCESS
    weight = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        managers = stage.cluster.managers
        victims = stage.some(managers, len(managers) // 2 + 1)
        async with stage.claim(*victims):
            await stage.under(seconds, *(stage.cluster.processes.down(each, seconds) for each in victims))
