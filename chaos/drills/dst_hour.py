"""The hour that a change of summer time skips or repeats. It waits for schedules."""

from __future__ import annotations

from chaos.drills.base import Drill
from chaos.drills.scene import Scene, Unmet


class DstHour(Drill):
    name = "dst-hour"
    happened = "Thousands of cron runs in an hour, or none."
    expects = "A slot in the hour that is skipped or repeated is run as often as the schedule says, and no more."
    waits_for = "schedules"

    async def play(self, scene: Scene) -> None:
        raise Unmet("expected: schedules; seen: this version has none")
