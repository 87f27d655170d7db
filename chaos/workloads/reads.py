"""Reads of what others do: each must see all that was answered before, wherever it asks; a stale one only what was true."""

from __future__ import annotations

from itertools import islice

from chaos.workloads.base import Workload
from chaos.workloads.desk import Desk

RECENT = 20


class Reads(Workload):
    name = "reads"
    summary = "reads the jobs of all clients, linearizable and stale, one by one and in lists"
    clients = 3

    async def run(self, desk: Desk) -> None:
        while not desk.is_over:
            recent = list(islice(reversed(desk.record.jobs.items()), RECENT))
            draw = desk.chance.random()
            if draw < 0.6 and recent:
                await desk.read(*desk.chance.choice(recent))
            elif draw < 0.8:
                await desk.latest(5)
            else:
                await desk.latest(10, stale=True)
            if desk.chance.random() < 0.3:
                desk.turn()
            await desk.pause(0.15)
