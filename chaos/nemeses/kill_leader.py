"""SIGKILL of the leader: another must be elected, and nothing that was accepted is lost."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class KillLeader(Nemesis):
    name = "kill-leader"
    summary = "SIGKILL of the leader, which comes back later"
    family = Family.PROCESS
    seconds = (0.5, 6.0)
    weight = 4

    async def strike(self, stage: Stage, seconds: float) -> None:
        leader = await stage.leader()
        async with stage.claim(leader):
            await stage.under(seconds, stage.cluster.processes.down(leader, seconds))
