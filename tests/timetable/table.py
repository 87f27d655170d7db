"""The table of cron semantics: expressions x zones x years, both implementations side by side.

`python -m tests.timetable.table [FIRST_YEAR LAST_YEAR]` compares them over ten years in every zone whose clocks are changed.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hasched.timetable.cron import parse_cron
from hasched.timetable.slots import cron_slots
from hasched.timetable.zones import load_zone, pieces, zone_names
from tests.timetable.brute import Brute, minutes_of

EXPRESSIONS = (
    "* * * * *",
    "*/15 * * * *",
    "7 */2 * * *",
    "*/20 0-3 * * *",
    "30 2 * * *",
    "0,30 1,2,3 * * *",
    "59 23 * * *",
    "0 0 * * *",
    "15 0,1 * * mon-fri",
    "30 1 L * *",
    "0 12 15W * *",
    "30 2 LW mar,oct *",
    "45 1 * * sun#1",
    "45 2 * * 7L",
    "30 2 1-7,25-31 3,10,11 sun",
    "5 4 L-2 */2 *",
)
MIDNIGHT_AND_OTHERS = (
    "America/Santiago",
    "Asia/Beirut",
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Havana",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Gaza",
    "Pacific/Apia",
    "Asia/Pyongyang",
)


def changing_zones(first_year: int, last_year: int) -> dict[str, list[str]]:
    """Zones whose clocks are changed in these years, by the first of those that show the same."""
    start, end = (round(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (first_year, last_year + 1))
    alike: dict[tuple[tuple[int, int, int], ...], list[str]] = {}
    for name in zone_names():
        shown = tuple(pieces(name, start, end))
        if len(shown) > 1:
            alike.setdefault(shown, []).append(name)
    return {names[0]: names for names in alike.values()}


def differences(zone: str, expressions: tuple[str, ...], first_year: int, last_year: int) -> tuple[int, list[str]]:
    """How many slots were compared, and a sentence for each that only one implementation has."""
    start, end = (datetime(year, 1, 1, tzinfo=UTC) for year in (first_year, last_year + 1))
    first = round(start.timestamp())
    hours = round((end - start).total_seconds()) // 3600
    walked = list(minutes_of(load_zone(zone), datetime.fromtimestamp(first - 4 * 86_400, UTC), hours + 96))
    compared, found = 0, []
    for expression in expressions:
        expected = [minute * 60 for minute in Brute(expression).slots(walked) if minute * 60 >= first]
        slots = list(cron_slots(parse_cron(expression), zone, first, round(end.timestamp()) - 1))
        compared += len(slots)
        if slots != expected:
            one = sorted(set(slots) ^ set(expected))[:3]
            found.append(f"{expression} in {zone}: {[datetime.fromtimestamp(each, ZoneInfo('UTC')) for each in one]}")
    return compared, found


def main() -> int:
    first_year, last_year = (int(each) for each in sys.argv[1:3]) if len(sys.argv) > 2 else (2020, 2029)
    zones = changing_zones(first_year, last_year)
    began, total, wrong = time.monotonic(), 0, 0
    for zone in zones:
        compared, found = differences(zone, EXPRESSIONS, first_year, last_year)
        total, wrong = total + compared, wrong + len(found)
        for sentence in found:
            print(sentence)
    names = sum(map(len, zones.values()))
    print(
        f"{len(EXPRESSIONS)} expressions, {names} zones ({len(zones)} different clocks), {first_year} to {last_year}: "
        f"{total} slots, {wrong} differences, {time.monotonic() - began:.0f} s"
    )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
