"""Quantities as people write them, and the integers that the system computes with.

CPU is counted in thousandths of a core, memory and storage in bytes, time in milliseconds. A quantity that can't be
represented exactly is refused rather than rounded: `0.0005` of a core is an error, not zero.
"""

from __future__ import annotations

import re
from decimal import Decimal

MAX_QUANTITY_CHARS = 64
GIB = 2**30
HOUR_MS = 3_600_000
MAX_INTEGER = 2**53 - 1  # the largest integer that every JSON reader keeps exactly

_BYTE_UNITS = {
    "": 1, "B": 1,
    "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50,
}  # fmt: skip
_DURATION_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DIGITS = (
    r"[0-9]{1,20}(?:\.[0-9]{1,9})?"  # So few that Decimal's 28 digits hold every product below MAX_INTEGER exactly.
)
_NUMBER = re.compile(f"-?{_DIGITS}")
_QUANTITY = re.compile(rf"({_DIGITS})\s*([A-Za-z]*)")
_DURATION = re.compile(rf"(?:{_DIGITS}(?:ms|[smhdw]))+")
_DURATION_PART = re.compile(rf"({_DIGITS})(ms|[smhdw])")


class TooLarge(ValueError):
    """More than any quantity may be."""


def parse_cpu_milli(value: str | int | float) -> int:
    """CPU cores as thousandths: `1.5`, `"1.5"` and `"1500m"` are 1500. Raises ValueError."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.removesuffix("m")) is None:
        raise ValueError(f"{value!r} is not a number of cores; write it as 2, 0.5 or 500m")
    milli = _number(value[:-1]) if isinstance(value, str) and value.endswith("m") else _number(value) * 1000
    return _whole(milli, f"CPU {value!r} is finer than a thousandth of a core")


def parse_bytes(value: str | int | float) -> int:
    """A size in bytes: `512Mi` is 2**29, `4G` is 4 * 10**9, a plain integer is bytes. Raises ValueError."""
    if isinstance(value, int | float):
        return _whole(_number(value), f"size {value!r} is not a whole number of bytes")
    match = _QUANTITY.fullmatch(value.strip())
    if match is None or match[2] not in _BYTE_UNITS:
        raise ValueError(f"{value!r} is not a size; write it as 512Mi, 4G or a number of bytes")
    return _whole(_number(match[1]) * _BYTE_UNITS[match[2]], f"size {value!r} is not a whole number of bytes")


def parse_duration_ms(value: str | int | float) -> int:
    """A duration in milliseconds: `10s`, `5m`, `1h30m`, `250ms`; a plain number is seconds. Raises ValueError."""
    if isinstance(value, int | float):
        return _whole(_number(value) * 1000, f"duration {value!r} is finer than a millisecond")
    text = value.strip()
    if _DURATION.fullmatch(text) is None:
        raise ValueError(f"{value!r} is not a duration; write it as 10s, 5m or 1h30m")
    total = sum(
        (Decimal(number) * _DURATION_UNITS_MS[unit] for number, unit in _DURATION_PART.findall(text)), Decimal()
    )
    return _whole(total, f"duration {value!r} is finer than a millisecond")


def is_duration(text: str) -> bool:
    """Whether somebody who wrote this meant a duration."""
    return len(text) <= MAX_QUANTITY_CHARS and _DURATION.fullmatch(text.strip()) is not None


def parse_micro(value: str | int | float) -> int:
    """An amount of money as millionths: `0.04` is 40000. Raises ValueError."""
    return _whole(_number(value) * 1_000_000, f"{value!r} is finer than a millionth")


def format_micro(micro: int) -> str:
    """40000 as `0.04`."""
    whole, rest = divmod(micro, 1_000_000)
    return str(whole) if not rest else f"{whole}.{rest:06d}".rstrip("0")


def format_cpu(cpu_milli: int) -> str:
    """1500 as `1.5`, 2000 as `2`."""
    whole, rest = divmod(cpu_milli, 1000)
    return str(whole) if not rest else f"{whole}.{rest:03d}".rstrip("0")


def format_bytes(size_bytes: int) -> str:
    """The shortest exact binary form: 2**29 as `512Mi`, 1000 as `1000`."""
    for unit, factor in (("Pi", 2**50), ("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def format_duration(duration_ms: int) -> str:
    """The shortest exact form: 5_400_000 as `1h30m`, 250 as `250ms`, 0 as `0s`."""
    parts = []
    for unit, factor in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, duration_ms = divmod(duration_ms, factor)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _number(value: str | int | float) -> Decimal:
    if isinstance(value, bool) or (isinstance(value, str) and _NUMBER.fullmatch(value) is None):
        raise ValueError(f"{value!r} is not a number")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:  # Before it is text: writing a long integer out is slow.
        raise TooLarge("the number is too large")
    number = Decimal(str(value))
    if not number.is_finite() or number < 0:
        raise ValueError(f"{value!r} must be zero or more")
    return number


def _whole(number: Decimal, complaint: str) -> int:
    if number > MAX_INTEGER:
        raise TooLarge("the number is too large")
    if number != number.to_integral_value():
        raise ValueError(complaint)
    return int(number)
