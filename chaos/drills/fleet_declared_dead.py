"""No leader for longer than the grace; then a fresh one, which has heard of no node yet."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from chaos.drills.base import Drill
from chaos.drills.props import (
    GRACE_S,
    SPREAD,
    Gate,
    kill_all,
    leader_of,
    silence,
    start_all,
    until_begun,
    until_ended,
    until_whole,
)
from chaos.drills.scene import Scene

LOOK_S = 0.1
FROZEN_S = 30.0
SLOW_S = 1.0  # of the grace


class FleetDeclaredDead(Drill):
    name = "fleet-declared-dead"
    happened = (
        "No heartbeats are recorded while there is no leader. A fresh leader marked 192 live nodes down within a minute "
        "and gave their GPUs away while the jobs ran on."
    )
    expects = "A new leader gives every node a fresh grace: no node is given up, no task is started a second time."
    settings = SPREAD

    async def play(self, scene: Scene) -> None:
        cluster, gate = scene.cluster, Gate(scene)
        count = 3 * len(cluster.agents)
        job = await scene.client.submit(gate.document(count=count))
        begun = await until_begun(scene, gate, count)
        nodes = sorted({each.node_id for each in begun})
        scene.show(f"{count} tasks run on {', '.join(nodes)}")

        leader = await leader_of(scene)
        others = [name for name in cluster.managers if name != leader]
        killed = [leader, *others[: len(cluster.managers) // 2]]  # with the leader, a majority
        await kill_all(scene, killed)
        await silence(scene, GRACE_S + 2, "nobody leads")
        async with AsyncExitStack() as frozen:
            for agent in cluster.agents:
                await frozen.enter_async_context(cluster.processes.frozen(agent, FROZEN_S))
            await start_all(scene, killed)
            scene.show(f"{await leader_of(scene)} leads")
            await silence(scene, SLOW_S, "no agent finds it")

        states = await _watch(scene, GRACE_S + 1)
        scene.expect(
            "disconnected" not in states, f"no node is given up in {GRACE_S + 1:.0f} s of the new leader", states
        )
        await until_whole(scene)
        gate.let_go()
        ended = await until_ended(scene, job.id)
        scene.expect(ended.state == "SUCCEEDED", "the job succeeds", ended.state)
        attempts = [each.attempt for each in gate.begun()]
        scene.expect(attempts == [1] * count, f"{count} attempts began, each the first of its task", attempts)


async def _watch(scene: Scene, seconds: float) -> list[str]:
    """The states that nodes were seen in, in the order in which they first came up."""
    until, seen = scene.now() + seconds, dict[str, None]()
    while scene.now() < until:
        seen |= dict.fromkeys(node.state for node in (await scene.client.nodes()).nodes)
        await asyncio.sleep(LOOK_S)
    return list(seen)
