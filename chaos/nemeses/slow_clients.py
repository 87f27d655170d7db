"""Clients that send a byte now and then: each is cut off in the end, and holds nobody up."""

from __future__ import annotations

from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.wires import wires
from chaos.stage import Stage

CLIENTS = 10  # of each manager
INTERVAL_S = 0.2
HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: manager\r\nContent-Length: 100000\r\n\r\n"


class SlowClients(Nemesis):
    name = "slow-clients"
    summary = "clients that send byte by byte"
    family = Family.LOAD
    needs = ()
    managers = 1
    seconds = (12.0, 25.0)
    weight = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        async with wires(stage, stage.cluster.managers, CLIENTS) as opened:
            for each in opened[::2]:  # these have a slow body, the others a slow head
                each.write(HEAD)
            until = stage.record.now() + seconds
            while stage.record.now() < until and not stage.is_over:
                for each in opened:
                    each.write(b"x")
                await stage.hold(INTERVAL_S)
            stage.note(f"{sum(each.is_cut for each in opened)} of {len(opened)} were cut off")
