"""What drills about schedules play with: a schedule's slots as its ledger and its jobs tell of them, from outside."""

from __future__ import annotations

from typing import Any

from chaos.checkers import slots
from chaos.checkers.slots import Settled
from chaos.drills.scene import Scene
from hasched.model.schedule_views import ScheduleView, SlotPage

GRACE_MS = 60_000


def document(name: str, cron: str, **keys: Any) -> dict[str, Any]:
    """A schedule whose job does nothing."""
    job = {"command": ["true"], "resources": {"cpu": "10m"}}
    return {"name": name, "cron": cron, "catch_up": "all", "catch_up_limit": 1000, "job": job, **keys}


async def put(scene: Scene, name: str, cron: str, **keys: Any) -> ScheduleView:
    return await scene.client.put_schedule(name, document(name, cron, **keys))


async def ledger_of(scene: Scene, name: str) -> list[Settled]:
    """The rows of its ledger, the oldest first."""
    page: SlotPage = await scene.client.slots(name, 400)
    return [
        Settled(row.slot_ms, row.step_ms, row.count, row.outcome.upper(), row.settled_ms, row.job_id or 0)
        for row in reversed(page.slots)
    ]


async def jobs_by_schedule(scene: Scene) -> dict[str, list[tuple[int, int]]]:
    """Slot and id of every job that a schedule has made, as the jobs themselves say."""
    found: dict[str, list[tuple[int, int]]] = {}
    async for job in scene.client.jobs():
        name, at, slot = job.parent.removeprefix("schedule/").partition("@")
        if at:
            found.setdefault(name, []).append((int(slot), job.id))
    return found


async def until_fired(scene: Scene, name: str, after_ms: int) -> int:
    """The first slot later than a time that was fired. Raises Unmet."""

    async def fired() -> int | None:
        return next(
            (row.first_ms for row in await ledger_of(scene, name) if row.job_id and row.first_ms > after_ms), None
        )

    return await scene.eventually(f"a slot of {name} to be fired", fired)


async def compare(scene: Scene, name: str, first_ms: int, step_ms: int) -> None:
    """Every slot from the first to the latest that was settled has its row, and what was fired its job. Raises Unmet."""
    rows = await ledger_of(scene, name)
    last_ms = max(row.slots()[-1] for row in rows)
    expected = range(first_ms, last_ms + 1, step_ms)
    wrong = slots.check(name, expected, rows, (await jobs_by_schedule(scene)).get(name, []), GRACE_MS)
    scene.expect(not wrong, f"each of the {len(expected)} slots of {name} was settled once", wrong or None)
    due = len(expected) - sum(len(row.slots()) for row in rows if row.outcome == "PAUSED")  # while we look
    fired = sum(bool(row.job_id) for row in rows)
    scene.expect(fired == due, f"all {due} have their job, and no more", fired)
