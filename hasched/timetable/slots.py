"""Slots: the instants at which a schedule is due, ascending, each once.

The rule for days on which the clocks are changed (docs/schedules.md has it in words). A cron expression of which the second,
minute or hour begins with `*` follows the clock: it is due whenever the clock shows a time that matches, also where it shows
one twice, and not at times that it leaves out. Any other is due once for each of its times on each of its days: at the first
of two, and where the clock leaves the time out, at the moment it goes on; several such are one slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

from hasched.model.schedule import Calendar, ScheduleSpec, Verdict
from hasched.timetable.cron import DAYS_OF_1970, Cron, parse_cron
from hasched.timetable.zones import DAY_S, Piece, offset_at, pieces

LATEST_S = 4_133_894_400  # 2101-01-01: nothing is worked out beyond
_SPAN_S = 40 * DAY_S  # so much is worked out at once
_FAR_S = 2 * DAY_S  # local time is never so far from UTC


def slots_of(spec: ScheduleSpec, made_ms: int, after_ms: int, until_ms: int) -> Iterator[tuple[int, Verdict]]:
    """The slots later than `after_ms` and not later than `until_ms`, in ms since the epoch, each with what it meets.

    `made_ms` is when the schedule was made: an interval without a start counts from it. Lazy: take as many as are wanted.
    """
    first_ms = max(after_ms + 1, spec.start_ms)
    last_ms = min(until_ms, LATEST_S * 1000)
    if spec.end_ms:
        last_ms = min(last_ms, spec.end_ms - 1)
    for slot_ms in _instants(spec, made_ms, first_ms, last_ms):
        yield slot_ms, verdict_of(spec, slot_ms)


def _instants(spec: ScheduleSpec, made_ms: int, first_ms: int, last_ms: int) -> Iterator[int]:
    if first_ms > last_ms:
        return
    if spec.cron:
        first_s = -(-first_ms // 1000)
        for slot_s in cron_slots(parse_cron(spec.cron), spec.timezone, first_s, last_ms // 1000):
            yield slot_s * 1000
    elif spec.every_ms:
        anchor_ms = spec.start_ms or made_ms
        steps = max(-(-(first_ms - anchor_ms) // spec.every_ms), 0)
        yield from range(anchor_ms + steps * spec.every_ms, last_ms + 1, spec.every_ms)
    else:
        yield from (slot_ms for slot_ms in spec.at if first_ms <= slot_ms <= last_ms)


def cron_slots(cron: Cron, timezone: str, first_s: int, last_s: int) -> Iterator[int]:
    """The seconds since the epoch from one to another at which the expression is due in the zone."""
    made = _by_the_clock if cron.follows_clock else _once_a_day
    start_s = first_s
    while start_s <= last_s:
        end_s = min(start_s + _SPAN_S, last_s + 1)
        yield from made(cron, timezone, start_s, end_s)
        start_s = end_s


def _by_the_clock(cron: Cron, timezone: str, start_s: int, end_s: int) -> Iterator[int]:
    """From `start_s` to before `end_s`: piece after piece, day after day."""
    for piece in pieces(timezone, start_s, end_s):
        local_s, local_end_s = piece.start_s + piece.offset_s, piece.end_s + piece.offset_s
        for day in range(local_s // DAY_S, (local_end_s - 1) // DAY_S + 1):
            if not matches_day(cron, day):
                continue
            for time_s in cron.times(local_s - day * DAY_S):
                at_s = day * DAY_S + time_s
                if at_s >= local_end_s:
                    break
                yield at_s - piece.offset_s


def _once_a_day(cron: Cron, timezone: str, start_s: int, end_s: int) -> Iterator[int]:
    """From `start_s` to before `end_s`: every time of every day, where the clock shows it first."""
    known = pieces(timezone, start_s - 2 * _FAR_S, end_s + 2 * _FAR_S)
    first_day = (start_s - _FAR_S) // DAY_S
    last_day = (end_s + _FAR_S) // DAY_S
    latest, number = start_s - 1, 0
    for day in range(first_day, last_day + 1):
        if not matches_day(cron, day):
            continue
        for time_s in cron.times():
            at_s, number = _first_shown(known, day * DAY_S + time_s, number)
            if at_s >= end_s:
                return
            if at_s > latest:
                yield at_s
                latest = at_s


def _first_shown(known: list[Piece], local_s: int, number: int) -> tuple[int, int]:
    """When the clock shows a local time first, or goes on after having left it out; and in which piece, from `number` on."""
    while known[number].end_s + known[number].offset_s <= local_s:
        number += 1
    piece = known[number]
    return max(local_s - piece.offset_s, piece.start_s), number


def first_shown(timezone: str, local_s: int) -> int:
    """When (s since the epoch) the zone's clock shows a local time first, or goes on after having left it out."""
    return _first_shown(pieces(timezone, local_s - 2 * _FAR_S, local_s + 2 * _FAR_S), local_s, 0)[0]


def matches_day(cron: Cron, day: int) -> bool:
    """Whether the expression is due at some time of a day, counted from 1970-01-01."""
    there = date.fromordinal(DAYS_OF_1970 + day)
    return cron.matches_day(there.year, there.month, there.day)


def verdict_of(spec: ScheduleSpec, slot_ms: int) -> Verdict:
    """Whether a slot is due, or meets a blackout or a day that is no business day."""
    if not spec.blackouts and spec.calendar is None:
        return Verdict.DUE
    day, second = divmod(slot_ms // 1000 + offset_at(spec.timezone, slot_ms // 1000), DAY_S)
    for blackout in spec.blackouts:
        if blackout.until_ms:
            if blackout.from_ms <= slot_ms < blackout.until_ms:
                return Verdict.BLACKOUT
            continue
        over_night = blackout.until_s <= blackout.from_s
        begins = day - 1 if over_night and second < blackout.until_s else day
        inside = (
            second >= blackout.from_s or second < blackout.until_s
            if over_night
            else blackout.from_s <= second < blackout.until_s
        )
        if inside and (not blackout.weekdays or (begins + 3) % 7 in blackout.weekdays):
            return Verdict.BLACKOUT
    if spec.calendar is not None and not Calendar.is_open(spec.calendar, day):
        return Verdict.HOLIDAY
    return Verdict.DUE


def local_time(timezone: str, time_ms: int) -> str:
    """`2026-03-29T03:00:00+02:00`, as the zone's clock shows it."""
    time_s, milli = divmod(time_ms, 1000)
    offset_s = offset_at(timezone, time_s)
    day, second = divmod(time_s + offset_s, DAY_S)
    there = date.fromordinal(DAYS_OF_1970) + timedelta(days=day)
    sign, ahead = ("-", -offset_s) if offset_s < 0 else ("+", offset_s)
    fraction = f".{milli:03d}" if milli else ""
    return (
        f"{there.isoformat()}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}{fraction}"
        f"{sign}{ahead // 3600:02d}:{ahead // 60 % 60:02d}"
    )
