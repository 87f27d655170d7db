"""Quantities: what people may write, the integers that come out, and the way back."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasched.model.units import (
    MAX_INTEGER,
    format_bytes,
    format_cpu,
    format_duration,
    parse_bytes,
    parse_cpu_milli,
    parse_duration_ms,
)

PARSERS = [parse_cpu_milli, parse_bytes, parse_duration_ms]


@pytest.mark.parametrize(
    ("written", "milli"),
    [(1, 1000), (0, 0), (1.5, 1500), ("1.5", 1500), ("500m", 500), ("0.001", 1), (0.1, 100), ("64", 64_000)],
)
def test_cpu_is_counted_in_thousandths_of_a_core(written: Any, milli: int) -> None:
    assert parse_cpu_milli(written) == milli


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (512, 512),
        (1024.0, 1024),
        ("512", 512),
        ("512Mi", 2**29),
        ("4G", 4 * 10**9),
        ("4GB", 4 * 10**9),
        ("1.5KiB", 1536),
        ("2 Gi", 2**31),
        ("1k", 1000),
    ],
)
def test_sizes_are_counted_in_bytes(written: Any, size: int) -> None:
    assert parse_bytes(written) == size


@pytest.mark.parametrize(
    ("written", "duration_ms"),
    [
        (10, 10_000),
        (0.25, 250),
        ("10s", 10_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("250ms", 250),
        ("1.5h", 5_400_000),
        ("1w", 604_800_000),
        (0, 0),
    ],
)
def test_durations_are_counted_in_milliseconds(written: Any, duration_ms: int) -> None:
    assert parse_duration_ms(written) == duration_ms


@pytest.mark.parametrize("written", ["", "-1", "x", "1x", "1_0", "٣", "9e999999", "0x10", "inf", "nan", "9" * 17, True])
@pytest.mark.parametrize("parse", PARSERS)
def test_what_is_no_quantity_is_refused(parse: Any, written: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(written)


@pytest.mark.parametrize(
    "number", [-1, -0.5, float("inf"), float("nan"), 1e300, pytest.param(10**5000, id="huge"), MAX_INTEGER + 1]
)
@pytest.mark.parametrize("parse", PARSERS)
def test_numbers_out_of_bounds_are_refused(parse: Any, number: Any) -> None:
    with pytest.raises(ValueError, match=r"zero or more|too large"):
        parse(number)


@pytest.mark.parametrize(
    ("parse", "written"),
    [
        (parse_cpu_milli, "0.0005"),
        (parse_cpu_milli, "0.5m"),
        (parse_bytes, "0.3Ki"),
        (parse_bytes, 1.5),
        (parse_duration_ms, "0.1ms"),
        (parse_duration_ms, "1.0001s"),
    ],
)
def test_nothing_is_rounded(parse: Any, written: Any) -> None:
    with pytest.raises(ValueError, match=r"finer|whole"):
        parse(written)


@given(st.integers(0, MAX_INTEGER))
def test_what_is_written_is_read_again(amount: int) -> None:
    assert parse_cpu_milli(format_cpu(amount)) == amount
    assert parse_bytes(format_bytes(amount)) == amount
    assert parse_duration_ms(format_duration(amount)) == amount


@pytest.mark.parametrize("parse", PARSERS)
@given(written=st.text(max_size=40) | st.floats() | st.integers() | st.from_regex(r"[0-9.]{1,30}(m|s|Gi|ms)?"))
def test_a_quantity_is_an_integer_or_a_value_error(parse: Any, written: Any) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= parse(written) <= MAX_INTEGER


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_cpu(2000), "2"),
        (format_cpu(1500), "1.5"),
        (format_cpu(1), "0.001"),
        (format_bytes(2**29), "512Mi"),
        (format_bytes(1000), "1000"),
        (format_bytes(0), "0"),
        (format_duration(5_400_000), "1h30m"),
        (format_duration(250), "250ms"),
        (format_duration(0), "0s"),
    ],
)
def test_the_shortest_exact_form_is_shown(text: str, expected: str) -> None:
    assert text == expected
