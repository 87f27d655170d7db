"""Many jobs in one request: each is accepted or refused by itself."""

from __future__ import annotations

from chaos.workloads.base import Workload
from chaos.workloads.desk import Desk
from chaos.workloads.jobs import TRUE, Backlog, job


class Batches(Workload):
    name = "batches"
    summary = "submits 4 to 10 jobs in one request"

    async def run(self, desk: Desk) -> None:
        backlog = Backlog(desk, 24)
        while not desk.is_over:
            count = desk.chance.randint(4, 10)
            await backlog.room(count)
            for told in await desk.submit_many([job(TRUE)] * count):
                backlog.add(told.submission_id, told.id)
            await desk.pause(0.8)
