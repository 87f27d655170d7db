"""Bodies over the limit: each must be refused with body_too_large, and cost nobody else anything."""

from __future__ import annotations

from collections import Counter

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage
from hasched.model.errors import HaschedError

BODY = (
    b'{"name": "chaos-huge", "command": ["/bin/true"], "input": "' + b"x" * (5 * 1024 * 1024) + b'"}'
)  # 4 MiB is the limit


class HugeBodies(Nemesis):
    name = "huge-bodies"
    summary = "requests with huge bodies, which must be refused"
    family = Family.LOAD
    needs = ()
    managers = 1
    seconds = (2.0, 6.0)
    weight = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        answers: Counter[str] = Counter()
        until = stage.record.now() + seconds
        while stage.record.now() < until and not stage.is_over:
            manager = stage.chance.choice(stage.cluster.managers)
            async with stage.cluster.client(manager, timeout_s=10.0, retries=False) as client:
                try:
                    job = await client.submit(BODY)
                    stage.note(f"{manager} accepted {len(BODY)} bytes as job {job.id}")
                except HaschedError as error:
                    answers[error.code] += 1
            await stage.hold(0.1)
        stage.note(f"{len(BODY)} bytes were answered with {dict(answers)}")
