"""A node whose disk is full fails every launch at once, so it looks idle and draws the whole queue."""

from __future__ import annotations

from collections import Counter

from chaos.abilities import Ability
from chaos.drills.base import Drill
from chaos.drills.props import SPREAD, Gate, until_begun, until_ended
from chaos.drills.scene import Scene

TASKS = 40
FAULT_S = 60.0
MAX_REFUSED = 3 * TASKS // 4  # half of them were on their way before the node said that it takes no more


class BlackHoleNode(Drill):
    name = "black-hole-node"
    happened = "One node with a bad disk refused every launch and drained the queue into failures in 1.5 s."
    expects = (
        "A launch that fails by the node's fault is no failure of the task: it runs elsewhere, the node says that it takes "
        "no more, and takes work again once its disk does."
    )
    needs = (Ability.SIGNALS, Ability.RESTARTS, Ability.DISKS)
    settings = SPREAD

    async def play(self, scene: Scene) -> None:
        broken = scene.cluster.agents[0]
        async with scene.cluster.disks.full(broken, FAULT_S):
            scene.show(f"the disk of {broken} is full")
            job = await scene.client.submit(
                {"name": "work", "command": ["true"], "count": TASKS, "retries": 0, "resources": {"cpu": "100m"}}
            )
            ended = await until_ended(scene, job.id)
            scene.expect(
                ended.state == "SUCCEEDED", f"{TASKS} tasks without retries succeed", f"{ended.state} {ended.tasks}"
            )
            ends = Counter[str]()
            for index in range(TASKS):
                for each in (await scene.client.task(job.id, index)).attempts:
                    ends[f"{each.node_id} {each.state}"] += 1
            refused = sum(number for end, number in ends.items() if not end.endswith(" SUCCEEDED"))
            seen = ", ".join(f"{end}: {number}" for end, number in sorted(ends.items()))
            scene.expect(refused <= MAX_REFUSED, f"at most {MAX_REFUSED} launches failed on {broken}", seen)
        scene.show(f"the disk of {broken} has room again")
        await self._works_again(scene, broken)

    async def _works_again(self, scene: Scene, node_id: str) -> None:
        """Small tasks keep coming until one of them is started there."""

        async def begins_there() -> bool:
            gate = Gate(scene)
            gate.let_go()
            job = await scene.client.submit(gate.document(count=2 * len(scene.cluster.agents)))
            await until_begun(scene, gate, 2 * len(scene.cluster.agents))
            await until_ended(scene, job.id)
            return node_id in [each.node_id for each in gate.begun()]

        await scene.eventually(f"{node_id} to take work again", begins_there)
        scene.show(f"{node_id} runs tasks again")
