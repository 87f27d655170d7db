"""A manager that dies again and again, hardly up."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class CrashLoop(Nemesis):
    name = "crash-loop"
    summary = "a manager is killed again and again"
    family = Family.PROCESS
    seconds = (5.0, 15.0)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        processes, manager = stage.cluster.processes, stage.any_manager()
        until = stage.record.now() + seconds
        deaths = 0
        async with stage.claim(manager):
            while stage.record.now() < until and not stage.is_over:
                down_s = stage.chance.uniform(0.1, 1.0)
                await stage.under(down_s, processes.down(manager, down_s))
                deaths += 1
                await stage.hold(stage.chance.uniform(0.2, 3.0))
            stage.note(f"{manager} died {deaths} times")
