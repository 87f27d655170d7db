"""The agent is killed with everything that its service manager takes for it."""

from __future__ import annotations

from chaos.drills.base import Drill
from chaos.drills.props import PATIENT, Gate, attempts_of, start_all, until_away, until_begun, until_ended, until_fit
from chaos.drills.scene import Scene


class AgentRestart(Drill):
    name = "agent-restart"
    happened = "The service manager killed the whole control group with the agent."
    expects = "Tasks are of their supervisor's session, not of the agent's: they live on, and their ends are found."
    settings = PATIENT

    async def play(self, scene: Scene) -> None:
        gate = Gate(scene)
        jobs = [(await scene.client.submit(gate.document())).id for _ in range(2)]
        begun = await until_begun(scene, gate, len(jobs))
        agent = begun[0].node_id
        ours = [each for each in begun if each.node_id == agent]
        pid = scene.cluster.processes.pid(agent)
        scene.expect(pid is not None, f"{len(ours)} tasks run on {agent}, whose agent is process {pid}")
        assert pid is not None
        await scene.cluster.processes.kill_group(agent)
        scene.show("SIGKILL to the agent's whole process group")
        await until_away(scene, agent)
        alive = [each for each in ours if each.alive]
        scene.expect(len(alive) == len(ours), "every task lives on without the agent", len(alive))
        await start_all(scene, [agent])
        await until_fit(scene, agent)
        alive = [each for each in ours if each.alive]
        scene.expect(len(alive) == len(ours), "and with the new one", len(alive))
        gate.let_go()
        for job_id in jobs:
            ended = await until_ended(scene, job_id)
            attempts = await attempts_of(scene, job_id)
            scene.expect(
                (ended.state, len(attempts)) == ("SUCCEEDED", 1), f"job {job_id} succeeds, in one attempt", ended.state
            )
        scene.expect(len(gate.begun()) == len(jobs), "nothing was started twice", len(gate.begun()))
