"""Schedules across a change of leader. It waits for schedules."""

from __future__ import annotations

from chaos.drills.base import Drill
from chaos.drills.scene import Scene, Unmet


class ReElectionStopsCron(Drill):
    name = "re-election-stops-cron"
    happened = "Schedules silently stopped, or a run was missed in the gap."
    expects = "Every slot of a schedule has its run, once, whoever led when it was due."
    waits_for = "schedules"

    async def play(self, scene: Scene) -> None:
        raise Unmet("expected: schedules; seen: this version has none")
