"""A manager with an empty disk must not found a second cluster; one that a wrong file tells to do so must not get the agents."""

from __future__ import annotations

import asyncio
from pathlib import Path

from chaos.abilities import Ability
from chaos.drills import configs
from chaos.drills.base import Drill
from chaos.drills.props import (
    PATIENT,
    Gate,
    kill_all,
    run_one,
    start_all,
    until_begun,
    until_whole,
)
from chaos.drills.scene import Scene, Unmet
from hasched.model.errors import HaschedError

PAUSE_S = 0.1
ALONE_S = 3.0  # five elections could have been held


class SecondBootstrap(Drill):
    name = "second-bootstrap"
    happened = "A manager with an empty disk formed a second cluster; ids restarted at 1."
    expects = (
        "A manager that lost its disk leads nothing and accepts nothing until the others have filled it. Agents stay with "
        "their cluster, whatever a manager with a wrong file pretends to lead."
    )
    needs = (Ability.SIGNALS, Ability.RESTARTS, Ability.DISKS)
    settings = PATIENT

    async def play(self, scene: Scene) -> None:
        cluster = scene.cluster
        wiped, *others = cluster.managers
        config = configs.config_file(scene, wiped)
        last = [await run_one(scene, "before") for _ in range(3)][-1].id

        await kill_all(scene, cluster.managers)
        await cluster.disks.wipe(wiped)
        await start_all(scene, [wiped])
        scene.show(f"{wiped} starts alone, with an empty disk")
        await self._founds_nothing(scene, wiped)
        await start_all(scene, others[:1])
        await self._meets(scene, wiped, others[0])
        await self._founds_nothing(scene, wiped)
        scene.show(f"nor does it with {others[0]}, which may lack what the third has")
        await start_all(scene, others[1:])
        await until_whole(scene)
        fresh = await run_one(scene, "the others are back")
        scene.expect(fresh.id > last, f"ids go on after {last}", fresh.id)
        async with cluster.client(wiped) as client:
            old = await client.job(last)
        scene.expect(old.state == "SUCCEEDED", f"{wiped} was filled, and knows job {last}", old.state)

        await self._a_wrong_file(scene, wiped, others, config)

    async def _meets(self, scene: Scene, manager: str, other: str) -> None:
        """From now on they could agree on something."""
        async with scene.cluster.client(manager) as client:

            async def reaches() -> bool:
                return any(each.id == other and each.reachable for each in (await client.managers()).managers)

            await scene.eventually(f"{manager} to reach {other}", reaches)

    async def _founds_nothing(self, scene: Scene, manager: str) -> None:
        """Nobody leads, and nothing is accepted, for a while."""
        until = scene.now() + ALONE_S
        refused = 0
        async with scene.cluster.client(manager, timeout_s=1.0, retries=False) as client:
            while scene.now() < until:
                try:
                    told = await client.submit({"name": "too-soon", "command": ["true"]})
                except HaschedError:
                    refused += 1
                    await asyncio.sleep(PAUSE_S)
                    continue
                raise Unmet(f"expected: {manager} accepts nothing; seen: it accepted job {told.id}")
        scene.expect(refused > 0, f"{manager} refuses every submission for {ALONE_S:.0f} s", refused)

    async def _a_wrong_file(self, scene: Scene, wrong: str, others: list[str], config: Path) -> None:
        """Its file names it as the only member, and its disk is empty: it can't know better. The agents can."""
        cluster, gate = scene.cluster, Gate(scene)
        job = await scene.client.submit(gate.document(count=len(cluster.agents)))
        begun = await until_begun(scene, gate, len(cluster.agents))
        await kill_all(scene, [wrong])
        await cluster.disks.wipe(wrong)
        configs.change(config, lambda each: each.update(members=[m for m in each["members"] if m["name"] == wrong]))
        await start_all(scene, [wrong])
        async with cluster.client(wrong) as false, cluster.client(*others) as true:

            async def leads() -> bool:
                return (await false.managers()).leader == wrong

            await scene.eventually(f"{wrong} to lead a cluster of its own", leads)
            scene.show(f"{wrong} founded a cluster of its own, as its file says")
            for name in cluster.agents:
                await cluster.processes.kill(name)
                await cluster.processes.start(name)
            scene.show("every agent was restarted, and looks for its cluster")

            async def came_back() -> bool:
                nodes = {node.id: node.connected for node in (await true.nodes()).nodes}
                return all(nodes.get(name) for name in cluster.agents)

            await scene.eventually("every agent to be back with the managers that it belongs to", came_back)
            taken = [node.id for node in (await false.nodes()).nodes]
            scene.expect(not taken, f"{wrong} got none of them", taken)
            alive = [each.node_id for each in begun if each.alive]
            scene.expect(
                len(alive) == len(begun), "no task was stopped for the sake of a cluster that isn't theirs", alive
            )
            gate.let_go()

            async def ended() -> bool:
                return (await true.job(job.id)).state == "SUCCEEDED"

            await scene.eventually("the job to succeed", ended)
            scene.expect(not gate.repeated(), "no attempt began twice", len(gate.begun()))
