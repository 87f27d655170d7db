"""Expressions: small questions over parameters and what tasks of a workflow have left, and `#{…}` in texts.

    extract.state == succeeded and extract.output.rows > 1000
    "#{params.day}.csv"     "#{len(lines(split.output))} parts"

A value is a text, a whole number, true or false, a list, a mapping, or null. There are no fractions (a JSON number with one
is its text), no loops, no assignment, and nothing is called but the functions below. So every expression ends, with the same
value or the same error on every manager for ever: it is evaluated while the log is applied (ADR 0024).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple, TypeAlias, assert_never

from hasched.model.kinds import suggest
from hasched.model.language import Cursor, Token
from hasched.model.units import MAX_INTEGER
from hasched.model.values import (
    FUNCTIONS,
    MAX_ITEMS,
    ExpressionError,
    Value,
    describe,
    matches,
    number_of,
    read_json,
    to_text,
    truth_of,
    whole_of,
)

MAX_EXPRESSION_CHARS = 2048
MAX_DEPTH = 20
MAX_TEXT_CHARS = 512 * 1024  # that an expression may make

Names: TypeAlias = Callable[[str], Value]  # what a name stands for; raises ExpressionError where it stands for nothing

_TASK_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_WORDS = ("and", "or", "not", "in", "matches", "true", "false", "null")
ROOTS = ("params", "item", "index", "execution")


class Constant(NamedTuple):
    value: Value


class Name(NamedTuple):
    name: str
    place: int


class Items(NamedTuple):
    parts: tuple[Expression, ...]


class Step(NamedTuple):
    """`.key`, or `[part]`."""

    key: str
    part: Expression | None


class Path(NamedTuple):
    base: Expression
    steps: tuple[Step, ...]


class Called(NamedTuple):
    function: str
    parts: tuple[Expression, ...]


class Not(NamedTuple):
    part: Expression


class Minus(NamedTuple):
    part: Expression


class Chain(NamedTuple):
    """`first`, and then one operator with its right side after the other, from the left."""

    first: Expression
    rest: tuple[tuple[str, Expression], ...]


class Every(NamedTuple):
    parts: tuple[Expression, ...]


class Some(NamedTuple):
    parts: tuple[Expression, ...]


Expression: TypeAlias = Constant | Name | Items | Path | Called | Not | Minus | Chain | Every | Some


def is_task_name(name: str) -> bool:
    """Whether a task may be called so: it can stand in an expression, and means nothing else there."""
    return _TASK_NAME.fullmatch(name) is not None and name not in _WORDS and name not in ROOTS


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<number>[0-9]+)|(?P<word>[A-Za-z_][A-Za-z0-9_-]*)"""
    r"""|(?P<sign>==|!=|<=|>=|[<>()\[\],.+*/%-])|(?P<bad>\S))"""
)
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in", "matches")


def _hint_for(sign: str) -> str:
    return "equality is written ==" if sign == "=" else "write a text in quotes"


@lru_cache(maxsize=4096)
def parse(text: str) -> Expression:
    """Raises ExpressionError, which names the place."""
    if len(text) > MAX_EXPRESSION_CHARS:
        raise ExpressionError(f"it is longer than {MAX_EXPRESSION_CHARS} characters", MAX_EXPRESSION_CHARS)
    return _Parser(text).parse()


