"""An agent is stopped cleanly, as for an upgrade, while its tasks run."""

from __future__ import annotations

from chaos.drills.base import Drill
from chaos.drills.props import PATIENT, Gate, attempts_of, start_all, until_away, until_begun, until_ended, until_fit
from chaos.drills.scene import Scene


class CleanAgentStop(Drill):
    name = "clean-agent-stop"
    happened = "Deregistering on SIGTERM evicted the tasks that would have survived."
    expects = (
        "SIGTERM ends the agent alone: its node stays known, its tasks run on, and the next agent takes them over."
    )
    settings = PATIENT

    async def play(self, scene: Scene) -> None:
        gate = Gate(scene)
        job = await scene.client.submit(gate.document())
        (task,) = await until_begun(scene, gate)
        agent = task.node_id
        status = await scene.cluster.processes.terminate(agent)
        scene.expect(status == 0, f"the agent of {agent} ends on SIGTERM, with status 0", status)
        await until_away(scene, agent)
        node = await scene.client.node(agent)
        scene.expect(node.running == 1, f"{agent} is still known, with its task", f"{node.state}, {node.running}")
        scene.expect(task.alive, "the task runs on")
        await start_all(scene, [agent])
        await until_fit(scene, agent)
        scene.expect(task.alive, "the next agent stops it no more than the last")
        gate.let_go()
        ended = await until_ended(scene, job.id)
        attempts = [each.attempt for each in await attempts_of(scene, job.id)]
        scene.expect(ended.state == "SUCCEEDED", "its end is found", ended.state)
        scene.expect(attempts == [1] and len(gate.begun()) == 1, "in its first and only attempt", attempts)
