"""A hundred thousand tasks wait, as arrays and as single jobs. Managers must go on as if they were few."""

from __future__ import annotations

import asyncio
import time

from chaos.drills.base import Drill
from chaos.drills.props import QUICK, resident_bytes, run_one
from chaos.drills.scene import Scene
from hasched.model.errors import HaschedError

ARRAYS, TASKS_EACH = 10, 7_000
BATCHES, JOBS_EACH = 30, 1_000
QUEUED = ARRAYS * TASKS_EACH + BATCHES * JOBS_EACH
AT_ONCE = 3  # batches on their way
MAX_GROWN_BYTES = 512 * 2**20  # of one manager; the single jobs are what takes room
MIB = 2**20


class MassSubmission(Drill):
    name = "mass-submission"
    happened = "Managers ran out of memory at about 100,000 dispatched jobs."
    expects = f"With {QUEUED:,} tasks queued every manager stays small, and a new job is taken and run as ever."
    settings = QUICK

    async def play(self, scene: Scene) -> None:
        before = self._memory(scene)
        waits = {"command": ["true"], "resources": {"gpus": 1000}}  # no node has so many, so they all stay queued
        began = scene.now()
        for number in range(ARRAYS):
            await scene.client.submit({"name": f"array-{number}", "count": TASKS_EACH, **waits})
        gate = asyncio.Semaphore(AT_ONCE)

        async def submit(batch: int) -> int:
            async with gate:
                told = await scene.client.submit_many(
                    {"name": f"single-{batch}-{number}", **waits} for number in range(JOBS_EACH)
                )
            return sum(not isinstance(each, HaschedError) for each in told)

        accepted = sum(await asyncio.gather(*(submit(batch) for batch in range(BATCHES))))
        scene.expect(
            accepted == BATCHES * JOBS_EACH, f"all of {BATCHES * JOBS_EACH:,} single jobs are accepted", accepted
        )
        seconds = scene.now() - began
        scene.show(f"{QUEUED:,} tasks in {seconds:.1f} s: {QUEUED / seconds:,.0f} tasks/s")
        waiting = (await scene.client.cluster()).tasks.get("PENDING", 0)
        scene.expect(waiting >= QUEUED, f"at least {QUEUED:,} tasks are queued", f"{waiting:,}")

        asked = time.monotonic()
        await run_one(scene, "beside all these")
        scene.show(f"it took {time.monotonic() - asked:.2f} s from its submission to its end")
        grown = {name: size - before[name] for name, size in self._memory(scene).items()}
        shown = ", ".join(f"{name} {size / MIB:.0f} MiB" for name, size in grown.items())
        scene.expect(
            max(grown.values()) <= MAX_GROWN_BYTES, f"no manager grew by more than {MAX_GROWN_BYTES // MIB} MiB", shown
        )

    def _memory(self, scene: Scene) -> dict[str, int]:
        pids = {name: scene.cluster.processes.pid(name) for name in scene.cluster.managers}
        return {name: resident_bytes(pid) for name, pid in pids.items() if pid is not None}