class _Parser:
    """Recursive descent, as deep as MAX_DEPTH parentheses, brackets, calls and signs."""

    def __init__(self, text: str) -> None:
        self._tokens = Cursor(text, _TOKEN, ExpressionError, _hint_for)
        self._depth = 0

    def parse(self) -> Expression:
        expression = self._some()
        token = self._tokens.peek()
        if token.kind != "end":
            raise ExpressionError(f"{token.text!r} follows a whole expression", token.place)
        return expression

    def _some(self) -> Expression:
        parts = [self._every()]
        while self._tokens.take("or"):
            parts.append(self._every())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _every(self) -> Expression:
        parts = [self._negation()]
        while self._tokens.take("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _negation(self) -> Expression:
        self._enter()
        expression: Expression = Not(self._negation()) if self._tokens.take("not") else self._comparison()
        self._depth -= 1
        return expression

    def _comparison(self) -> Expression:
        left = self._sum()
        token = self._tokens.peek()
        operator = token.text if token.kind in ("sign", "word") else ""
        if operator == "not" and self._tokens.peek(1).text == "in":
            self._tokens.advance()
            operator = "not in"
        if operator not in _COMPARISONS:
            return left
        self._tokens.advance()
        compared = Chain(left, ((operator, self._sum()),))
        if self._tokens.peek().text in _COMPARISONS and self._tokens.peek().kind != "quoted":
            raise ExpressionError("comparisons don't follow each other", self._tokens.peek().place, "join two by `and`")
        return compared

    def _sum(self) -> Expression:
        return self._chain(self._product, ("+", "-"))

    def _product(self) -> Expression:
        return self._chain(self._unary, ("*", "/", "%"))

    def _chain(self, part: Callable[[], Expression], signs: tuple[str, ...]) -> Expression:
        first = part()
        rest = []
        while self._tokens.peek().kind == "sign" and self._tokens.peek().text in signs:
            rest.append((self._tokens.advance().text, part()))
        return Chain(first, tuple(rest)) if rest else first

    def _unary(self) -> Expression:
        if not self._tokens.take("-"):
            return self._path()
        self._enter()
        part = self._unary()
        self._depth -= 1
        return Constant(-part.value) if isinstance(part, Constant) and type(part.value) is int else Minus(part)

    def _path(self) -> Expression:
        base = self._primary()
        steps: list[Step] = []
        while True:
            if self._tokens.take("."):
                token = self._tokens.advance()
                if token.kind not in ("word", "number"):
                    raise ExpressionError(f"a key must follow the dot, not {token.text!r}", token.place)
                steps.append(Step(token.text, None))
            elif self._tokens.take("["):
                steps.append(Step("", self._some()))
                self._tokens.expect("]")
            else:
                return Path(base, tuple(steps)) if steps else base

    def _primary(self) -> Expression:
        self._enter()
        token = self._tokens.advance()
        expression: Expression
        match token.kind:
            case "quoted":
                expression = Constant(token.text)
            case "number":
                expression = Constant(whole_of(token.text, token.place))
            case "word" if token.text in ("true", "false", "null"):
                expression = Constant({"true": True, "false": False, "null": None}[token.text])
            case "word" if token.text in _WORDS:
                raise ExpressionError(f"a value must stand here, not {token.text!r}", token.place)
            case "word" if self._tokens.take("("):
                expression = self._call(token)
            case "word":
                expression = Name(token.text, token.place)
            case "sign" if token.text == "(":
                expression = self._some()
                self._tokens.expect(")")
            case "sign" if token.text == "[":
                expression = Items(self._list("]"))
            case _:
                raise ExpressionError(f"a value must stand here, not {token.text!r}", token.place)
        self._depth -= 1
        return expression

    def _call(self, token: Token) -> Expression:
        function = FUNCTIONS.get(token.text)
        if function is None:
            hint = suggest(token.text, FUNCTIONS) or f"there are: {', '.join(FUNCTIONS)}"
            raise ExpressionError(f"there is no function {token.text}", token.place, hint)
        parts = self._list(")")
        if not function.least <= len(parts) <= function.most:
            raise ExpressionError(f"{token.text} is written {function.usage}", token.place)
        return Called(token.text, parts)

    def _list(self, end: str) -> tuple[Expression, ...]:
        parts: list[Expression] = []
        if self._tokens.take(end):
            return ()
        while True:
            parts.append(self._some())
            if not self._tokens.take(","):
                self._tokens.expect(end)
                return tuple(parts)

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError("it is nested too deeply", self._tokens.peek().place)


def names_in(expression: Expression) -> Iterator[tuple[Name, str]]:
    """Every name of it, with the key that follows by a dot, empty if none does."""
    match expression:
        case Constant():
            return
        case Name():
            yield expression, ""
        case Path(Name() as base, steps):
            yield base, steps[0].key
            for step in steps:
                if step.part is not None:
                    yield from names_in(step.part)
        case Path(base, steps):
            yield from names_in(base)
            for step in steps:
                if step.part is not None:
                    yield from names_in(step.part)
        case Items(parts) | Called(_, parts) | Every(parts) | Some(parts):
            for part in parts:
                yield from names_in(part)
        case Not(part) | Minus(part):
            yield from names_in(part)
        case Chain(first, rest):
            yield from names_in(first)
            for _, part in rest:
                yield from names_in(part)
        case _:
            assert_never(expression)


# ── Evaluating ──────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluate(text: str, names: Names) -> Value:
    """The value of an expression. Raises ExpressionError."""
    return value_of(parse(text), names)


def holds(text: str, names: Names) -> bool:
    """Whether a condition is true. Raises ExpressionError, also if it is neither true nor false."""
    value = evaluate(text, names)
    if not isinstance(value, bool):
        raise ExpressionError(f"it is {describe(value)}, and must be true or false")
    return value


def value_of(expression: Expression, names: Names) -> Value:
    """Raises ExpressionError."""
    match expression:
        case Constant(value):
            return value
        case Name(name, _):
            return names(name)
        case Items(parts):
            return [value_of(part, names) for part in parts]
        case Path(base, steps):
            value = value_of(base, names)
            for step in steps:
                value = _step(value, step.key if step.part is None else value_of(step.part, names))
            return value
        case Called(function, parts):
            return _bounded(FUNCTIONS[function].call([value_of(part, names) for part in parts]))
        case Not(part):
            return not truth_of(value_of(part, names))
        case Minus(part):
            return _bounded(-number_of(value_of(part, names)))
        case Every(parts):
            return all(truth_of(value_of(part, names)) for part in parts)
        case Some(parts):
            return any(truth_of(value_of(part, names)) for part in parts)
        case Chain(first, rest):
            value = value_of(first, names)
            for operator, part in rest:
                value = _bounded(_operate(operator, value, value_of(part, names)))
            return value
        case _:
            assert_never(expression)


def _step(value: Value, key: Value) -> Value:
    if isinstance(value, str):
        value = read_json(value)
    if isinstance(value, dict) and isinstance(key, str):
        if key not in value:
            raise ExpressionError(f"there is no {key!r} in it", 0, suggest(key, value))
        return value[key]  # type: ignore[no-any-return]
    if isinstance(value, list):
        number = int(key) if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 9 else key
        if type(number) is int:
            if not -len(value) <= number < len(value):
                raise ExpressionError(f"there is no number {number} in a list of {len(value)}")
            return value[number]  # type: ignore[no-any-return]
    raise ExpressionError(f"{describe(value)} has no {to_text(key)[:60]!r}")


def _operate(operator: str, left: Value, right: Value) -> Value:
    match operator:
        case "==":
            return _same(left, right)
        case "!=":
            return not _same(left, right)
        case "in":
            return _contains(right, left)
        case "not in":
            return not _contains(right, left)
        case "matches":
            return matches([left, right])
        case "<" | "<=" | ">" | ">=":
            return _compare(operator, left, right)
        case "+" if isinstance(left, str) and isinstance(right, str):
            return left + right
        case "+" if isinstance(left, list) and isinstance(right, list):
            return left + right
    one, other = number_of(left), number_of(right)
    match operator:
        case "+":
            return one + other
        case "-":
            return one - other
        case "*":
            return one * other
        case _:
            if not other:
                raise ExpressionError("a division by 0")
            return one // other if operator == "/" else one % other


def _same(left: Value, right: Value) -> bool:
    """Equal and of one type: true is not 1."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    return type(left) is type(right) and left == right


def _compare(operator: str, left: Value, right: Value) -> bool:
    if not (type(left) is int and type(right) is int) and not (isinstance(left, str) and isinstance(right, str)):
        raise ExpressionError(
            f"{describe(left)} and {describe(right)} have no order", 0, "int() makes a number of a text"
        )
    order = (left > right) - (left < right)  # type: ignore[operator]
    return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[operator]


def _contains(whole: Value, part: Value) -> bool:
    if isinstance(whole, str) and isinstance(part, str):
        return part in whole
    if isinstance(whole, dict):
        return isinstance(part, str) and part in whole
    if isinstance(whole, list):
        return any(_same(part, each) for each in whole)
    raise ExpressionError(f"{describe(part)} can't be in {describe(whole)}")


def _bounded(value: Value) -> Value:
    """What an expression makes is small, so that no number of them together is large."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ExpressionError(f"a number is beyond {MAX_INTEGER}")
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
        raise ExpressionError(f"a text is longer than {MAX_TEXT_CHARS} characters")
    if isinstance(value, list) and len(value) > MAX_ITEMS:
        raise ExpressionError(f"a list is longer than {MAX_ITEMS}")
    return value
