"""One job of ten thousand tasks; cancelled afterwards."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.burden import Burden
from chaos.stage import Stage

TASKS = 10_000


class BigArray(Nemesis):
    name = "big-array"
    summary = "a job of 10,000 tasks, which is cancelled later"
    family = Family.LOAD
    needs = ()
    managers = 1
    weight = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        async with Burden(stage) as burden:
            await burden.submit({"name": "chaos-array", "command": ["/bin/true"], "count": TASKS})
            await stage.hold(seconds)
