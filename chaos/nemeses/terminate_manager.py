"""SIGTERM of a manager: it must stop cleanly, and a leader hands over first."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class TerminateManager(Nemesis):
    name = "terminate-manager"
    summary = "a clean stop of a manager by SIGTERM"
    family = Family.PROCESS
    needs = (Ability.SIGNALS, Ability.RESTARTS)
    seconds = (0.5, 6.0)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        processes, manager = stage.cluster.processes, stage.any_manager()
        async with stage.claim(manager):
            try:
                status = await processes.terminate(manager)
                if status != 0:
                    stage.note(f"{manager} ended with {status}")
                await stage.hold(seconds)
            finally:
                await processes.start(manager)
