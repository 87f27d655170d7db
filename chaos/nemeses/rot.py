"""Damage to files that a checksum must find, and what an operator does then: shared by the nemeses that flip bits."""

from __future__ import annotations

from chaos.errors import Unsettled
from chaos.stage import Stage

NOTICED_S = 20.0


async def rot(stage: Stage, manager: str, where: str, seconds: float) -> None:
    """Flip a bit of its journal or snapshot, and start it. It must refuse; then it gets an empty disk."""
    processes, disks = stage.cluster.processes, stage.cluster.disks
    await processes.kill(manager)
    try:
        stage.note(await disks.flip(manager, where, stage.chance.getrandbits(30)))
        await stage.hold(seconds)
        await processes.start(manager)
        if not await stage.until(lambda: processes.pid(manager) is None, NOTICED_S):
            stage.note(f"{manager} did not notice it")
            return
        await disks.wipe(manager)
    except Unsettled as why:  # there is no such file yet
        stage.note(why.cause)
    finally:
        await processes.start(manager)
