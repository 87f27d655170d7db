"""Expressions: small questions over parameters and what tasks of a workflow have left, and `#{…}` in texts.

    extract.state == succeeded and extract.output.rows > 1000
    "#{params.day}.csv"     "#{len(lines(split.output))} parts"

A value is a text, a whole number, true or false, a list, a mapping, or null. There are no fractions (a JSON number with one
is its text), no loops, no assignment, and nothing is called but the functions below. So every expression ends, with the same
value or the same error on every manager for ever: it is evaluated while the log is applied (ADR 0024).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, assert_never

import msgspec

from hasched.model.globs import MAX_STARS, matches_glob
from hasched.model.kinds import suggest
from hasched.model.units import MAX_INTEGER

MAX_EXPRESSION_CHARS = 2048
MAX_DEPTH = 20
MAX_TEXT_CHARS = 512 * 1024  # that an expression may make
MAX_ITEMS = 20_000
MAX_JSON_DEPTH = 32

Value: TypeAlias = "bool | int | str | list[Any] | dict[str, Any] | None"
Names: TypeAlias = Callable[[str], Value]  # what a name stands for; raises ExpressionError where it stands for nothing

_TASK_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_WORDS = ("and", "or", "not", "in", "matches", "true", "false", "null")
ROOTS = ("params", "item", "index", "execution")


class ExpressionError(ValueError):
    """What is wrong with an expression or its values. `place` counts its characters from 1, 0: it is about the values."""

    def __init__(self, cause: str, place: int = 0, hint: str = "") -> None:
        super().__init__(f"at character {place}: {cause}" if place else cause)
        self.cause = cause
        self.place = place
        self.hint = hint


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


class _Token(NamedTuple):
    kind: str  # quoted, number, word, sign, end
    text: str
    place: int


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while (match := _TOKEN.match(text, at)) is not None:
        kind = match.lastgroup or ""
        place = match.start(kind) + 1
        if kind == "bad":
            hint = "equality is written ==" if match[kind] == "=" else "write a text in quotes"
            raise ExpressionError(f"{match[kind]!r} can't stand here", place, hint)
        yield _Token(kind, match[kind][1:-1] if kind == "quoted" else match[kind], place)
        at = match.end()
    yield _Token("end", "the end", len(text) + 1)


@lru_cache(maxsize=4096)
def parse(text: str) -> Expression:
    """Raises ExpressionError, which names the place."""
    if len(text) > MAX_EXPRESSION_CHARS:
        raise ExpressionError(f"it is longer than {MAX_EXPRESSION_CHARS} characters", MAX_EXPRESSION_CHARS)
    return _Parser(text).parse()


class _Parser:
    """Recursive descent, as deep as MAX_DEPTH parentheses, brackets, calls and signs."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def parse(self) -> Expression:
        expression = self._some()
        token = self._peek()
        if token.kind != "end":
            raise ExpressionError(f"{token.text!r} follows a whole expression", token.place)
        return expression

    def _some(self) -> Expression:
        parts = [self._every()]
        while self._take("or"):
            parts.append(self._every())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _every(self) -> Expression:
        parts = [self._negation()]
        while self._take("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _negation(self) -> Expression:
        self._enter()
        expression: Expression = Not(self._negation()) if self._take("not") else self._comparison()
        self._depth -= 1
        return expression

    def _comparison(self) -> Expression:
        left = self._sum()
        token = self._peek()
        operator = token.text if token.kind in ("sign", "word") else ""
        if operator == "not" and self._tokens[self._next + 1].text == "in":
            self._next += 1
            operator = "not in"
        if operator not in _COMPARISONS:
            return left
        self._next += 1
        compared = Chain(left, ((operator, self._sum()),))
        if self._peek().text in _COMPARISONS and self._peek().kind != "quoted":
            raise ExpressionError("comparisons don't follow each other", self._peek().place, "join two by `and`")
        return compared

    def _sum(self) -> Expression:
        return self._chain(self._product, ("+", "-"))

    def _product(self) -> Expression:
        return self._chain(self._unary, ("*", "/", "%"))

    def _chain(self, part: Callable[[], Expression], signs: tuple[str, ...]) -> Expression:
        first = part()
        rest = []
        while self._peek().kind == "sign" and self._peek().text in signs:
            rest.append((self._advance().text, part()))
        return Chain(first, tuple(rest)) if rest else first

    def _unary(self) -> Expression:
        if not self._take("-"):
            return self._path()
        self._enter()
        part = self._unary()
        self._depth -= 1
        return Constant(-part.value) if isinstance(part, Constant) and type(part.value) is int else Minus(part)

    def _path(self) -> Expression:
        base = self._primary()
        steps: list[Step] = []
        while True:
            if self._take("."):
                token = self._advance()
                if token.kind not in ("word", "number"):
                    raise ExpressionError(f"a key must follow the dot, not {token.text!r}", token.place)
                steps.append(Step(token.text, None))
            elif self._take("["):
                steps.append(Step("", self._some()))
                self._expect("]")
            else:
                return Path(base, tuple(steps)) if steps else base

    def _primary(self) -> Expression:
        self._enter()
        token = self._advance()
        expression: Expression
        match token.kind:
            case "quoted":
                expression = Constant(token.text)
            case "number":
                expression = Constant(_whole(token.text, token.place))
            case "word" if token.text in ("true", "false", "null"):
                expression = Constant({"true": True, "false": False, "null": None}[token.text])
            case "word" if token.text in _WORDS:
                raise ExpressionError(f"a value must stand here, not {token.text!r}", token.place)
            case "word" if self._take("("):
                expression = self._call(token)
            case "word":
                expression = Name(token.text, token.place)
            case "sign" if token.text == "(":
                expression = self._some()
                self._expect(")")
            case "sign" if token.text == "[":
                expression = Items(self._list("]"))
            case _:
                raise ExpressionError(f"a value must stand here, not {token.text!r}", token.place)
        self._depth -= 1
        return expression

    def _call(self, token: _Token) -> Expression:
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
        if self._take(end):
            return ()
        while True:
            parts.append(self._some())
            if not self._take(","):
                self._expect(end)
                return tuple(parts)

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError("it is nested too deeply", self._peek().place)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _advance(self) -> _Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _take(self, text: str) -> bool:
        token = self._peek()
        if token.text == text and token.kind in ("word", "sign"):
            self._next += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        token = self._peek()
        if not self._take(sign):
            raise ExpressionError(f"{sign!r} must stand here, not {token.text!r}", token.place)


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
            return not _truth(value_of(part, names))
        case Minus(part):
            return _bounded(-_number(value_of(part, names)))
        case Every(parts):
            return all(_truth(value_of(part, names)) for part in parts)
        case Some(parts):
            return any(_truth(value_of(part, names)) for part in parts)
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
            return _matches([left, right])
        case "<" | "<=" | ">" | ">=":
            return _compare(operator, left, right)
        case "+" if isinstance(left, str) and isinstance(right, str):
            return left + right
        case "+" if isinstance(left, list) and isinstance(right, list):
            return left + right
    one, other = _number(left), _number(right)
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


def _truth(value: Value) -> bool:
    if not isinstance(value, bool):
        raise ExpressionError(f"{describe(value)} is neither true nor false", 0, "compare it: `… == …`")
    return value


def _number(value: Value) -> int:
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


def _whole(text: str, place: int = 0) -> int:
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
    return -_whole(digits) if text.startswith("-") else _whole(digits)


def _join(given: Sequence[Value]) -> Value:
    return _text(given[1]).join(map(to_text, _list(given[0])))


def _split(given: Sequence[Value]) -> Value:
    separator = _text(given[1])
    if not separator:
        raise ExpressionError("a text is split by a separator that isn't empty")
    return list(_text(given[0]).split(separator, MAX_ITEMS))


def _range(given: Sequence[Value]) -> Value:
    first, end = (0, _number(given[0])) if len(given) == 1 else (_number(given[0]), _number(given[1]))
    if end - first > MAX_ITEMS:
        raise ExpressionError(f"a list is longer than {MAX_ITEMS}")
    return list(range(first, end))


def _matches(given: Sequence[Value]) -> bool:
    pattern = _text(given[1])
    if pattern.count("*") > MAX_STARS:
        raise ExpressionError(f"a pattern has at most {MAX_STARS} stars")
    return matches_glob(_text(given[0]), pattern)


def _least(given: Sequence[Value]) -> Value:
    numbers = [_number(each) for each in _list(given[0])]
    if not numbers:
        raise ExpressionError("an empty list has no least and no largest")
    return min(numbers)


def _largest(given: Sequence[Value]) -> Value:
    numbers = [_number(each) for each in _list(given[0])]
    if not numbers:
        raise ExpressionError("an empty list has no least and no largest")
    return max(numbers)


def _quote(given: Sequence[Value]) -> Value:
    """As one word of a POSIX shell, whatever is in it."""
    return "'" + to_text(given[0]).replace("'", "'\"'\"'") + "'"


FUNCTIONS: Mapping[str, _Function] = {
    "len": _Function("len(VALUE)", 1, 1, _length),
    "int": _Function("int(TEXT)", 1, 1, _int),
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
    "sum": _Function("sum(LIST)", 1, 1, lambda given: sum(_number(each) for each in _list(given[0]))),
    "quote": _Function("quote(VALUE)", 1, 1, _quote),
}
