"""The hour that a change of summer time skips or repeats: the managers' clocks are set to just before it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from chaos.abilities import Ability
from chaos.drills.base import Drill
from chaos.drills.scene import Scene
from chaos.drills.schedules import ledger_of, put, until_fired
from hasched.model.times import format_time, parse_time_ms

ZONE = "Europe/Berlin"
# In 2027, as UTC: 02:00 to 03:00 is left out from 01:00:00 on; in autumn it comes at 00:00, and again at 01:00.
SPRING_MS = parse_time_ms("2027-03-28T01:00:00Z")
FIRST_MS = parse_time_ms("2027-10-31T00:30:00Z")
SECOND_MS = parse_time_ms("2027-10-31T01:30:00Z")
BEFORE_S = 3.0
SHIFT_S = 60.0


class DstHour(Drill):
    name = "dst-hour"
    happened = "Thousands of cron runs in an hour, or none."
    expects = "A slot in the hour that is skipped or repeated is run as often as the schedule says, and no more."
    needs = (Ability.CLOCKS,)
    agents = 1

    async def play(self, scene: Scene) -> None:
        async with self._at(scene, SPRING_MS):
            await put(scene, "once", "30 2 * * *", timezone=ZONE, catch_up="skip", grace="10s")
            await put(scene, "minute", "* * * * *", timezone=ZONE, catch_up="skip", grace="10s")
            fired_ms = await until_fired(scene, "once", 0)
            scene.expect(
                fired_ms == SPRING_MS,
                "02:30 is left out: fired when the clock goes on, at 03:00",
                format_time(fired_ms),
            )
            await self._expect_minute(scene, SPRING_MS)
        async with self._at(scene, FIRST_MS):
            fired_ms = await until_fired(scene, "once", SPRING_MS)
            scene.expect(fired_ms == FIRST_MS, "02:30 comes twice: fired the first time", format_time(fired_ms))
            await self._expect_minute(scene, FIRST_MS)
        async with self._at(scene, SECOND_MS):
            await self._expect_minute(scene, SECOND_MS)
            scene.show("the second 02:30 has come, and what is due every minute goes on")
        fired = [row.first_ms for row in await ledger_of(scene, "once") if row.job_id]
        scene.expect(fired == [SPRING_MS, FIRST_MS], "twice in all", list(map(format_time, fired)))
        fired = [row.first_ms for row in await ledger_of(scene, "minute") if row.job_id]
        scene.expect(len(fired) < 20 and len(set(fired)) == len(fired), "no flood of runs every minute", len(fired))

    async def _expect_minute(self, scene: Scene, at_ms: int) -> None:
        fired_ms = await until_fired(scene, "minute", at_ms - 1)
        scene.expect(fired_ms == at_ms, "what is due every minute is fired then", format_time(fired_ms))

    @asynccontextmanager
    async def _at(self, scene: Scene, moment_ms: int) -> AsyncIterator[None]:
        """The managers' clocks show a little before this."""
        jump_s = moment_ms / 1000 - BEFORE_S - time.time()
        async with AsyncExitStack() as stack:
            for name in scene.cluster.managers:
                await stack.enter_async_context(scene.cluster.clocks.shifted(name, jump_s, 0.0, SHIFT_S))
            scene.show(f"the managers' clocks are set to {format_time(moment_ms - round(BEFORE_S * 1000))}")
            yield
