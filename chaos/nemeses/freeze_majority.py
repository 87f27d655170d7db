"""SIGSTOP of a majority: sockets stay open, and nobody answers."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class FreezeMajority(Nemesis):
    name = "freeze-majority"
    summary = "SIGSTOP of as many managers as make a majority"
    family = Family.PROCESS
    seconds = (1.0, 8.0)
    weight = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        managers = stage.cluster.managers
        victims = stage.some(managers, len(managers) // 2 + 1)
        async with stage.claim(*victims):
            await stage.under(seconds, *(stage.cluster.processes.frozen(each, seconds) for each in victims))
