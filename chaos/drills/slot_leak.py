"""An agent dies between being assigned a task and starting it. The slot that the task holds must come free."""

from __future__ import annotations

from contextlib import AsyncExitStack

from chaos.drills.base import Drill
from chaos.drills.props import SPREAD, Gate, start_all, until_ended, until_whole
from chaos.drills.scene import Scene

TASKS = 4
FROZEN_S = 20.0


class SlotLeak(Drill):
    name = "slot-leak"
    happened = "An agent died between assigned and running; the concurrency slot was held for ever."
    expects = "What was assigned to a node that is lost, or comes back, counts towards max_running only until then."
    settings = SPREAD

    async def play(self, scene: Scene) -> None:
        await self._lose_an_agent(scene, comes_back=False)
        await self._lose_an_agent(scene, comes_back=True)

    async def _lose_an_agent(self, scene: Scene, *, comes_back: bool) -> None:
        processes, gate = scene.cluster.processes, Gate(scene)
        gate.let_go()
        async with AsyncExitStack() as frozen:
            for agent in scene.cluster.agents:
                await frozen.enter_async_context(processes.frozen(agent, FROZEN_S))
            job = await scene.client.submit(gate.document(count=TASKS, max_running=1))
            lost = await self._assigned(scene, job.id)
            scene.show(f"one of {TASKS} tasks is assigned to {lost}, whose agent is frozen; max_running is 1")
            await processes.kill(lost)
            scene.expect(not gate.begun(), f"the agent of {lost} dies, and has started nothing")
        if comes_back:
            await start_all(scene, [lost])
        else:
            scene.show(f"{lost} stays away")
        ended = await until_ended(scene, job.id)
        scene.expect(ended.state == "SUCCEEDED", f"all {TASKS} tasks succeed, one after the other", ended.tasks)
        where = sorted({each.node_id for each in gate.begun()})
        scene.expect(len(gate.begun()) == TASKS, "each began once", f"{len(gate.begun())} on {', '.join(where)}")
        if not comes_back:
            scene.expect(lost not in where, f"none on {lost}")
            await start_all(scene, [lost])
        await until_whole(scene)

    async def _assigned(self, scene: Scene, job_id: int) -> str:
        async def assigned() -> str | None:
            async for task in scene.client.tasks(job_id, "SCHEDULED"):
                return task.node_id
            return None

        return await scene.eventually("a task to be assigned", assigned)
