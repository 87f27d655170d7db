"""Every manager is stopped and started, one after the other, as at an upgrade."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage

PATIENCE_S = 30.0


class RollingRestart(Nemesis):
    name = "rolling-restart"
    summary = "managers are restarted one after the other, each once the last counts again"
    family = Family.PROCESS
    needs = (Ability.SIGNALS, Ability.RESTARTS)
    seconds = (3.0, 10.0)
    weight = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        processes, managers = stage.cluster.processes, list(stage.cluster.managers)
        stage.chance.shuffle(managers)
        for manager in managers:
            if stage.is_over:
                return
            async with stage.claim(manager):
                try:
                    await processes.terminate(manager)
                finally:
                    await processes.start(manager)
                if not await stage.recovers(manager, max(seconds, PATIENCE_S)):
                    stage.note(f"{manager} did not count again in time; the others were left alone")
                    return
