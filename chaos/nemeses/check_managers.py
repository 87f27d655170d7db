"""The managers compare their states, under whatever else happens."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage
from hasched.model.errors import HaschedError


class CheckManagers(Nemesis):
    name = "check-managers"
    summary = "the managers are asked to compare their states"
    family = Family.OPERATOR
    needs = ()
    seconds = (3.0, 10.0)
    weight = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        async with stage.cluster.client(timeout_s=10.0) as client:
            try:
                asked = await client.check_managers()
            except HaschedError as error:
                stage.note(error.cause)
                return

            async def is_told() -> bool:
                check = (await client.managers()).check
                if check is None or check.log_index < asked:
                    return False
                stage.note(f"compared at {check.log_index}: differing {check.differing}, silent {check.silent}")
                return True

            if not await stage.eventually(is_told, seconds):
                stage.note(f"no result within {seconds:.0f} s")
