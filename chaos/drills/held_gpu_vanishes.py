"""A node comes back with fewer GPUs than its tasks hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from chaos.drills import configs
from chaos.drills.base import Drill
from chaos.drills.props import (
    PATIENT,
    Gate,
    start_all,
    until_away,
    until_begun,
    until_ended,
    until_fit,
    until_gone,
    until_task,
)
from chaos.drills.scene import Scene
from hasched.model.states import TaskState

FROZEN_S = 20.0
ONE_GPU: Mapping[str, Any] = {"resources": {"gpus": 1, "cpu": "100m"}}


class HeldGpuVanishes(Drill):
    name = "held-gpu-vanishes"
    happened = 'The inventory shrank, the job kept "running".'
    expects = (
        "An attempt whose GPU is gone is stopped, one that can't have its GPU any more is given back; both wait, with the "
        "reason, until there is a GPU again. Nothing is shown as running that doesn't run."
    )
    agents = 1
    settings = PATIENT
    agent_settings: ClassVar[dict[str, Any]] = {"capacity": {"cpu": 4, "memory": "4Gi", "gpus": 2}}

    async def play(self, scene: Scene) -> None:
        cluster, agent = scene.cluster, scene.cluster.agents[0]
        config = configs.config_file(scene, agent)
        held, assigned = Gate(scene), Gate(scene)
        runs = (await scene.client.submit(held.document(**ONE_GPU))).id
        (process,) = await until_begun(scene, held)
        scene.show("a task holds one of 2 GPUs")
        async with cluster.processes.frozen(agent, FROZEN_S):
            waits = (await scene.client.submit(assigned.document(**ONE_GPU))).id
            await until_task(scene, waits, 0, TaskState.SCHEDULED)
            scene.show("the other is assigned to a task, but the agent is frozen and doesn't hear of it")
            await self._come_back(scene, config, agent, gpus=1)

        await until_task(scene, waits, 0, TaskState.PENDING)
        scene.expect(not assigned.begun(), "the task that can't have its GPU any more is given back, and never began")
        state = (await scene.client.task(runs, 0)).state
        scene.expect(process.alive and state == "RUNNING", "the task whose GPU is still there runs on", state)

        await self._come_back(scene, config, agent, gpus=0)
        await until_gone(scene, [process])
        scene.show("the task whose GPU is gone is stopped")
        for job_id in (runs, waits):
            await until_task(scene, job_id, 0, TaskState.PENDING)
            reason = (await scene.client.job(job_id)).reason
            code, text = (reason.code, reason.text) if reason is not None else ("", "no reason")
            scene.expect(code == "unsatisfiable", f"job {job_id} waits, and says why", text)
        node = await until_fit(scene, agent)
        scene.expect(node.running == 0 and node.allocated.gpus == 0, "the node holds nothing", node.allocated.gpus)

        await self._come_back(scene, config, agent, gpus=2)
        await until_begun(scene, held, 2)
        await until_begun(scene, assigned)
        scene.show("both tasks run")
        for gate, job_id in ((held, runs), (assigned, waits)):
            gate.let_go()
            ended = await until_ended(scene, job_id)
            scene.expect(ended.state == "SUCCEEDED", f"job {job_id} succeeds", ended.state)
            scene.expect(not gate.repeated(), "no attempt of it began twice", len(gate.begun()))

    async def _come_back(self, scene: Scene, config: Path, agent: str, gpus: int) -> None:
        """The agent dies, and the next one finds another number of GPUs."""
        await scene.cluster.processes.kill(agent)
        await until_away(scene, agent)
        configs.change(config, lambda each: each["capacity"].update(gpus=gpus))
        await start_all(scene, [agent])
        node = await until_fit(scene, agent)
        scene.expect(node.total.gpus == gpus, "the agent is back, and finds as many GPUs as there are", node.total.gpus)
