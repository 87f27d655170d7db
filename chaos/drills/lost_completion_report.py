"""A task ends while nobody can be told; then the agent that knows of it dies too."""

from __future__ import annotations

from chaos.drills.base import Drill
from chaos.drills.props import (
    GRACE_S,
    QUICK,
    Gate,
    attempts_of,
    kill_all,
    run_one,
    silence,
    start_all,
    until_begun,
    until_ended,
    until_gone,
)
from chaos.drills.scene import Scene


class LostCompletionReport(Drill):
    name = "lost-completion-report"
    happened = (
        "The agent gave up reporting after seconds. The job hung, and the next one bounced off the busy node until it "
        "was held."
    )
    expects = "An end is reported until a manager has it on disk, also by the next agent; then the node takes new work."
    agents = 1
    settings = QUICK

    async def play(self, scene: Scene) -> None:
        cluster, gate = scene.cluster, Gate(scene)
        job = await scene.client.submit(gate.document(resources={"cpu": (await self._node_cpu(scene))}))
        begun = await until_begun(scene, gate)
        scene.show("a task has all CPUs of the only node")

        await kill_all(scene, cluster.managers)
        gate.let_go(code=0)
        await until_gone(scene, begun)
        scene.show("the task ended, and no manager is there to be told")
        await silence(scene, GRACE_S + 2, "reports go nowhere")
        agent = cluster.agents[0]
        await kill_all(scene, [agent])
        await start_all(scene, [agent, *cluster.managers])

        ended = await until_ended(scene, job.id)
        came = await attempts_of(scene, job.id)
        scene.expect(ended.state == "SUCCEEDED", "the end that nobody heard is the job's outcome", ended.state)
        scene.expect([each.exit_code for each in came] == [0], "it has one attempt, which exited with 0", len(came))
        scene.expect(len(gate.begun()) == 1, "the command ran once", len(gate.begun()))
        await run_one(scene, "the node is free again", resources={"cpu": (await self._node_cpu(scene))})

    async def _node_cpu(self, scene: Scene) -> str:
        node = await scene.client.node(scene.cluster.agents[0])
        return f"{node.total.cpu_milli}m"
