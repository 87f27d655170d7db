"""Jobs of many tasks, some with a limit on how many run at once."""

from __future__ import annotations

from typing import Any

from chaos.workloads.base import Workload
from chaos.workloads.desk import Desk
from chaos.workloads.jobs import FALSE, TRUE, Backlog, job, sleep


class Arrays(Workload):
    name = "arrays"
    summary = "submits arrays of 3 to 12 tasks, some with max_running"

    async def run(self, desk: Desk) -> None:
        backlog = Backlog(desk, 3)
        while not desk.is_over:
            await backlog.room()
            submission_id = desk.new_id()
            command = desk.chance.choices([TRUE, FALSE, sleep(0.1)], [4, 1, 5])[0]
            limit: dict[str, Any] = {"max_running": desk.chance.randint(1, 4)} if desk.chance.random() < 0.5 else {}
            document = job(command, count=desk.chance.randint(3, 12), **limit)
            told = await desk.submit_until_known(document, submission_id)
            if told is not None:
                backlog.add(submission_id, told.id)
            await desk.pause(1.0)
