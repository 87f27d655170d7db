"""A node is given up and its task started elsewhere; then the first attempt ends, and its agent comes back to say so."""

from __future__ import annotations

from chaos.drills.base import Drill
from chaos.drills.props import QUICK, Gate, until_begun, until_ended, until_gone
from chaos.drills.scene import Scene, Unmet
from hasched.model.states import TaskState
from hasched.model.views import LateReport

FAULT_S = 60.0
STALE_CODE = 7


class StaleReport(Drill):
    name = "stale-report"
    happened = "The completion of a preempted attempt closed the new one."
    expects = (
        "What a superseded attempt reports is refused and shown; the task's outcome is that of its current attempt."
    )
    settings = QUICK

    async def play(self, scene: Scene) -> None:
        gate = Gate(scene)
        job = await scene.client.submit(gate.document())
        (first,) = await until_begun(scene, gate, attempt=1)
        scene.show(f"attempt 1 runs on {first.node_id}")
        async with scene.cluster.processes.orphaned(first.node_id, FAULT_S):
            scene.show(f"SIGKILL to the agent of {first.node_id}; its task runs on")
            (second,) = await until_begun(scene, gate, attempt=2)
            scene.expect(second.node_id != first.node_id, "attempt 2 runs on another node", second.node_id)
            scene.expect(first.alive, "attempt 1 still runs, on the node that was given up")
            gate.let_go(attempt=1, code=STALE_CODE)
            await until_gone(scene, [first])
            scene.show(f"attempt 1 exited with {STALE_CODE}")
        scene.show(f"the agent of {first.node_id} is back, and reports that")

        async def late() -> LateReport | None:
            task = await scene.client.task(job.id, 0)
            if TaskState[task.state].final:
                raise Unmet(
                    f"expected: the task goes on as attempt 2; seen: {task.state}, with exit code {task.exit_code}"
                )
            return task.attempts[0].late_report

        report = await scene.eventually("the late report of attempt 1", late)
        scene.expect(report.code == STALE_CODE, "the late report is kept for people to see", report.code)
        task = await scene.client.task(job.id, 0)
        scene.expect((task.state, task.attempt) == ("RUNNING", 2), "the task still runs, as attempt 2", task.state)
        scene.expect(second.alive, "its process is there")
        gate.let_go(attempt=2)
        ended = await until_ended(scene, job.id)
        scene.expect(
            (ended.state, ended.exit_code) == ("SUCCEEDED", 0), "the outcome is that of attempt 2", ended.exit_code
        )
