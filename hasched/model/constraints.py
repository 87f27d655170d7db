"""Constraints: what must hold of a node so that a job may run there, as a short expression.

    arch == amd64 and kernel >= 5.15
    label.rack matches r1* or has label.ssd
    gpu.model in [A100, H100] and not label.zone == west

A test is an attribute, an operator and a value; `and`, `or`, `not` and parentheses join them. An attribute can have several
values (the GPUs of a node, its networks): a test holds if it does for one of them. Where a node hasn't got the attribute,
only `not`, `!=` and `not in` hold. `<` and its like compare as versions, so 5.9 comes before 5.15.

A constraint is kept as text in canonical form, is parsed anew where it is needed (that is cached), and compiled to closures.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple, TypeAlias, assert_never

from hasched.model.facts import NodeFacts, is_model
from hasched.model.ids import is_name
from hasched.model.kinds import suggest
from hasched.model.language import Cursor, LanguageError
from hasched.model.units import parse_bytes

MAX_CONSTRAINT_CHARS = 1024
MAX_DEPTH = 20
MAX_GLOB_STARS = 8

Holds: TypeAlias = Callable[[NodeFacts], bool]


class Kind(Enum):
    """How the values of an attribute compare."""

    TEXT = "text"
    NUMBER = "number"
    SIZE = "size"
    MODEL = "model"  # equal if the words asked for are in it


ATTRIBUTES: dict[str, tuple[Kind, str]] = {
    "node": (Kind.TEXT, "the node's id"),
    "hostname": (Kind.TEXT, "the machine's own name"),
    "pool": (Kind.TEXT, "the node's pool"),
    "os": (Kind.TEXT, "the operating system, such as debian-12"),
    "arch": (Kind.TEXT, "the processor's architecture: amd64, arm64"),
    "kernel": (Kind.TEXT, "the kernel's release"),
    "cpu_model": (Kind.TEXT, "the processor's name"),
    "hasched": (Kind.TEXT, "the agent's version"),
    "interconnect": (Kind.TEXT, "the fast networks: infiniband, roce, 100GbE"),
    "cpus": (Kind.NUMBER, "cores"),
    "memory": (Kind.SIZE, "memory"),
    "disk": (Kind.SIZE, "disk that tasks may ask for"),
    "gpu.count": (Kind.NUMBER, "GPUs"),
    "gpu.model": (Kind.MODEL, "the models of the GPUs"),
    "gpu.memory": (Kind.SIZE, "the memory of the GPUs, each"),
}
OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in", "matches", "has")
_OWN = ("label.", "attr.")  # followed by a name that whoever set up the node has chosen


class Term(NamedTuple):
    attribute: str
    operator: str
    values: tuple[str, ...] = ()


class Not(NamedTuple):
    part: Expression


class Every(NamedTuple):
    parts: tuple[Expression, ...]


class Some(NamedTuple):
    parts: tuple[Expression, ...]


Expression: TypeAlias = Term | Not | Every | Some


class ConstraintError(LanguageError):
    """What is wrong with a constraint, and where."""


def canonical(text: str) -> str:
    """The same constraint in the one form that is kept. Raises ConstraintError."""
    return write(parse(text))


@lru_cache(maxsize=4096)
def compile_constraint(text: str) -> Holds:
    """A function that says whether the constraint holds of a node. Raises ConstraintError."""
    return _compile(parse(text))


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<sign>==|!=|<=|>=|[<>()\[\],=])|(?P<word>[^\s()\[\],<>=!"']+)|(?P<bad>\S))"""
)
_PLAIN_WORD = re.compile(r"""[^\s()\[\],<>=!"']+""")
_KEYWORDS = ("and", "or", "not", "in", "has", "matches")


def _hint_for(sign: str) -> str:
    return "write a text that contains it in quotes"


def parse(text: str) -> Expression:
    """Raises ConstraintError, which names the place, and what was meant if that can be guessed."""
    if len(text) > MAX_CONSTRAINT_CHARS:
        raise ConstraintError(f"it is longer than {MAX_CONSTRAINT_CHARS} characters", MAX_CONSTRAINT_CHARS)
    if not text.isprintable():
        raise ConstraintError("it contains a character that can't be printed", 1)
    return _Parser(text).parse()


