"""Cron expressions: five fields (minute, hour, day of month, month, day of week), or six with the second first.

Each field takes `*`, numbers, names, ranges `a-b`, lists and steps `/n`. A day of the month may also be `L` (the last), `L-n`
(so many before it), `nW` (the weekday nearest to the n-th, in its month) and `LW` (the last weekday); a day of the week `d#n`
(the n-th such day of the month) and `dL` (the last). 0 and 7 are Sunday. `?` is `*`. If both day fields are restricted, a day
that matches one of them matches; a field that begins with `*` is not restricted (as in Debian's cron, whose man page this
follows).
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

MAX_LENGTH = 256
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
DAYS_OF_1970 = 719_163  # the proleptic ordinal of 1970-01-01
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


class _Field(NamedTuple):
    noun: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    base: int = 0  # the number of the first name


_SECOND = _Field("second", 0, 59)
_MINUTE = _Field("minute", 0, 59)
_HOUR = _Field("hour", 0, 23)
_DAY = _Field("day of the month", 1, 31)
_MONTH = _Field("month", 1, 12, _MONTHS, 1)
_WEEKDAY = _Field("day of the week", 0, 7, _WEEKDAYS)


class Cron(NamedTuple):
    """An expression that was read. All tuples are sorted."""

    text: str
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]  # 0 is Sunday
    from_end: tuple[int, ...] = ()  # L and L-n
    nearest: tuple[int, ...] = ()  # nW; 0: LW
    nth: tuple[tuple[int, int], ...] = ()  # d#n; n 0: dL
    any_day: bool = True  # the day of the month begins with `*`
    any_weekday: bool = True
    follows_clock: bool = True  # one of second, minute and hour begins with `*`: see `hasched.timetable.slots`
    given_seconds: bool = False

    def matches_day(self, year: int, month: int, day: int) -> bool:
        """Whether the schedule is due at some time of that date."""
        if month not in self.months:
            return False
        first, length = calendar.monthrange(year, month)  # the weekday of the 1st, 0 is Monday
        of_month = self._matches_day_of_month(day, first, length)
        of_week = self._matches_weekday(day, first, length)
        if self.any_day or self.any_weekday:
            return of_month and of_week
        return of_month or of_week

    def _matches_day_of_month(self, day: int, first: int, length: int) -> bool:
        if day in self.days or length - day in self.from_end:
            return True
        return any(nearest_weekday(number or length, first, length) == day for number in self.nearest)

    def _matches_weekday(self, day: int, first: int, length: int) -> bool:
        weekday = (first + day) % 7  # 0 is Sunday
        if weekday in self.weekdays:
            return True
        return any(weekday == which and (nth == (day + 6) // 7 if nth else day + 7 > length) for which, nth in self.nth)

    def times(self, start: int = 0) -> Iterator[int]:
        """The seconds of a day at which it is due, from one on, ascending."""
        start_hour, rest = divmod(max(start, 0), 3600)
        start_minute, start_second = divmod(rest, 60)
        for hour in self.hours:
            if hour < start_hour:
                continue
            for minute in self.minutes:
                if hour == start_hour and minute < start_minute:
                    continue
                base = hour * 3600 + minute * 60
                if hour == start_hour and minute == start_minute:
                    yield from (base + second for second in self.seconds if second >= start_second)
                else:
                    yield from (base + second for second in self.seconds)


def nearest_weekday(number: int, first: int, length: int) -> int:
    """The day from Monday to Friday that is nearest to a day of the month, in the same month; 0 if the month lacks that day."""
    if number > length:
        return 0
    weekday = (first + number - 1) % 7
    if weekday == 5:
        return number - 1 if number > 1 else number + 2
    if weekday == 6:
        return number + 1 if number < length else number - 2
    return number


@lru_cache(maxsize=4096)
def parse_cron(text: str) -> Cron:
    """Raises ValueError with what is wrong."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"it is longer than {MAX_LENGTH} characters")
    if text.strip().lower() == "@reboot":
        raise ValueError("@reboot is not a time: a cluster has no boot")
    if text.strip().startswith("@") and text.strip().lower() not in MACROS:
        if text.strip().lower().startswith("@every"):
            raise ValueError(f"{text.strip()} is not cron; write `every: 5m` in the place of `cron`")
        raise ValueError(f"{text.strip()} is not known; there are {', '.join(MACROS)}")
    parts = MACROS.get(text.strip().lower(), text).upper().replace("?", "*").split()
    if len(parts) not in (5, 6):
        raise ValueError(f"it has {len(parts)} fields; write five, or six with the second first")
    given_seconds = len(parts) == 6
    second, minute, hour, day, month, weekday = parts if given_seconds else ["0", *parts]
    days, from_end, nearest = _read_days(day)
    weekdays, nth = _read_weekdays(weekday)
    found = Cron(
        text=text,
        seconds=_read(second, _SECOND),
        minutes=_read(minute, _MINUTE),
        hours=_read(hour, _HOUR),
        days=days,
        months=_read(month, _MONTH),
        weekdays=weekdays,
        from_end=from_end,
        nearest=nearest,
        nth=nth,
        any_day=day.startswith("*"),
        any_weekday=weekday.startswith("*"),
        follows_clock=any(field.startswith("*") for field in (second, minute, hour)),
        given_seconds=given_seconds,
    )
    _refuse_never(found)
    return found


