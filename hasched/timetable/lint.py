"""The linter: what of a schedule may not be what its author means. None of it is an error."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise

from hasched.model.schedule import CatchUp, Overlap, ScheduleSpec, Verdict
from hasched.model.units import format_duration
from hasched.timetable.cron import Cron, parse_cron
from hasched.timetable.slots import LATEST_S, first_shown, local_time, matches_day, slots_of
from hasched.timetable.zones import DAY_S, Piece, pieces

_LOOK_AHEAD_S = 400 * DAY_S
_LOOKED_AT = 400  # slots


def lint(spec: ScheduleSpec, now_ms: int) -> list[str]:
    """A sentence for each, in the order in which they are found."""
    found = list(_of_cron(parse_cron(spec.cron), spec, now_ms)) if spec.cron else []
    return [
        *found,
        *_of_dates(spec, now_ms),
        *_of_interval(spec, now_ms),
        *_of_slots(spec, now_ms),
        *_of_policies(spec),
    ]


def _of_cron(cron: Cron, spec: ScheduleSpec, now_ms: int) -> Iterator[str]:
    if not cron.any_day and not cron.any_weekday:
        yield (
            f"`{cron.text}` names days of the month and days of the week: it is due on a day that matches either, "
            "not only where both match"
        )
    if cron.any_weekday and cron.any_day is False and cron.days and min(cron.days) > 28 and not cron.from_end:
        yield f"months without a day {min(cron.days)} are left out; `L` is the last day of every month"
    for noun, numbers, size in (("minute", cron.minutes, 60), ("hour", cron.hours, 24), ("second", cron.seconds, 60)):
        gaps = dict.fromkeys(after - before for before, after in pairwise((*numbers, numbers[0] + size)))
        if len(numbers) > 2 and len(gaps) == 2 and max(gaps) > 1 and numbers[0] == 0:
            yield f"the steps between {noun}s are uneven: after {noun} {numbers[-1]} comes {noun} {numbers[0]}"
    yield from _of_changes(cron, spec, now_ms)


def _of_changes(cron: Cron, spec: ScheduleSpec, now_ms: int) -> Iterator[str]:
    """The first change of the clocks in each direction at which a slot isn't as on other days."""
    told: dict[bool, None] = {}
    for before, after in _changes(spec, now_ms):
        ahead = after.offset_s > before.offset_s
        if len(cron.hours) == 24 and (after.offset_s - before.offset_s) % 3600 == 0:
            continue  # it is due every hour, whatever the clock calls it
        local = (
            after.start_s + min(before.offset_s, after.offset_s),
            after.start_s + max(before.offset_s, after.offset_s),
        )
        time_s = _first_time(cron, *local)
        if time_s is None or ahead in told:
            continue
        told[ahead] = None
        clock = f"{time_s % DAY_S // 3600:02d}:{time_s % 3600 // 60:02d}"
        day = local_time(spec.timezone, after.start_s * 1000)[:10]
        shown = local_time(spec.timezone, first_shown(spec.timezone, time_s) * 1000)[11:16]
        if ahead and cron.follows_clock:
            yield f"{clock} doesn't exist on {day} in {spec.timezone}: slots that would be due then are left out"
        elif ahead:
            yield f"{clock} doesn't exist on {day} in {spec.timezone}: that slot is fired at {shown}"
        elif cron.follows_clock:
            yield f"{clock} comes twice on {day} in {spec.timezone}: slots are fired both times"
        else:
            yield f"{clock} comes twice on {day} in {spec.timezone}: the slot is fired the first time only"


def _changes(spec: ScheduleSpec, now_ms: int) -> Iterator[tuple[Piece, Piece]]:
    """The changes of the clocks that it meets, while it is from its start to its end."""
    from_s = max(now_ms, spec.start_ms) // 1000
    until_s = from_s + _LOOK_AHEAD_S
    return pairwise(pieces(spec.timezone, from_s, min(until_s, spec.end_ms // 1000) if spec.end_ms else until_s))


def _of_dates(spec: ScheduleSpec, now_ms: int) -> Iterator[str]:
    """Times that come twice, and those at which the clock goes on, where one that it leaves out is fired."""
    dates = dict.fromkeys(spec.at)
    for before, after in _changes(spec, now_ms) if dates else ():
        shift_s = after.offset_s - before.offset_s
        span = range((after.start_s + min(shift_s, 0)) * 1000, after.start_s * 1000 + 1)
        for at_ms in (each for each in dates if each in span):
            local = local_time(spec.timezone, at_ms)
            clock, day = local[11:16], local[:10]
            if shift_s > 0:
                yield f"the clock goes on to {clock} on {day} in {spec.timezone}: a time that it leaves out is fired then"
            elif at_ms < after.start_s * 1000:
                yield f"{clock} comes twice on {day} in {spec.timezone}: the slot is fired the first time only"


def _of_interval(spec: ScheduleSpec, now_ms: int) -> Iterator[str]:
    if spec.every_ms and spec.every_ms % (DAY_S * 1000) == 0 and any(_changes(spec, now_ms)):
        every = format_duration(spec.every_ms)
        yield (
            f"`every: {every}` counts real time: once the clocks in {spec.timezone} are changed it is due at another time "
            "of day; `cron` keeps to the clock"
        )


def _first_time(cron: Cron, from_s: int, until_s: int) -> int | None:
    """The first local time in a span, which may reach into the next day, at which the expression is due."""
    for day in range(from_s // DAY_S, (until_s - 1) // DAY_S + 1):
        if matches_day(cron, day):
            for time_s in cron.times(from_s - day * DAY_S):
                if day * DAY_S + time_s < until_s:
                    return day * DAY_S + time_s
                break
    return None


def _of_slots(spec: ScheduleSpec, now_ms: int) -> Iterator[str]:
    found = list(islice(slots_of(spec, now_ms, now_ms, LATEST_S * 1000), _LOOKED_AT))
    if not found:
        yield "no slot is to come"
        return
    if all(verdict is not Verdict.DUE for _, verdict in found):
        yield f"all of the next {len(found)} slots meet a blackout or are on no business day"
    gaps = [after - before for (before, _), (after, _) in pairwise(found)]
    if gaps and spec.jitter_ms > min(gaps):
        yield f"the jitter is longer than the {format_duration(min(gaps))} between two slots: they may be fired in another order"
    if gaps and spec.overlap is Overlap.FORBID and spec.timeout_ms > min(gaps):
        yield (
            f"a run may take {format_duration(spec.timeout_ms)} by its timeout, slots are {format_duration(min(gaps))} "
            "apart, and `overlap: forbid` skips those that are due meanwhile"
        )
    if gaps and spec.missing_ms and spec.missing_ms < min(gaps):
        yield f"`missing` is shorter than the {format_duration(min(gaps))} between two slots: the alert would never end"


def _of_policies(spec: ScheduleSpec) -> Iterator[str]:
    if spec.catch_up is CatchUp.ALL and spec.overlap is Overlap.FORBID:
        yield "`overlap: forbid` skips most of what `catch_up: all` fires at once; `overlap: queue` keeps them"
    if spec.jitter_ms and spec.late_ms and spec.late_ms < 1000:
        yield "`late` counts from when the jitter has a slot fired"
