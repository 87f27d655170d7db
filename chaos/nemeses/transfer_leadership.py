"""Leadership is handed over again and again."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage
from hasched.model.errors import HaschedError


class TransferLeadership(Nemesis):
    name = "transfer-leadership"
    summary = "leadership is handed over, again and again"
    family = Family.OPERATOR
    needs = ()
    seconds = (2.0, 8.0)

    async def strike(self, stage: Stage, seconds: float) -> None:
        until = stage.record.now() + seconds
        async with stage.cluster.client(timeout_s=10.0) as client:
            while stage.record.now() < until and not stage.is_over:
                try:
                    stage.note(f"to {await client.transfer(stage.chance.choice([None, *stage.cluster.managers]))}")
                except HaschedError as error:
                    stage.note(error.cause)
                await stage.hold(stage.chance.uniform(0.5, 2.0))
