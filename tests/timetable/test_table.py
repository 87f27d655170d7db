"""Cron semantics against a second implementation. `scripts/prove cron` has the whole table: ten years, every zone."""

from __future__ import annotations

import pytest

from tests.timetable.table import EXPRESSIONS, MIDNIGHT_AND_OTHERS, differences


@pytest.mark.parametrize("zone", MIDNIGHT_AND_OTHERS)
def test_both_find_the_same_slots_for_a_year(zone: str) -> None:
    assert differences(zone, EXPRESSIONS[1:], 2026, 2026)[1] == []


@pytest.mark.parametrize(
    ("zone", "year"),
    [("Pacific/Apia", 2011), ("Asia/Pyongyang", 2018), ("Europe/Volgograd", 2018), ("America/Caracas", 2016)],
)
def test_a_day_that_is_left_out_and_changes_of_half_an_hour(zone: str, year: int) -> None:
    assert differences(zone, EXPRESSIONS[1:], year, year)[1] == []