class _Parser:
    """Recursive descent over a flat grammar: or, and, not, then a test or parentheses."""

    def __init__(self, text: str) -> None:
        self._tokens = Cursor(text, _TOKEN, ConstraintError, _hint_for)
        self._depth = 0

    def parse(self) -> Expression:
        expression = self._some()
        token = self._tokens.peek()
        if token.kind != "end":
            raise ConstraintError(
                f"{token.text!r} follows a whole constraint", token.place, "join two by `and` or `or`"
            )
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
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ConstraintError("it is nested too deeply", self._tokens.peek().place)
        if self._tokens.take("not"):
            part = self._negation()
            expression: Expression = part.part if isinstance(part, Not) else Not(part)
        elif self._tokens.take("("):
            expression = self._some()
            self._tokens.expect(")")
        else:
            expression = self._test()
        self._depth -= 1
        return expression

    def _test(self) -> Expression:
        if self._tokens.take("has"):
            return Term(self._attribute(), "has")
        attribute = self._attribute()
        token = self._tokens.advance()
        operator = token.text if token.kind in ("sign", "word") else ""
        if operator == "not" and self._tokens.take("in"):
            operator = "not in"
        if operator not in OPERATORS or operator == "has":
            hint = "equality is written ==" if operator == "=" else suggest(operator, OPERATORS)
            raise ConstraintError(
                f"an operator must follow {attribute!r}, not {token.text!r}", token.place, hint or _LIST_OF_OPERATORS
            )
        values = self._values() if operator in ("in", "not in") else (self._value(attribute, operator),)
        if operator in ("in", "not in"):
            values = tuple(self._checked(attribute, operator, value, token.place) for value in values)
        return Term(attribute, operator, values)

    def _attribute(self) -> str:
        token = self._tokens.advance()
        name = token.text
        if token.kind != "word" or name in _KEYWORDS:
            raise ConstraintError(f"an attribute must stand here, not {name!r}", token.place, _LIST_OF_ATTRIBUTES)
        if name in ATTRIBUTES:
            return name
        prefix, dot, own = name.partition(".")
        if prefix + dot in _OWN:
            if not is_name(own):
                raise ConstraintError(f"{own!r} can't be the name of a label or attribute", token.place)
            return own if prefix == "attr" and own in ATTRIBUTES else name
        hint = suggest(name, (*ATTRIBUTES, *_OWN))
        raise ConstraintError(
            f"unknown attribute {name!r}",
            token.place,
            hint or f"a label is written label.{name}, one of your own attr.{name}",
        )

    def _value(self, attribute: str, operator: str) -> str:
        token = self._tokens.advance()
        if token.kind not in ("word", "quoted"):
            hint = "use `in` with a list" if token.text == "[" else ""
            raise ConstraintError(f"a value must follow {operator!r}, not {token.text!r}", token.place, hint)
        return self._checked(attribute, operator, token.text, token.place)

    def _values(self) -> tuple[str, ...]:
        self._tokens.expect("[")
        values: list[str] = []
        while True:
            token = self._tokens.advance()
            if token.kind not in ("word", "quoted"):
                raise ConstraintError(f"a value must stand here, not {token.text!r}", token.place)
            values.append(token.text)
            if not self._tokens.take(","):
                self._tokens.expect("]")
                return tuple(dict.fromkeys(values))

    def _checked(self, attribute: str, operator: str, value: str, place: int) -> str:
        kind = _kind_of(attribute)
        if operator == "matches":
            if kind in (Kind.NUMBER, Kind.SIZE):
                raise ConstraintError(f"{attribute} is a {kind.value}: compare it by ==, <, >=", place)
            if value.count("*") > MAX_GLOB_STARS:
                raise ConstraintError(f"{value!r} has more than {MAX_GLOB_STARS} stars", place)
        elif kind is Kind.MODEL and operator not in ("==", "!=", "in", "not in"):
            raise ConstraintError(f"{attribute} has no order: compare it by ==, !=, in or matches", place)
        elif kind in (Kind.NUMBER, Kind.SIZE):
            try:
                _amount(kind, value)
            except ValueError as error:
                raise ConstraintError(f"{attribute} is a {kind.value}: {error}", place) from None
        return value


_LIST_OF_OPERATORS = f"operators are {', '.join(OPERATORS)}"
_LIST_OF_ATTRIBUTES = f"attributes are {', '.join(ATTRIBUTES)}, label.NAME and attr.NAME"


def _kind_of(attribute: str) -> Kind:
    known = ATTRIBUTES.get(attribute)
    return known[0] if known is not None else Kind.TEXT


def _amount(kind: Kind, value: str) -> int:
    """Raises ValueError."""
    if kind is Kind.SIZE:
        return parse_bytes(value)
    if not value.isascii() or not value.isdigit() or len(value) > 15:
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


# ── Writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(expression: Expression) -> str:
    """As text in canonical form: it parses to the same expression, and equal expressions have the same."""
    match expression:
        case Term(attribute, "has", _):
            return f"has {attribute}"
        case Term(attribute, "in" | "not in" as operator, values):
            return f"{attribute} {operator} [{', '.join(map(_write_value, values))}]"
        case Term(attribute, operator, values):
            return f"{attribute} {operator} {_write_value(values[0])}"
        case Not(part):
            return f"not {write(part)}" if isinstance(part, Term) else f"not ({write(part)})"
        case Every(parts):
            return " and ".join(
                f"({write(part)})" if isinstance(part, (Some, Every)) else write(part) for part in parts
            )
        case Some(parts):
            return " or ".join(f"({write(part)})" if isinstance(part, Some) else write(part) for part in parts)
        case _:
            assert_never(expression)


