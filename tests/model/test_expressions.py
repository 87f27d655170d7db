"""Expressions and texts that hold them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasched.model.expressions import MAX_DEPTH, evaluate, holds, is_task_name, names_in, parse
from hasched.model.globs import matches_glob
from hasched.model.interpolation import escape, fill
from hasched.model.kinds import Problems
from hasched.model.parameters import Filling
from hasched.model.values import ExpressionError

KNOWN: dict[str, Any] = {
    "params": {"n": 3, "day": "monday", "on": True},
    "extract": {
        "output": '{"rows": 12, "files": ["a", "b"], "rate": 0.25, "deep": [{"x": null}]}',
        "state": "succeeded",
    },
    "each": {"outputs": ["1", None, "3"]},
    "item": [1, "two"],
}


def names(name: str) -> Any:
    if name not in KNOWN:
        raise ExpressionError(f"there is no {name}")
    return KNOWN[name]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3 - 4", 3),
        ("(1 + 2) * 3 == 9 and not false", True),
        ("-7 / 2", -4),
        ("7 % 3", 1),
        ("extract.output.rows > 10", True),
        ("extract.output.files[-1]", "b"),
        ("extract.output.files.0 + '!'", "a!"),
        ("extract.output.rate", "0.25"),
        ("extract.output.deep[0]['x']", None),
        ("extract.state in ['failed', 'succeeded']", True),
        ("'on' not in params.day", False),
        ("params.day matches 'mo*y'", True),
        ("true == 1", False),
        ("[1, 'a'] == [1, 'a']", True),
        ("join(['a', 1, true], '-')", "a-1-true"),
        ("lines('a\nb\n')", ["a", "b"]),
        ("int(' -12 ') + sum([1, 2])", -9),
        ("sum(ints(split('1,2', ',')))", 3),
        ("ints([2, '3 '])", [2, 3]),
        ("range(1, 4)", [1, 2, 3]),
        ("max([3, 1]) - min([3, 1])", 2),
        ('quote("it\'s")', "'it'\"'\"'s'"),
        ("json('[1]')[0]", 1),
        ("false and missing.x", False),
        ("true or missing.x", True),
        ("len(extract.output) > 0", True),
    ],
)
def test_values(text: str, value: Any) -> None:
    found = evaluate(text, names)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("1 / 0", "a division by 0"),
        ("missing.x", "there is no missing"),
        ("extract.output.row", "there is no 'row' in it"),
        ("params.day.x", "'monday' is not JSON"),
        ("1 < 'a'", "1 and 'a' have no order"),
        ("not 1", "1 is neither true nor false"),
        ("9007199254740991 + 1", "a number is beyond"),
        ("range(1000000)", "a list is longer than"),
        ("json('[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[')", "nested too deeply"),
        ("json('1e999999')", None),
        ("sum(each.outputs)", "'1' is not a number"),
        ("ints(['1', 'x'])", "'x' is not a whole number"),
        ("ints(each.outputs)", "null is not a text"),
    ],
)
def test_what_has_no_value_says_why(text: str, cause: str | None) -> None:
    if cause is None:
        assert evaluate(text, names) == "1e999999"
        return
    with pytest.raises(ExpressionError, match=cause.replace("'", ".")):
        evaluate(text, names)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("1 +", 4),
        ("a == b == c", 8),
        ("a = 1", 3),
        ("foo(1)", 1),
        ("len()", 1),
        ("(1", 3),
        ("[1,", 4),
        ("and", 1),
        ("a.", 3),
        ("99999999999999999", 1),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, place: int) -> None:
    with pytest.raises(ExpressionError) as found:
        parse(text)
    assert found.value.place == place


def test_nothing_nests_deeper_than_the_bound() -> None:
    for one, other in (("(", ")"), ("not ", ""), ("-", ""), ("[", "]"), ("len(", ")")):
        with pytest.raises(ExpressionError, match="nested too deeply"):
            parse(one * (MAX_DEPTH + 1) + "1" + other * (MAX_DEPTH + 1))
    assert evaluate("1" + " + 1" * 400, names) == 401  # a chain is no nest


def test_conditions_are_true_or_false() -> None:
    assert holds("params.on", names)
    with pytest.raises(ExpressionError, match="must be true or false"):
        holds("params.n", names)


def test_names_of_an_expression() -> None:
    found = [(name.name, key) for name, key in names_in(parse("a.output + len(b['x'])"))]
    assert found == [("a", "output"), ("b", "")]
    assert is_task_name("load-2")
    assert not any(map(is_task_name, ("2load", "params", "not", "a.b", "")))


@given(st.text(max_size=60))
def test_any_text_has_a_value_or_an_error(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        evaluate(text, names)


@given(st.text(alphabet="#{}'ab", max_size=12))
def test_an_escaped_text_means_itself(text: str) -> None:
    assert fill(escape(text), names, 1000) == text


def test_texts_are_filled() -> None:
    assert fill("#{params.n} of #{params.day}, ##{x}, #{'}'}", names, 1000) == "3 of monday, #{x}, }"
    assert fill("#{item}", names, 1000) == '[1,"two"]'
    for text, cause in (("#{params.n", "has no `}`"), ("#{1 +}", "at character 6"), ("#{each.outputs[1]}", "is null")):
        with pytest.raises(ExpressionError, match=cause):
            fill(text, names, 1000)
    with pytest.raises(ExpressionError, match="longer than 2"):
        fill("#{params.day}", names, 2)


@given(st.text(alphabet="#{}'a", max_size=8), st.text(alphabet="#{}'a", max_size=8))
def test_no_value_of_a_parameter_becomes_an_expression(value: str, before: str) -> None:
    """Whatever stands around it: what is filled in first means itself when the rest is filled in."""
    problems = Problems()
    before = before.rstrip("#")
    template = escape(before) + "#{params.v}" + "{item}" + "#{item}" + "#{params.v}"
    filled = Filling({"v": value}, {}, problems).fill_job({"script": template}, {})["script"]
    assert not problems
    assert fill(filled, lambda name: "ITEM", 1000) == f"{before}{value}{{item}}ITEM{value}"


@pytest.mark.parametrize(
    ("text", "pattern", "matches"),
    [
        ("abc", "a*c", True),
        ("abc", "a?c", True),
        ("ac", "a?c", False),
        ("abab", "*ab", True),
        ("aba", "ab*ba", False),
        ("", "*", True),
        ("a.b", "a.b", True),
        ("axb", "a.b", False),
        ("xaybz", "*a?b*", True),
        ("aab", "*a?*b", True),
    ],
)
def test_globs(text: str, pattern: str, matches: bool) -> None:
    assert matches_glob(text, pattern) is matches
