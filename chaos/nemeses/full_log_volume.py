"""A task that writes to its log without end: its node keeps the newest part only."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.burden import Burden
from chaos.stage import Stage

SCRIPT = """#!/bin/sh
while head -c 131072 /dev/zero && head -c 131072 /dev/zero >&2; do sleep 0.02; done
"""  # about ten megabytes a second


class FullLogVolume(Nemesis):
    name = "full-log-volume"
    summary = "a task writes to its log without end"
    family = Family.LOAD
    needs = ()
    managers = 1
    agents = 1
    seconds = (4.0, 12.0)

    async def strike(self, stage: Stage, seconds: float) -> None:
        async with Burden(stage) as burden:
            await burden.submit(
                {"name": "chaos-log", "script": SCRIPT, "timeout": int(seconds) + 60, "kill_grace": "1s"}
            )
            await stage.hold(seconds)