def _write_value(value: str) -> str:
    if _PLAIN_WORD.fullmatch(value):
        return value
    return f'"{value}"' if '"' not in value else f"'{value}'"


# ── Holding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _compile(expression: Expression) -> Holds:
    match expression:
        case Not(part):
            negated = _compile(part)
            return lambda facts: not negated(facts)
        case Every(parts):
            all_of = tuple(map(_compile, parts))
            return lambda facts: all(holds(facts) for holds in all_of)
        case Some(parts):
            any_of = tuple(map(_compile, parts))
            return lambda facts: any(holds(facts) for holds in any_of)
        case Term(attribute, "!=" | "not in" as operator, values):
            same = _compile(Term(attribute, "==" if operator == "!=" else "in", values))
            return lambda facts: not same(facts)
        case Term(attribute, "has", _):
            read = _reader(attribute)
            return lambda facts: bool(read(facts))
        case Term(attribute, operator, values):
            read, passes = _reader(attribute), _value_test(_kind_of(attribute), operator, values)
            return lambda facts: any(passes(value) for value in read(facts))
        case _:
            assert_never(expression)


def _value_test(kind: Kind, operator: str, values: tuple[str, ...]) -> Callable[[str], bool]:
    if operator == "matches":
        return re.compile(translate(values[0])).match  # type: ignore[return-value]  # only its truth is looked at
    if operator in ("==", "in"):
        if kind is Kind.MODEL:
            return lambda value: any(is_model(value, asked) for asked in values)
        if kind is Kind.TEXT:
            return lambda value: value in values
        amounts = tuple(_amount(kind, value) for value in values)
        return lambda value: int(value) in amounts
    key: Callable[[str], object] = version_key if kind is Kind.TEXT else int
    bound: object = version_key(values[0]) if kind is Kind.TEXT else _amount(kind, values[0])
    compare: Callable[[object, object], bool] = _COMPARISONS[operator]
    return lambda value: compare(key(value), bound)


_COMPARISONS: dict[str, Callable[[object, object], bool]] = {
    "<": lambda value, bound: value < bound,  # type: ignore[operator]
    "<=": lambda value, bound: value <= bound,  # type: ignore[operator]
    ">": lambda value, bound: value > bound,  # type: ignore[operator]
    ">=": lambda value, bound: value >= bound,  # type: ignore[operator]
}


def _reader(attribute: str) -> Callable[[NodeFacts], tuple[str, ...]]:
    """A function that gives the values of an attribute on a node; amounts as decimal numbers."""
    if (special := _READERS.get(attribute)) is not None:
        return special
    prefix, _, own = attribute.partition(".")
    if prefix == "label":
        return lambda facts: _one(facts.labels.get(own))
    name = own if prefix == "attr" else attribute
    return lambda facts: _list(facts.attributes.get(name))


def _one(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


def _list(value: str | None) -> tuple[str, ...]:
    """An attribute holds several values with a comma between them."""
    return () if value is None else tuple(value.split(","))


def _positive(amount: int) -> tuple[str, ...]:
    return (str(amount),) if amount else ()


_READERS: dict[str, Callable[[NodeFacts], tuple[str, ...]]] = {
    "node": lambda facts: (facts.node_id,),
    "hostname": lambda facts: (facts.hostname,),
    "pool": lambda facts: (facts.pool,),
    "cpus": lambda facts: (str(facts.total.cpu_milli // 1000),),
    "memory": lambda facts: _positive(facts.total.memory_bytes),
    "disk": lambda facts: _positive(facts.total.disk_bytes),
    "gpu.count": lambda facts: (str(facts.total.gpus),),
    "gpu.model": lambda facts: tuple(kind.model for kind in facts.gpus if kind.model),
    "gpu.memory": lambda facts: tuple(str(kind.memory_bytes) for kind in facts.gpus if kind.memory_bytes),
}

_PIECE = re.compile(r"([0-9]+)|([A-Za-z]+)")
_MAX_DIGITS = 18
_BEFORE_RELEASE = frozenset(("a", "alpha", "b", "beta", "c", "rc", "dev", "pre", "preview"))


@lru_cache(maxsize=4096)
def version_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts versions: 5.9 < 5.15 < 5.15.0-91-generic, 1.0rc1 < 1.0, and 6.1 equals 6.1.0."""
    key: list[tuple[int, int, str]] = []
    zeros = 0
    for digits, word in _PIECE.findall(text):
        if digits:
            number = int(digits[-_MAX_DIGITS:])
            if not number:
                zeros += 1
                continue
            key += [(2, 0, "")] * zeros
            key.append((2, number, ""))
        else:
            key.append((-1 if word.lower() in _BEFORE_RELEASE else 1, 0, word.lower()))
        zeros = 0
    key.append((0, 0, ""))
    return tuple(key)
