"""What agents run changes while no manager looks: a node is reset, another loses its disk. The state must follow."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.drills.base import Drill
from chaos.drills.props import (
    SPREAD,
    Gate,
    attempts_of,
    kill_all,
    start_all,
    until_begun,
    until_ended,
    until_fit,
    until_gone,
    until_whole,
)
from chaos.drills.scene import Scene


class RestartLeavesRunning(Drill):
    name = "restart-leaves-running"
    happened = "Nothing reconciled the state with what agents really run."
    expects = (
        "Managers that come back compare the state with what each agent has: what isn't there any more is tried again "
        "under a new number, what still runs goes on, and no number is used twice."
    )
    needs = (Ability.SIGNALS, Ability.RESTARTS, Ability.DISKS)
    settings = SPREAD

    async def play(self, scene: Scene) -> None:
        cluster, gate = scene.cluster, Gate(scene)
        job = await scene.client.submit(gate.document(count=2))
        begun = {each.node_id: each for each in await until_begun(scene, gate, 2)}
        scene.expect(len(begun) == 2, "two tasks run on two nodes", ", ".join(sorted(begun)))
        reset, steady = (begun[name] for name in sorted(begun))

        await kill_all(scene, cluster.managers)
        await cluster.processes.reboot(reset.node_id)
        await until_gone(scene, [reset])
        scene.show(f"{reset.node_id} was reset: its task is gone, and nobody heard")
        await start_all(scene, cluster.managers)
        await until_begun(scene, gate, attempt=2)
        states = [each.state for each in await attempts_of(scene, job.id, reset.index)]
        scene.expect(len(states) == 2, f"the task of {reset.node_id} runs again, as attempt 2", states)
        scene.expect(steady.alive, f"the task of {steady.node_id} goes on")
        await until_whole(scene)

        await kill_all(scene, cluster.managers)
        await cluster.processes.reboot(steady.node_id)
        await cluster.processes.kill(steady.node_id)
        await until_gone(scene, [steady])
        await cluster.disks.wipe(steady.node_id)
        scene.show(f"{steady.node_id} was reset and lost its disk: it knows of nothing any more")
        await start_all(scene, [*cluster.managers, steady.node_id])
        await until_fit(scene, steady.node_id)
        await until_begun(scene, gate, 4)
        reason = (await attempts_of(scene, job.id, steady.index))[0].reason
        scene.show(f"its task runs again: {reason.text if reason is not None else 'nobody says why'}")
        scene.expect(not gate.repeated(), "no attempt began twice", gate.repeated())
        gate.let_go()
        ended = await until_ended(scene, job.id)
        scene.expect(ended.state == "SUCCEEDED", "the job succeeds", ended.tasks)
        numbers = sorted((each.index, each.attempt) for each in gate.begun())
        wanted = sorted((index, attempt) for index in range(2) for attempt in (1, 2))
        scene.expect(numbers == wanted, "each task began twice, as attempts 1 and 2", numbers)
