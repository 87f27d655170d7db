"""The leader is killed while clients submit. It needs signals only, so it can be played on a cluster that runs already."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import msgspec

from chaos.abilities import Ability
from chaos.drills.base import Drill
from chaos.drills.props import leader_of, until_ended, until_whole
from chaos.drills.scene import Scene
from hasched.model.errors import HaschedError
from hasched.model.views import Submitted

CLIENTS = 3
PAUSE_S = 0.05
BEFORE_S, AFTER_S = 1.5, 3.0
DOWN_S = 60.0
MAX_GAP_S = 15.0


class Accepted(msgspec.Struct, frozen=True):
    at_s: float
    job_id: int


class LeaderKill(Drill):
    name = "leader-kill"
    happened = "The process that decides dies, like any other: by a bug, for lack of memory, with its machine."
    expects = "Clients notice a pause and nothing else: every accepted job ends once, and none is there twice."
    needs = (Ability.SIGNALS,)
    agents = 1

    async def play(self, scene: Scene) -> None:
        cluster = scene.cluster
        accepted: list[Accepted] = []
        over = asyncio.Event()
        clients = [asyncio.create_task(self._submit(scene, accepted, over)) for _ in range(CLIENTS)]
        try:
            await asyncio.sleep(BEFORE_S)
            leader = await leader_of(scene)
            killed_s = scene.now()
            async with cluster.processes.down(leader, DOWN_S):
                scene.show(f"SIGKILL to {leader}, which leads, after {len(accepted)} jobs were accepted")

                async def another() -> str | None:
                    found = (await scene.client.managers()).leader
                    return found if found is not None and accepted and accepted[-1].at_s > killed_s else None

                follower = await scene.eventually("the next accepted submission", another)
                await asyncio.sleep(AFTER_S)
        finally:
            over.set()
            failed = sum(await asyncio.gather(*clients))
        gap_s = _gap_around(killed_s, accepted)
        scene.expect(gap_s <= MAX_GAP_S, f"nothing is accepted for {MAX_GAP_S:.0f} s at most", f"{gap_s:.2f} s")
        scene.show(f"{follower} leads; {len(accepted)} jobs were accepted in all, {failed} calls failed for good")
        await until_whole(scene)
        scene.show(f"{leader} is back")

        ids = [each.job_id for each in accepted]
        scene.expect(len(set(ids)) == len(ids), "each submission has a job of its own", len(ids))
        ends, attempts = Counter[str](), Counter[int]()
        for job_id in ids:
            ends[(await until_ended(scene, job_id)).state] += 1
            tried = (await scene.client.task(job_id, 0)).attempts
            attempts[sum(each.state == "SUCCEEDED" for each in tried)] += 1
        scene.expect(ends == {"SUCCEEDED": len(ids)}, "every accepted job has ended", dict(ends))
        scene.expect(attempts == {1: len(ids)}, "each by one attempt that succeeded", dict(attempts))

    async def _submit(self, scene: Scene, accepted: list[Accepted], over: asyncio.Event) -> int:
        """One client, which retries as any user's does. Returns how many calls failed for good."""
        failed = 0
        while not over.is_set():
            try:
                told: Submitted = await scene.client.submit(
                    {"name": "load", "command": ["true"], "resources": {"cpu": "100m"}}
                )
                accepted.append(Accepted(scene.now(), told.id))
            except HaschedError:
                failed += 1
            await asyncio.sleep(PAUSE_S)
        return failed


def _gap_around(at_s: float, accepted: list[Accepted]) -> float:
    """From the kill to the next acceptance, or the longest time without one after it."""
    times = [at_s, *(each.at_s for each in accepted if each.at_s > at_s)]
    return max(later - earlier for earlier, later in pairwise(times))
