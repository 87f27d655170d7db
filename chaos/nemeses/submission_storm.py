"""More submissions than anybody asked for, as fast as they are taken; cancelled afterwards."""

from __future__ import annotations

import asyncio

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.burden import Burden
from chaos.stage import Stage

JOBS = 2000
BATCH = 50
CLIENTS = 4


class SubmissionStorm(Nemesis):
    name = "submission-storm"
    summary = "a storm of submissions"
    family = Family.LOAD
    needs = ()
    managers = 1
    seconds = (2.0, 6.0)

    async def strike(self, stage: Stage, seconds: float) -> None:
        async with Burden(stage) as burden:

            async def blow() -> None:
                while burden.size < JOBS and stage.record.now() < until and not stage.is_over:
                    await burden.submit_many([{"name": "chaos-storm", "command": ["/bin/true"]}] * BATCH)

            until = stage.record.now() + seconds
            async with asyncio.TaskGroup() as group:
                for _ in range(CLIENTS):
                    group.create_task(blow())
