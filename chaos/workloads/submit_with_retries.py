"""The same submission again and again, at other managers, before and after it was accepted: it is one job."""

from __future__ import annotations

from chaos.workloads.base import Workload
from chaos.workloads.desk import Desk
from chaos.workloads.jobs import TRUE, Backlog, job


class SubmitWithRetries(Workload):
    name = "submit-with-retries"
    summary = "repeats submissions under the same id at other managers, until they are known and once more after that"
    clients = 2

    async def run(self, desk: Desk) -> None:
        backlog = Backlog(desk, 10)
        while not desk.is_over:
            await backlog.room()
            submission_id, document = desk.new_id(), job(TRUE)
            told = await desk.submit_until_known(document, submission_id)
            if told is not None:
                backlog.add(submission_id, told.id)
            for _ in range(desk.chance.randint(0, 2)):
                desk.turn()
                await desk.submit(document, submission_id)
            await desk.pause(0.2)
