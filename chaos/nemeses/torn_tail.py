"""A killed manager finds half a frame at the end of its journal; it must cut it off and go on."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class TornTail(Nemesis):
    name = "torn-tail"
    summary = "a manager's last write is torn"
    family = Family.DISK
    needs = (Ability.SIGNALS, Ability.RESTARTS, Ability.DISKS)
    seconds = (0.2, 2.0)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        processes, manager = stage.cluster.processes, stage.any_manager()
        async with stage.claim(manager):
            await processes.kill(manager)
            try:
                stage.note(await stage.cluster.disks.tear_tail(manager))
                await stage.hold(seconds)
            finally:
                await processes.start(manager)
            if not await stage.recovers(manager):
                stage.note(f"{manager} does not count again")
