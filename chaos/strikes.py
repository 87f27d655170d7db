"""Carries out a schedule: each strike at its time, on a stage of its own, and on record whatever becomes of it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence

import msgspec

from chaos.cluster.base import Cluster
from chaos.nemeses.base import Nemesis
from chaos.planning import Planned
from chaos.record import Record, Struck
from chaos.stage import Claims, Skipped, Stage
from hasched.model.errors import HaschedError

TRY_AGAIN_S = 1.0
PATIENCE_S = 12.0  # a strike that finds nobody to hit looks again for so long
OVERTIME_S = 120.0  # what a strike may take beyond its time, for the cluster to take back who was hit

Told = Callable[[Struck], None]


async def carry_out(
    plan: Sequence[Planned],
    nemeses: Mapping[str, Nemesis],
    cluster: Cluster,
    record: Record,
    *,
    over: asyncio.Event,
    told: Told,
) -> None:
    """Returns once all strikes have ended and all harm is undone, which `over` hastens.

    A nemesis of which no strike came off, since whom it needs was always being hit, has a second chance at the end, alone.
    """
    claims = Claims()
    begun_s = record.now()

    def strike(planned: Planned) -> Coroutine[None, None, None]:
        struck = Struck(number=planned.number, nemesis=planned.nemesis, family=planned.family, at_s=record.now())
        record.strikes.append(struck)
        stage = Stage(cluster, record, claims, struck, seed=planned.seed, over=over)
        return _strike(nemeses[planned.nemesis], stage, planned.seconds, struck, told)

    async with asyncio.TaskGroup() as group:
        for planned in plan:
            await _sleep(planned.at_s - (record.now() - begun_s), over)
            if over.is_set():
                break
            group.create_task(strike(planned))
    for planned in second_chances(plan, record.strikes):
        if not over.is_set():
            await strike(planned)


def second_chances(plan: Sequence[Planned], strikes: Sequence[Struck]) -> list[Planned]:
    """The first strike of each nemesis that was skipped every time, numbered on from the plan's last."""
    came_off = {each.nemesis for each in strikes if each.outcome != "skipped"}
    missed: dict[str, Planned] = {}
    for planned in plan:
        if planned.nemesis not in came_off:
            missed.setdefault(planned.nemesis, planned)
    return [
        msgspec.structs.replace(planned, number=len(plan) + number) for number, planned in enumerate(missed.values(), 1)
    ]


async def _strike(nemesis: Nemesis, stage: Stage, seconds: float, struck: Struck, told: Told) -> None:
    record = stage.record
    look_until = record.now() + PATIENCE_S
    try:
        async with asyncio.timeout(PATIENCE_S + seconds + OVERTIME_S):
            while True:
                struck.at_s = record.now()
                try:
                    await nemesis.strike(stage, seconds)
                    struck.outcome = "done"
                    break
                except Skipped as why:
                    if record.now() > look_until or stage.is_over:
                        struck.outcome = "skipped"
                        struck.notes.append(str(why))
                        break
                await stage.hold(TRY_AGAIN_S)
    except TimeoutError:
        struck.outcome = "failed"
        struck.notes.append(f"it did not end within {seconds + OVERTIME_S:.0f} s and was ended")
    except (HaschedError, OSError) as error:
        struck.outcome = "failed"
        struck.notes.append(f"{type(error).__name__}: {error}")
    except Exception:  # a defect of the nemesis must not hide what became of the cluster
        struck.outcome = "failed"
        struck.notes.append(traceback.format_exc())
    finally:
        struck.until_s = record.now()
        told(struck)


async def _sleep(seconds: float, over: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await over.wait()
    except TimeoutError:
        return
