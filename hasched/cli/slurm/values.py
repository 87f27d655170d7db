"""The values of sbatch's options: times, sizes, lists of nodes, array indices. Each raises ValueError with what is wrong."""

from __future__ import annotations

import itertools
import re
from datetime import datetime
from typing import NamedTuple

from hasched.model.spec import MAX_TASKS
from hasched.timetable.zones import load_zone

MAX_NODES = 1000
MAX_LISTED = 10_000  # indices of an array that are no range
_NO_LIMIT = ("UNLIMITED", "INFINITE")
_TIME = re.compile(
    r"(?:(?P<d>\d+)-(?P<dh>\d+)(?::(?P<dm>\d+)(?::(?P<ds>\d+))?)?|(?P<a>\d+)(?::(?P<b>\d+)(?::(?P<c>\d+))?)?)"
)
_AFTER = re.compile(r"now\+(\d{1,9})(s|seconds?|m|minutes?|h|hours?|d|days?|w|weeks?)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d)?)?")
_SIZE = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")


def read_duration(text: str) -> str:
    """`30`, `30:00`, `12:00:00`, `1-12`, `2-00:30:00` as a duration of ours; `0` for no limit."""
    if text.upper() in _NO_LIMIT:
        return "0"
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time such as 30, 12:00:00 or 2-00:00:00")
    part = {key: int(value or 0) for key, value in match.groupdict().items()}
    if match["d"] is not None:
        seconds = ((part["d"] * 24 + part["dh"]) * 60 + part["dm"]) * 60 + part["ds"]
    elif match["c"] is not None:
        seconds = (part["a"] * 60 + part["b"]) * 60 + part["c"]
    else:
        seconds = part["a"] * 60 + part["b"]
    return write_seconds(seconds)


def read_moment(text: str, timezone: str) -> str:
    """`now+2hours` as `2h`, `2026-12-24T18:00` as the same with the zone's offset, to the second."""
    if (match := _AFTER.fullmatch(text)) is not None:
        unit = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}[(match[2] or "s")[0]]
        if not (seconds := int(match[1]) * unit):
            raise ValueError("it is now: leave it out")
        return write_seconds(seconds)
    if not _DATE.fullmatch(text):
        raise ValueError(f"{text!r} is neither now+2hours nor a date and time such as 2026-12-24T18:00:00")
    moment = datetime.fromisoformat(text).replace(tzinfo=load_zone(timezone))
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def write_seconds(seconds: int) -> str:
    """`1d12h`, `90s` as `1m30s`."""
    written = ""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, seconds = divmod(seconds, size)
        written += f"{amount}{unit}" if amount else ""
    return written or "0"


def read_mebibytes(text: str) -> float:
    """`4G`, `512`, `100K`: units are powers of 1024, and none is M."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 512, 4G or 1T")
    return int(match[1]) * {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2}[match[2].upper()]


def write_mebibytes(mebibytes: float) -> str:
    kibibytes = round(mebibytes * 1024)
    for unit, size in (("Ti", 1024**3), ("Gi", 1024**2), ("Mi", 1024)):
        if kibibytes % size == 0 and kibibytes:
            return f"{kibibytes // size}{unit}"
    return f"{kibibytes}Ki"


def read_number(text: str, low: int = 1) -> int:
    digits = text.lstrip("0") or text[-1:]
    if (
        not (text.isascii() and text.isdigit())
        or len(digits) > len(str(MAX_TASKS))
        or not low <= int(digits) <= MAX_TASKS
    ):
        raise ValueError(f"{text!r} is not a number from {low} to {MAX_TASKS}")
    return int(digits)


def split_outside_brackets(text: str) -> list[str]:
    """`a[1,2],b` as `a[1,2]` and `b`."""
    return [part for part in re.split(r",(?![^\[]*\])", text) if part]


def expand_nodes(text: str) -> list[str]:
    """`n[01-03,7],head` as n01, n02, n03, n7, head."""
    names: list[str] = []
    for part in split_outside_brackets(text):
        match = re.fullmatch(r"([^\[\]]*)\[([^\[\]]+)\]([^\[\]]*)", part)
        if match is None:
            if "[" in part or "]" in part or "/" in part:
                raise ValueError(f"{part!r} is not a list of nodes such as n[01-10]")
            names.append(part)
            continue
        for numbers in match[2].split(","):
            first, _, last = numbers.partition("-")
            low, high = read_number(first, 0), read_number(last or first, 0)
            if high - low >= MAX_NODES:
                raise ValueError(f"{part!r} is more than {MAX_NODES} nodes")
            names += [f"{match[1]}{number:0{len(first)}d}{match[3]}" for number in range(low, high + 1)]
    if not 0 < len(names) <= MAX_NODES:
        raise ValueError(f"it names {len(names)} nodes, and may name 1 to {MAX_NODES}")
    return names


class Array(NamedTuple):
    """The indices of an array: `first` and `step` where they are evenly spaced, else all of them in `listed`."""

    size: int
    first: int
    step: int
    listed: tuple[int, ...]
    at_once: int  # 0: no limit

    @property
    def last(self) -> int:
        return max(self.listed) if self.listed else self.first + (self.size - 1) * self.step


def read_array(text: str) -> Array:
    """`0-99%10`, `1-10:2`, `1,5,9-12`."""
    written, percent, limit = text.partition("%")
    at_once = read_number(limit) if percent else 0
    ranges: list[range] = []
    for part in written.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is not an index or a range such as 0-99 or 1-10:2")
        low = read_number(match[1], 0)
        high = read_number(match[2], 0) if match[2] else low
        if high < low:
            raise ValueError(f"{part!r} ends before it begins")
        ranges.append(range(low, high + 1, read_number(match[3]) if match[3] else 1))
    if len(ranges) == 1:
        only = ranges[0]
        if len(only) > MAX_TASKS:
            raise ValueError(f"has {len(only)} tasks, and may have {MAX_TASKS}")
        return Array(len(only), only.start, only.step, (), at_once)
    if sum(map(len, ranges)) > MAX_LISTED:
        raise ValueError(f"lists more than {MAX_LISTED} indices; write them as one range")
    listed = sorted({index: None for each in ranges for index in each})
    step = listed[1] - listed[0] if len(listed) > 1 else 1
    even = all(after - before == step for before, after in itertools.pairwise(listed))
    return Array(len(listed), listed[0], step, () if even else tuple(listed), at_once)
