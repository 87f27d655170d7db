"""One try for each job, whatever comes of it."""

from __future__ import annotations

from chaos.workloads.base import Workload
from chaos.workloads.desk import Desk
from chaos.workloads.jobs import FALSE, TRUE, Backlog, job, sleep


class Submit(Workload):
    name = "submit"
    summary = "submits small jobs, one try each; some fail, and are tried again by the cluster"
    clients = 2

    async def run(self, desk: Desk) -> None:
        backlog = Backlog(desk, 12)
        while not desk.is_over:
            await backlog.room()
            submission_id = desk.new_id()
            command = desk.chance.choices([TRUE, FALSE, sleep(0.2)], [6, 1, 3])[0]
            told = await desk.submit(job(command), submission_id)
            if told is not None:
                backlog.add(submission_id, told.id)
            await desk.pause(0.15)
