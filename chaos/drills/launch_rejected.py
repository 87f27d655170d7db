"""Attempts that can't be launched, or whose node is reset while they run: their tasks go back, and nothing stays held."""

from __future__ import annotations

from chaos.drills.base import Drill
from chaos.drills.props import QUICK, Gate, attempts_of, run_one, until_begun, until_ended, until_fit
from chaos.drills.scene import Scene

RETRIES = 2


class LaunchRejected(Drill):
    name = "launch-rejected"
    happened = "Running back to Pending was not a legal edge, so the resources leaked."
    expects = "A task goes back to PENDING from wherever its attempt ends, and the node has all its resources again."
    agents = 1
    settings = QUICK

    async def play(self, scene: Scene) -> None:
        agent = scene.cluster.agents[0]
        whole = f"{(await scene.client.node(agent)).total.cpu_milli}m"

        retries = {"max": RETRIES, "backoff": {"initial": "100ms"}}
        job = await scene.client.submit(
            {"name": "nothing", "command": ["/no/such/program"], "resources": {"cpu": whole}, "retries": retries}
        )
        ended = await until_ended(scene, job.id)
        tried = await attempts_of(scene, job.id)
        scene.expect(ended.state == "FAILED", "a job whose program isn't there fails", ended.state)
        scene.expect(len(tried) == 1 + RETRIES, f"after {1 + RETRIES} attempts, each with all CPUs", len(tried))
        await self._nothing_is_held(scene, agent)

        gate = Gate(scene)
        job = await scene.client.submit(gate.document(resources={"cpu": whole}))
        await until_begun(scene, gate, attempt=1)
        await scene.cluster.processes.reboot(agent)
        scene.show(f"{agent} was reset while the task was running")
        await until_begun(scene, gate, attempt=2)
        scene.show("the task went back from RUNNING to PENDING, and runs again")
        gate.let_go()
        ended = await until_ended(scene, job.id)
        states = [each.state for each in await attempts_of(scene, job.id)]
        scene.expect(ended.state == "SUCCEEDED", "it succeeds", states)
        scene.expect(
            len(states) == 2 and states[0] != states[1], "its first attempt is recorded as what it was", states
        )
        await self._nothing_is_held(scene, agent)
        await run_one(scene, "the whole node can be had", resources={"cpu": whole})

    async def _nothing_is_held(self, scene: Scene, agent: str) -> None:
        node = await until_fit(scene, agent)
        scene.expect(
            node.running == 0 and node.allocated.cpu_milli == 0,
            f"{agent} holds nothing",
            f"{node.allocated.cpu_milli}m CPU of {node.running} attempts",
        )
