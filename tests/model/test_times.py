"""Times as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasched.model.times import format_time, looks_like_time, parse_time_ms

MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2100, 12, 30))


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026-12-24T18:00:00Z", "2026-12-24T18:00:00+00:00"),
        ("2026-12-24t18:00z", "2026-12-24T18:00:00+00:00"),
        ("2026-12-24 20:30:01.25+02:30", "2026-12-24T18:00:01.250+00:00"),
        ("2026-12-24T10:00:00-08:00", "2026-12-24T18:00:00+00:00"),
        ("2024-02-29T00:00:00.001000Z", "2024-02-29T00:00:00.001+00:00"),
    ],
)
def test_a_time_is_read(text: str, iso: str):
    assert parse_time_ms(text) == round(datetime.fromisoformat(iso).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("2026-12-24T18:00:00", "time zone"),
        ("2026-12-24", "time zone"),
        ("tomorrow", "is not a time"),
        ("2026-02-29T00:00:00Z", "no such day"),
        ("2026-13-01T00:00:00Z", "no such day"),
        ("2026-12-24T24:00:00Z", "no clock shows"),
        ("2026-12-24T18:00:00+24:00", "no clock shows"),
        ("2026-12-24T18:00:00.0001Z", "is not a time"),
        ("1969-12-31T23:59:59Z", "the year 1969"),
        ("２０26-12-24T18:00:00Z", "is not a time"),
        ("1" * 1000, "is not a time"),
    ],
)
def test_what_is_no_time_is_refused(text: str, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        parse_time_ms(text)


@given(MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_reading_agrees_with_the_standard_library(moment: datetime, offset_minutes: int):
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
    shown = moment.astimezone(timezone(timedelta(minutes=offset_minutes))).isoformat()
    assert parse_time_ms(shown) == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@given(MOMENTS)
def test_writing_is_the_reverse_of_reading(moment: datetime):
    time_ms = (moment - datetime(1970, 1, 1)) // timedelta(milliseconds=1)
    assert parse_time_ms(format_time(time_ms)) == time_ms
    assert datetime.fromisoformat(format_time(time_ms)).replace(tzinfo=None) == moment.replace(
        microsecond=moment.microsecond // 1000 * 1000
    )


@pytest.mark.parametrize(("text", "is_one"), [("2026-12-24", True), ("2026-12-24T18:00", True), ("90m", False)])
def test_a_date_is_told_from_a_duration(text: str, is_one: bool):
    assert looks_like_time(text) is is_one
