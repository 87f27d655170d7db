"""Jobs of every size up to a whole node, so that nodes are filled to the brim with CPU, memory and what they count."""

from __future__ import annotations

from random import Random
from typing import Any

from chaos.workloads.base import Workload
from chaos.workloads.desk import Desk, Job
from chaos.workloads.jobs import RETRIES, Backlog, sleep
from hasched.model.spec import Resources

LEAST_MEMORY_BYTES = 64 * 1024 * 1024  # it is enforced where it is given, and a shell needs some
SHARES = (1, 2, 3, 4, 8)  # a task asks for a node's amount divided by one of these


class MixedResources(Workload):
    name = "mixed-resources"
    summary = "asks for CPU, memory and countable things in amounts up to a whole node's"
    clients = 2

    async def run(self, desk: Desk) -> None:
        backlog = Backlog(desk, 8)
        while not desk.is_over:
            await backlog.room()
            page = await desk.look(lambda client: client.nodes())
            if page is None or not page.nodes:
                await desk.pause(0.5)
                continue
            submission_id = desk.new_id()
            told = await desk.submit_until_known(
                draw_job(desk.chance, desk.chance.choice(page.nodes).total), submission_id
            )
            if told is not None:
                backlog.add(submission_id, told.id)
            await desk.pause(0.4)


def draw_job(chance: Random, total: Resources) -> Job:
    """Never more than a node of this size has, so that it can run at all."""
    asked: dict[str, Any] = {"cpu": f"{max(1, total.cpu_milli // chance.choice(SHARES))}m"}
    if chance.random() < 0.6 and total.memory_bytes >= LEAST_MEMORY_BYTES:
        asked["memory"] = max(LEAST_MEMORY_BYTES, total.memory_bytes // chance.choice(SHARES))
    if chance.random() < 0.4 and total.countables:
        name, amount = chance.choice(total.countables)
        asked["countables"] = {name: max(1, amount // chance.choice(SHARES))}
    seconds, count = chance.choice([0.1, 0.3, 0.8]), chance.choice([1, 1, 3])
    return {"command": sleep(seconds), "resources": asked, "retries": RETRIES, "count": count}
