"""Tasks that leave traces outside the cluster: each attempt tells of its life in a file that all attempts share."""

from __future__ import annotations

from chaos.effects import ALIVE_EVERY_S, SCRIPT, file_of
from chaos.errors import MachineLacks
from chaos.workloads.base import Workload
from chaos.workloads.desk import EFFECTS_LABEL, Desk, Job
from chaos.workloads.jobs import RETRIES, Backlog


class SideEffects(Workload):
    name = "side-effects"
    summary = "tasks of 1 to 6 s that tell of their lives in a file; half of them stop when their node is cut off"
    clients = 2

    async def run(self, desk: Desk) -> None:
        try:
            path = file_of(desk.cluster, desk.record)
        except MachineLacks:
            return  # The observer has said so: there would be nothing to see.
        backlog = Backlog(desk, 6)
        while not desk.is_over:
            await backlog.room()
            submission_id = desk.new_id()
            told = await desk.submit_until_known(self._job(desk, str(path)), submission_id)
            if told is not None:
                backlog.add(submission_id, told.id)
            await desk.pause(0.6)

    def _job(self, desk: Desk, path: str) -> Job:
        return {
            "name": "side-effects",
            "script": SCRIPT,
            "env": {
                "CHAOS_EFFECTS": path,
                "CHAOS_BEATS": str(round(desk.chance.uniform(1.0, 6.0) / ALIVE_EVERY_S)),
            },
            "resources": {"cpu": "200m"},
            "retries": {**RETRIES, "node_lost": 10},
            "kill_grace": "500ms",
            "on_disconnect": desk.chance.choice(["stop", "run_on"]),
            "labels": {EFFECTS_LABEL: "told"},
        }
