"""The leader is cut off, then every manager from every other; both heal."""

from __future__ import annotations

import asyncio

from chaos.abilities import Ability
from chaos.drills.base import Drill
from chaos.drills.props import QUICK, leader_of, run_one, silence, until_whole
from chaos.drills.scene import Scene, Unmet
from hasched.model.errors import HaschedError
from hasched.model.views import ManagerPage, Submitted

FAULT_S = 30.0
SPLIT_S = 3.0
TRY_S = 1.0


class PartitionThenHeal(Drill):
    name = "partition-then-heal"
    happened = "Scheduling stopped for good after a simple network fault."
    expects = (
        "With the leader cut off the others go on; with everybody cut off nothing is accepted; and after either the "
        "cluster schedules again by itself, in one history."
    )
    needs = (Ability.SIGNALS, Ability.CUTS, Ability.ISOLATION)
    settings = QUICK

    async def play(self, scene: Scene) -> None:
        cluster = scene.cluster
        leader = await leader_of(scene)
        others = [name for name in cluster.managers if name != leader]
        async with cluster.network.isolated(leader, FAULT_S), cluster.client(*others) as client:
            scene.show(f"{leader}, which leads, is cut off from all others")
            began = scene.now()

            async def accepted() -> Submitted:
                return await client.submit({"name": "meanwhile", "command": ["true"], "resources": {"cpu": "100m"}})

            meanwhile = await scene.eventually("the others to accept a job", accepted)
            scene.show(f"the others accepted job {meanwhile.id} after {scene.now() - began:.1f} s")
            ended = await client.wait(meanwhile.id, timeout=30)
            scene.expect(ended.state == "SUCCEEDED", "it is scheduled and runs", ended.state)
            lonely = await self._refusals(scene, [leader])
            scene.expect(lonely > 0, f"{leader}, alone, accepts nothing", f"{lonely} refusals")
        scene.show("the cut is healed")
        await until_whole(scene)
        await run_one(scene, "after the first cut")

        pairs = [(one, other) for one in cluster.managers for other in cluster.managers if one != other]
        async with cluster.network.cut(pairs, FAULT_S):
            await silence(scene, SPLIT_S, "every manager is cut off from every other")
            refused = await self._refusals(scene, cluster.managers)
            scene.expect(refused > 0, "none of them accepts a job", f"{refused} refusals")
        scene.show("the cuts are healed")
        began = scene.now()
        await until_whole(scene)
        scene.show(f"the cluster was whole again after {scene.now() - began:.1f} s")
        await run_one(scene, "after the second cut")

        asked = await scene.client.check_managers()

        async def compared() -> ManagerPage | None:
            page = await scene.client.managers()
            return page if page.check is not None and page.check.log_index >= asked else None

        check = (await scene.eventually("a comparison of the managers' states", compared)).check
        assert check is not None
        agreed = check.agreed and not check.differing and not check.silent
        scene.expect(agreed, "all managers have the same state", f"as of entry {check.log_index}")

    async def _refusals(self, scene: Scene, managers: list[str]) -> int:
        """One submission to each of them, none of which must be accepted."""

        async def is_refused(name: str) -> bool:
            async with scene.cluster.client(name, timeout_s=TRY_S, retries=False) as client:
                try:
                    told = await client.submit({"name": "alone", "command": ["true"]})
                except HaschedError:
                    return True
            raise Unmet(f"expected: {name} accepts nothing; seen: it accepted job {told.id}")

        return sum(await asyncio.gather(*map(is_refused, managers)))
