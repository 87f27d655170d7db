"""The wall clock of one daemon runs too fast or too slow."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class ClockDrift(Nemesis):
    name = "clock-drift"
    summary = "the clock of a manager or an agent runs at a wrong speed"
    family = Family.CLOCK
    needs = (Ability.CLOCKS,)
    seconds = (2.0, 10.0)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        victim = stage.chance.choice(stage.free([*stage.cluster.managers, *stage.cluster.agents]))
        drift = stage.chance.choice((-0.5, -0.05, 0.05, 1.0))
        async with stage.claim(victim):
            stage.note(f"{drift:+.0%}")
            await stage.under(seconds, stage.cluster.clocks.shifted(victim, 0.0, drift, seconds))
