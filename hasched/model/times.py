"""Points in time as people write them: RFC 3339, always with an offset, for a cluster has no time zone of its own.

The system counts milliseconds since the epoch (UTC, no leap seconds), as everywhere.
"""

from __future__ import annotations

import calendar
import re

MIN_YEAR, MAX_YEAR = 1970, 2100

_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,3})0*)?)?\s*(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII
)
_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?", re.ASCII)
_LONGEST = 64
_DAY_MS = 86_400_000
_DAYS_OF_ERA = 146_097  # in 400 years
_DAYS_TO_EPOCH = 719_468  # from the 1st of March of the year 0


def looks_like_time(text: str) -> bool:
    """Whether somebody who wrote this meant a date, and not a duration."""
    return _DATE_AND_TIME.match(text[:_LONGEST].strip()) is not None


def parse_time_ms(text: str) -> int:
    """`2026-12-24T18:00:00Z` or `2026-12-24T20:00+02:00` in ms since the epoch. Raises ValueError."""
    match = _TIME.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if match is None:
        if len(text) <= _LONGEST and _DATE_AND_TIME.fullmatch(text.strip()):
            raise ValueError(f"{text!r} doesn't say in which time zone; add Z, or an offset such as +02:00")
        raise ValueError(f"{text[:_LONGEST]!r} is not a time; write it as 2026-12-24T18:00:00Z")
    year, month, day, hour, minute = (int(part) for part in match.groups()[:5])
    second = int(match[6] or 0)
    if not MIN_YEAR <= year <= MAX_YEAR:
        raise ValueError(f"the year {year} is not from {MIN_YEAR} to {MAX_YEAR}")
    if not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        raise ValueError(f"there is no such day as {match[1]}-{match[2]}-{match[3]}")
    offset_hours, offset_minutes = int(match[10] or 0), int(match[11] or 0)
    if hour > 23 or minute > 59 or second > 59 or offset_hours > 23 or offset_minutes > 59:
        raise ValueError(f"{text!r} has a part that no clock shows")
    seconds = calendar.timegm((year, month, day, hour, minute, second))
    offset_s = (offset_hours * 60 + offset_minutes) * 60
    seconds += offset_s if match[9] == "-" else -offset_s
    return max(seconds * 1000 + int((match[7] or "").ljust(3, "0")), 0)


def format_time(time_ms: int) -> str:
    """1_766_599_200_000 as `2025-12-24T18:00:00Z`; thousandths only where there are any.

    The date by the algorithm of H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    """
    days, rest_ms = divmod(time_ms, _DAY_MS)
    era, day_of_era = divmod(days + _DAYS_TO_EPOCH, _DAYS_OF_ERA)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    year = year_of_era + era * 400 + (month <= 2)
    seconds, milli = divmod(rest_ms, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    fraction = f".{milli:03d}" if milli else ""
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}{fraction}Z"
