"""SIGSTOP of the leader: when it goes on it must not believe that it still leads."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class FreezeLeader(Nemesis):
    name = "freeze-leader"
    summary = "SIGSTOP of the leader for a while"
    family = Family.PROCESS
    seconds = (1.0, 10.0)
    weight = 3

    async def strike(self, stage: Stage, seconds: float) -> None:
        leader = await stage.leader()
        async with stage.claim(leader):
            await stage.under(seconds, stage.cluster.processes.frozen(leader, seconds))
