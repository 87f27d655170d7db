"""The values of expressions, how they are read and written, and the functions of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from hasched.model.globs import MAX_STARS, matches_glob
from hasched.model.language import LanguageError
from hasched.model.units import MAX_INTEGER

MAX_ITEMS = 20_000
MAX_JSON_DEPTH = 32

Value: TypeAlias = "bool | int | str | list[Any] | dict[str, Any] | None"


class ExpressionError(LanguageError):
    """What is wrong with an expression (`place` counts its characters from 1), or with its values (0)."""


def truth_of(value: Value) -> bool:
    if not isinstance(value, bool):
        raise ExpressionError(f"{describe(value)} is neither true nor false", 0, "compare it: `… == …`")
    return value


def number_of(value: Value) -> int:
    if type(value) is not int:
        raise ExpressionError(f"{describe(value)} is not a number", 0, "int() makes one of a text")
    return value


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise ExpressionError(f"{describe(value)} is not a text", 0, "str() makes one of a value")
    return value


def _list(value: Value) -> list[Any]:
    if isinstance(value, str):
        value = read_json(value)
    if not isinstance(value, list):
        raise ExpressionError(f"{describe(value)} is not a list")
    return value


def whole_of(text: str, place: int = 0) -> int:
    if len(text) > 16 or int(text) > MAX_INTEGER:
        raise ExpressionError(f"a number is beyond {MAX_INTEGER}", place)
    return int(text)


def describe(value: Value) -> str:
    """A value as a sentence names it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return repr(value if len(value) <= 40 else f"{value[:39]}…")
        case list():
            return f"a list of {len(value)}"
        case _:
            return "a mapping"


_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKETS = re.compile(r"[\[\]{}]")
_json = msgspec.json.Decoder(float_hook=str)
_write_json = msgspec.json.Encoder().encode


def read_json(text: str) -> Value:
    """A text as the JSON that it is. Raises ExpressionError."""
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):  # the decoder's own bound depends on who calls it
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_JSON_DEPTH:
            raise ExpressionError("JSON is nested too deeply")
    try:
        value: Value = _json.decode(text)
        _check_numbers(value)
    except (msgspec.DecodeError, UnicodeError):
        raise ExpressionError(f"{describe(text)} is not JSON") from None
    return value


def _check_numbers(value: Value) -> None:
    """As deep as JSON may be."""
    if isinstance(value, dict):
        for each in value.values():
            _check_numbers(each)
    elif isinstance(value, list):
        for each in value:
            _check_numbers(each)
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ExpressionError(f"a number is beyond {MAX_INTEGER}")


def to_text(value: Value) -> str:
    """A value as it stands in a text: lists and mappings as JSON."""
    match value:
        case str():
            return value
        case None | bool() | int():
            return "null" if value is None else str(value).lower()
        case _:
            return _write_json(value).decode()


# ── Functions ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Function(NamedTuple):
    usage: str
    least: int
    most: int
    call: Callable[[Sequence[Value]], Value]


def _length(given: Sequence[Value]) -> Value:
    value = given[0]
    if not isinstance(value, (str, list, dict)):
        raise ExpressionError(f"{describe(value)} has no length")
    return len(value)


def _int(given: Sequence[Value]) -> Value:
    value = given[0]
    if type(value) is int:
        return value
    text = _text(value).strip()
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise ExpressionError(f"{describe(value)} is not a whole number")
    return -whole_of(digits) if text.startswith("-") else whole_of(digits)


def _join(given: Sequence[Value]) -> Value:
    return _text(given[1]).join(map(to_text, _list(given[0])))


def _split(given: Sequence[Value]) -> Value:
    separator = _text(given[1])
    if not separator:
        raise ExpressionError("a text is split by a separator that isn't empty")
    return list(_text(given[0]).split(separator, MAX_ITEMS))


def _range(given: Sequence[Value]) -> Value:
    first, end = (0, number_of(given[0])) if len(given) == 1 else (number_of(given[0]), number_of(given[1]))
    if end - first > MAX_ITEMS:
        raise ExpressionError(f"a list is longer than {MAX_ITEMS}")
    return list(range(first, end))


def matches(given: Sequence[Value]) -> bool:
    pattern = _text(given[1])
    if pattern.count("*") > MAX_STARS:
        raise ExpressionError(f"a pattern has at most {MAX_STARS} stars")
    return matches_glob(_text(given[0]), pattern)


def _least(given: Sequence[Value]) -> Value:
    numbers = [number_of(each) for each in _list(given[0])]
    if not numbers:
        raise ExpressionError("an empty list has no least and no largest")
    return min(numbers)


def _largest(given: Sequence[Value]) -> Value:
    numbers = [number_of(each) for each in _list(given[0])]
    if not numbers:
        raise ExpressionError("an empty list has no least and no largest")
    return max(numbers)


def _quote(given: Sequence[Value]) -> Value:
    """As one word of a POSIX shell, whatever is in it."""
    return "'" + to_text(given[0]).replace("'", "'\"'\"'") + "'"


FUNCTIONS: Mapping[str, _Function] = {
    "len": _Function("len(VALUE)", 1, 1, _length),
    "int": _Function("int(TEXT)", 1, 1, _int),
    "ints": _Function("ints(LIST)", 1, 1, lambda given: [_int([each]) for each in _list(given[0])]),
    "str": _Function("str(VALUE)", 1, 1, lambda given: to_text(given[0])),
    "json": _Function("json(TEXT)", 1, 1, lambda given: read_json(_text(given[0]))),
    "lines": _Function("lines(TEXT)", 1, 1, lambda given: [line for line in _text(given[0]).split("\n") if line]),
    "split": _Function("split(TEXT, SEPARATOR)", 2, 2, _split),
    "join": _Function("join(LIST, SEPARATOR)", 2, 2, _join),
    "strip": _Function("strip(TEXT)", 1, 1, lambda given: _text(given[0]).strip(" \t\r\n")),
    "starts_with": _Function(
        "starts_with(TEXT, START)", 2, 2, lambda given: _text(given[0]).startswith(_text(given[1]))
    ),
    "ends_with": _Function("ends_with(TEXT, END)", 2, 2, lambda given: _text(given[0]).endswith(_text(given[1]))),
    "range": _Function("range(END) or range(FIRST, END)", 1, 2, _range),
    "min": _Function("min(LIST)", 1, 1, _least),
    "max": _Function("max(LIST)", 1, 1, _largest),
    "sum": _Function("sum(LIST)", 1, 1, lambda given: sum(number_of(each) for each in _list(given[0]))),
    "quote": _Function("quote(VALUE)", 1, 1, _quote),
}