def _refuse_never(cron: Cron) -> None:
    """An expression that is never due is a mistake, such as the 30th of February. 28 years have every date on every weekday."""
    if not any(
        cron.matches_day(year, month, day)
        for year in range(2000, 2028)
        for month in cron.months
        for day in range(1, calendar.monthrange(year, month)[1] + 1)
    ):
        raise ValueError("no date ever matches it")


def _read(text: str, field: _Field) -> tuple[int, ...]:
    numbers: dict[int, None] = {}
    for term in text.split(","):
        numbers.update(dict.fromkeys(_read_term(term, field)))
    return tuple(sorted(numbers))


def _read_term(term: str, field: _Field) -> range:
    body, slash, step_text = term.partition("/")
    step = 1
    if slash:
        if not _is_number(step_text) or not 0 < int(step_text) <= field.high:
            raise ValueError(f"the step of {term!r} ({field.noun}) is not a number from 1 to {field.high}")
        step = int(step_text)
    if body == "*":
        high = 6 if field is _WEEKDAY else field.high
        return range(field.low, high + 1, step)
    low_text, dash, high_text = body.partition("-")
    low = _number(low_text, field, term)
    high = _number(high_text, field, term) if dash else (field.high if slash else low)
    if dash and field is _WEEKDAY and high == 0:
        high = 7
    if high < low:
        raise ValueError(f"{term!r} ({field.noun}) runs backwards; write it as two ranges")
    return range(low, high + 1, step)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 4


def _number(text: str, field: _Field, term: str) -> int:
    if text in field.names:
        return field.names.index(text) + field.base
    article = "an" if field.noun == "hour" else "a"
    if not _is_number(text):
        raise ValueError(f"{term!r} is not {article} {field.noun}")
    if not field.low <= int(text) <= field.high:
        raise ValueError(f"{term!r} is not {article} {field.noun} from {field.low} to {field.high}")
    return int(text)


def _read_days(text: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    days: list[int] = []
    from_end: list[int] = []
    nearest: list[int] = []
    for term in text.split(","):
        if term == "L":
            from_end.append(0)
        elif match := re.fullmatch(r"L-(\d{1,2})", term):
            if not 1 <= int(match[1]) <= 30:
                raise ValueError(f"{term!r} is not L-1 to L-30")
            from_end.append(int(match[1]))
        elif term in ("LW", "WL"):
            nearest.append(0)
        elif term.endswith("W"):
            nearest.append(_number(term[:-1], _DAY, term))
        else:
            days += _read_term(term, _DAY)
    return (
        tuple(sorted(dict.fromkeys(days))),
        tuple(sorted(dict.fromkeys(from_end))),
        tuple(sorted(dict.fromkeys(nearest))),
    )


def _read_weekdays(text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    weekdays: list[int] = []
    nth: list[tuple[int, int]] = []
    for term in text.split(","):
        which, hash_mark, number = term.partition("#")
        if hash_mark:
            if not _is_number(number) or not 1 <= int(number) <= 5:
                raise ValueError(f"{term!r} doesn't say which: write #1 to #5")
            nth.append((_number(which, _WEEKDAY, term) % 7, int(number)))
        elif term.endswith("L"):
            nth.append((_number(term[:-1], _WEEKDAY, term) % 7, 0))
        else:
            weekdays += [each % 7 for each in _read_term(term, _WEEKDAY)]
    return tuple(sorted(dict.fromkeys(weekdays))), tuple(sorted(dict.fromkeys(nth)))
