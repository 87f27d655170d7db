"""The wall clock of one daemon jumps, back or forward, by up to an hour."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class ClockJump(Nemesis):
    name = "clock-jump"
    summary = "the clock of a manager or an agent jumps"
    family = Family.CLOCK
    needs = (Ability.CLOCKS,)
    seconds = (2.0, 10.0)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        victim = stage.chance.choice(stage.free([*stage.cluster.managers, *stage.cluster.agents]))
        jump_s = stage.chance.choice((-3600, -60, -1, 1, 60, 3600))  # days would expire jobs that the judge looks for
        async with stage.claim(victim):
            stage.note(f"{jump_s:+d} s")
            await stage.under(seconds, stage.cluster.clocks.shifted(victim, jump_s, 0.0, seconds))
