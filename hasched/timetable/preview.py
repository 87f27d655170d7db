"""What a schedule will do: its next slots, and those of a range."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from hasched.model.schedule import ScheduleSpec, Verdict, jitter_of
from hasched.model.schedule_views import PreviewSlot
from hasched.model.units import format_duration
from hasched.timetable.slots import LATEST_S, local_time, slots_of

MAX_PREVIEW = 1000


def preview(name: str, spec: ScheduleSpec, made_ms: int, after_ms: int, count: int) -> list[PreviewSlot]:
    """The next slots later than a time, at most `count` and `MAX_PREVIEW`, with those that will be skipped."""
    found = slots_of(spec, made_ms, after_ms, LATEST_S * 1000)
    return [_show(name, spec, *slot) for slot in islice(found, min(count, MAX_PREVIEW))]


def slots_in(name: str, spec: ScheduleSpec, made_ms: int, from_ms: int, until_ms: int) -> Iterator[PreviewSlot]:
    """The slots from one time to before another."""
    return (_show(name, spec, *slot) for slot in slots_of(spec, made_ms, from_ms - 1, until_ms - 1))


def next_slot(spec: ScheduleSpec, made_ms: int, after_ms: int) -> int:
    """When the next slot is due that isn't skipped, among the next hundred; 0: there is none."""
    found = islice(slots_of(spec, made_ms, after_ms, LATEST_S * 1000), 100)
    return next((slot_ms for slot_ms, verdict in found if verdict is Verdict.DUE), 0)


def _show(name: str, spec: ScheduleSpec, slot_ms: int, verdict: Verdict) -> PreviewSlot:
    return PreviewSlot(
        slot_ms=slot_ms,
        local=local_time(spec.timezone, slot_ms),
        fire_ms=slot_ms + jitter_of(name, slot_ms, spec.jitter_ms),
        skipped="" if verdict is Verdict.DUE else verdict.name.lower(),
    )


def describe_when(spec: ScheduleSpec) -> str:
    """`cron 30 2 * * *`, `every 15m`, `at 3 times`."""
    if spec.cron:
        return f"cron {spec.cron}"
    if spec.every_ms:
        return f"every {format_duration(spec.every_ms)}"
    return f"at {len(spec.at)} times" if len(spec.at) != 1 else f"at {local_time(spec.timezone, spec.at[0])}"
