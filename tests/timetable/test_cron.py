"""Cron expressions: what is read, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hasched.timetable.cron import parse_cron
from hasched.timetable.slots import cron_slots


def due(expression: str, first: str, count: int, zone: str = "UTC") -> list[str]:
    start = round(datetime.fromisoformat(f"{first}+00:00").timestamp())
    found = cron_slots(parse_cron(expression), zone, start, start + 3000 * 86_400)
    return [datetime.fromtimestamp(next(found), UTC).strftime("%Y-%m-%d %H:%M:%S") for _ in range(count)]


@pytest.mark.parametrize(
    ("expression", "slots"),
    [
        (
            "*/20 5 * * * *",
            ["2026-01-01 00:05:00", "2026-01-01 00:05:20", "2026-01-01 00:05:40", "2026-01-01 01:05:00"],
        ),
        ("0 9 * * Mon-fri", ["2026-01-01 09:00:00", "2026-01-02 09:00:00", "2026-01-05 09:00:00"]),
        ("0 0 ? FEB-mar/1 sat", ["2026-02-07 00:00:00", "2026-02-14 00:00:00"]),
        ("0 0 29 2 *", ["2028-02-29 00:00:00", "2032-02-29 00:00:00"]),
        ("0 0 L 2 *", ["2026-02-28 00:00:00", "2027-02-28 00:00:00", "2028-02-29 00:00:00"]),
        ("0 0 15W 2,3,8 *", ["2026-02-16 00:00:00", "2026-03-16 00:00:00", "2026-08-14 00:00:00"]),
        ("0 0 1W 8,11 *", ["2026-08-03 00:00:00", "2026-11-02 00:00:00"]),
        ("0 0 31W 5,10 *", ["2026-05-29 00:00:00", "2026-10-30 00:00:00"]),
        ("0 0 * * fri#5", ["2026-01-30 00:00:00", "2026-05-29 00:00:00"]),
        ("0 0 * * 0#1,friL", ["2026-01-04 00:00:00", "2026-01-30 00:00:00", "2026-02-01 00:00:00"]),
        ("0 0 13 * fri", ["2026-01-02 00:00:00", "2026-01-09 00:00:00", "2026-01-13 00:00:00"]),
        ("0 0 1 * sat-7", ["2026-01-01 00:00:00", "2026-01-03 00:00:00", "2026-01-04 00:00:00"]),
        ("@weekly", ["2026-01-04 00:00:00"]),
        ("5/20 0 1 1 *", ["2026-01-01 00:05:00", "2026-01-01 00:25:00", "2026-01-01 00:45:00"]),
    ],
)
def test_when_an_expression_is_due(expression: str, slots: list[str]) -> None:
    assert due(expression, "2026-01-01", len(slots)) == slots


@pytest.mark.parametrize(
    ("expression", "cause"),
    [
        ("* * * *", "4 fields"),
        ("60 * * * *", "minute from 0 to 59"),
        ("* 24 * * *", "hour from 0 to 23"),
        ("* * 0 * *", "day of the month from 1"),
        ("* * * 13 *", "month from 1"),
        ("* * * * 8", "day of the week"),
        ("* * * * fry", "not a day of the week"),
        ("*/0 * * * *", "step"),
        ("*/60 * * * *", "step"),
        ("5-1 * * * *", "backwards"),
        ("1,,2 * * * *", "not a minute"),
        ("0 0 31 2,4 *", "no date"),
        ("0 0 30W 2 *", "no date"),
        ("* * * * mon#6", "#1 to #5"),
        ("* * L-31 * *", "L-1 to L-30"),
        ("@reboot", "no boot"),
        ("@every 5m", "write `every: 5m`"),
        ("0 24 * * *", "is not an hour from 0 to 23"),
        ("@often", "not known"),
        ("1" * 300, "longer"),
        ("٣ * * * *", "not a minute"),
    ],
)
def test_what_is_none(expression: str, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        parse_cron(expression)
