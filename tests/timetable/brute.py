"""Cron by brute force: a second implementation that walks over every minute of a zone's clock and shares no code with the first.

It reads expressions by itself, asks the standard library's zones for every hour (and every minute of hours in which the
clocks are changed), and knows of days on which the clocks change only one thing: the latest local time that was shown so far.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

NAMES = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
DAYS = {name: number for number, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}


def numbers(field: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    """The numbers that a field of lists, ranges and steps means."""
    found = set()
    for term in field.lower().split(","):
        span, _, step = term.partition("/")
        first, _, last = span.partition("-")
        start, end = (names.get(each, int(each) if each.isdigit() else -1) for each in (first, last))
        if first == "*":
            start, end = low, high
        elif not last:
            end = high if step else start
        found |= {number for number in range(start, end + 1) if (number - start) % int(step or 1) == 0}
    return found


def is_day(field_of_month: str, field_of_week: str, day: date) -> bool:
    """Whether a date matches the two fields about days, the month aside."""
    last = calendar.monthrange(day.year, day.month)[1]
    working = [number for number in range(1, last + 1) if date(day.year, day.month, number).isoweekday() < 6]

    def of_month(term: str) -> bool:
        match term:
            case "LW":
                return day.day == working[-1]
            case "L":
                return day.day == last
            case _ if term.startswith("L-"):
                return day.day == last - int(term[2:])
            case _ if term.endswith("W"):
                wanted = int(term[:-1])
                return wanted <= last and day.day == min(working, key=lambda each: (abs(each - wanted), each))
            case _:
                return day.day in numbers(term, 1, 31, {})

    def of_week(term: str) -> bool:
        weekday = day.isoweekday() % 7
        if "#" in term:
            which, nth = term.split("#")
            return weekday in {each % 7 for each in numbers(which, 0, 7, DAYS)} and (day.day - 1) // 7 + 1 == int(nth)
        if term.endswith("L"):
            named = {each % 7 for each in numbers(term[:-1], 0, 7, DAYS)}
            return weekday in named and (day + timedelta(days=7)).month != day.month
        return weekday in {each % 7 for each in numbers(term, 0, 7, DAYS)}

    either = [any(map(of_month, field_of_month.split(","))), any(map(of_week, field_of_week.split(",")))]
    stars = field_of_month.startswith("*") or field_of_week.startswith("*")
    return all(either) if stars else any(either)


def minutes_of(zone: ZoneInfo, start: datetime, hours: int) -> Iterator[tuple[int, int, int]]:
    """The zone's clock, piece by piece: a minute (UTC, since the epoch), the local minute that it shows, and how many follow."""
    minute = int(start.timestamp()) // 60
    offset = _offset(zone, minute)
    for _ in range(hours):
        after = _offset(zone, minute + 60)
        if after == offset:
            yield minute, minute + offset, 60
        else:
            for each in range(minute, minute + 60):
                yield each, each + _offset(zone, each), 1
        minute, offset = minute + 60, after


def _offset(zone: ZoneInfo, minute: int) -> int:
    offset = datetime.fromtimestamp(minute * 60, UTC).astimezone(zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds()) // 60


class Brute:
    """An expression of five fields over a stretch of a zone's clock."""

    def __init__(self, expression: str) -> None:
        minute, hour, self.day, month, self.weekday = expression.split()
        self.minutes = sorted(numbers(minute, 0, 59, {}))
        self.hours = numbers(hour, 0, 23, {})
        self.months = numbers(month, 1, 12, NAMES)
        self.follows = minute.startswith("*") or hour.startswith("*")
        self.known: dict[int, bool] = {}

    def _is_day(self, number: int) -> bool:
        if number not in self.known:
            day = date.fromordinal(719_163 + number)
            self.known[number] = day.month in self.months and is_day(self.day, self.weekday, day)
        return self.known[number]

    def matches(self, local: int) -> bool:
        day, rest = divmod(local, 1440)
        return rest // 60 in self.hours and rest % 60 in self.minutes and self._is_day(day)

    def slots(self, clock: list[tuple[int, int, int]]) -> list[int]:
        """The minutes (UTC) at which it is due."""
        found = []
        shown = clock[0][1] - 1
        for minute, local, count in clock:
            if self.follows or local == shown + 1:
                found += [minute + each - local for each in self._matching(local, count)]
            else:
                for each in range(count):
                    passed = range(shown + 1, local + each + 1)
                    if any(map(self.matches, passed)):
                        found.append(minute + each)
                    shown = max(shown, local + each)
            shown = max(shown, local + count - 1)
        return found

    def _matching(self, local: int, count: int) -> Iterator[int]:
        """The local minutes from one on that match."""
        day, rest = divmod(local, 1440)
        whole_hours = count == 60 and rest % 60 == 0
        if whole_hours and (rest // 60 not in self.hours or not self._is_day(day)):
            return
        if whole_hours:
            yield from (local + each for each in self.minutes)
        else:
            yield from (each for each in range(local, local + count) if self.matches(each))
