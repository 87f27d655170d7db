"""Time zones: the IANA data of the `tzdata` package, whatever the machine has, so that managers agree.

A zone is read as pieces of constant offset: what is between two changes of its clocks.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAY_S = 86_400
_STEP_S = 3 * 3600  # no zone changes its clocks twice in so short a time
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Piece(NamedTuple):
    """From `start_s` on (UTC, s since the epoch) local time is `offset_s` ahead, until `end_s`."""

    start_s: int
    end_s: int
    offset_s: int


def data_version() -> str:
    """Of the zone data: `2026.2`."""
    return importlib.metadata.version("tzdata")


@lru_cache(maxsize=1)
def zone_names() -> tuple[str, ...]:
    """Every name that the data knows, sorted."""
    text = importlib.resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8")
    return tuple(sorted(text.split()))


@lru_cache(maxsize=1024)
def load_zone(name: str) -> ZoneInfo:
    """Raises ValueError."""
    if name not in zone_names():
        raise ValueError(f"there is no time zone {name[:64]!r}")
    place = importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    with place.open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def offset_at(name: str, time_s: int) -> int:
    """How many seconds local time is ahead of UTC."""
    return _offset(load_zone(name), time_s)


def _offset(zone: ZoneInfo, time_s: int) -> int:
    offset = (_EPOCH + timedelta(seconds=time_s)).astimezone(zone).utcoffset()
    assert offset is not None, "a zone has an offset at every time"
    return offset.days * DAY_S + offset.seconds


def pieces(name: str, after_s: int, until_s: int) -> list[Piece]:
    """What the zone's clocks show from one time to another: pieces that follow each other, the first and last cut off."""
    cuts = [after_s]
    for year in range(_year_of(after_s), _year_of(until_s) + 1):
        cuts += [change for change in _changes(name, year) if after_s < change < until_s]
    cuts.append(until_s)
    return [Piece(start, end, offset_at(name, start)) for start, end in pairwise(cuts) if start < end]


def _year_of(time_s: int) -> int:
    return (_EPOCH + timedelta(seconds=time_s)).year


@lru_cache(maxsize=8192)
def _changes(name: str, year: int) -> tuple[int, ...]:
    """When in a year (UTC) the zone's clocks are changed."""
    zone = load_zone(name)
    start = round((datetime(year, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())
    end = round((datetime(year + 1, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())
    found = []
    before = _offset(zone, start - 1)
    for low in range(start - 1, end - 1, _STEP_S):
        high = min(low + _STEP_S, end - 1)
        after = _offset(zone, high)
        if after != before:
            found.append(_bisect(zone, low, high, before))
            before = after
    return tuple(found)


def _bisect(zone: ZoneInfo, low: int, high: int, before: int) -> int:
    """The first second after `low` at which the offset isn't as before."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
    return high
