"""Parameters of templates and workflows: what may be given, what is given, and how it gets into a document.

A document with parameters is filled before it is read: `#{params.NAME}` may stand in every text of it, and where it is all of
a text its value takes the place, a number as a number. What asks for more than parameters (what a task has left, the item of a
fan-out) is known only when a task starts, and may stand in a few keys of a job alone, `LATE_KEYS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from hasched.model.errors import SpecInvalid
from hasched.model.expressions import names_in, value_of
from hasched.model.globs import MAX_STARS, matches_glob
from hasched.model.interpolation import OPENING, Embedded, escape, pieces_of
from hasched.model.kinds import Field, Kind, Problems, choice, describe, flag, mapping, suggest, text, whole
from hasched.model.units import MAX_INTEGER
from hasched.model.values import ExpressionError, Value, to_text
from hasched.model.workflow import MAX_PARAMETER_BYTES, MAX_PARAMETERS

MAX_VALUE_BYTES = 16 * 1024
MAX_CHOICES = 100
MAX_FILLED_DEPTH = 40
LATE_KEYS = ("command", "script", "args", "env", "input", "working_dir")


class ParameterType(StrEnum):
    TEXT = "text"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    LIST = "list"


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """`default` None: it has none, and must be given. `low` and `high` bound a number, or the length of a text or list."""

    name: str
    type: ParameterType = ParameterType.TEXT
    default: Any = None
    choices: tuple[Any, ...] = ()
    low: int | None = None
    high: int | None = None
    pattern: str = ""


def _any_value() -> Kind:
    def read(value: Any, place: str, problems: Problems) -> Any:
        if isinstance(value, float):
            problems.note(place, "must not be a fraction", "write it as a text, in quotes")
        elif isinstance(value, dict):
            problems.note(place, "must be a text, a number, true or false, or a list, not a mapping")
        elif isinstance(value, list):
            for number, each in enumerate(value):
                if isinstance(each, (float, list, dict)) or each is None:
                    problems.note(
                        f"{place}[{number}]", f"must be a text, a whole number, true or false, not {describe(each)}"
                    )
        elif isinstance(value, int) and abs(value) > MAX_INTEGER:
            problems.note(place, "is too large a number")
        return value

    kinds = [{"type": kind} for kind in ("string", "integer", "boolean", "array")]
    return Kind(read, {"anyOf": kinds})


def _choices() -> Kind:
    one = _any_value()

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, list) or not 0 < len(value) <= MAX_CHOICES:
            problems.note(place, f"must be a list of 1 to {MAX_CHOICES} values, not {describe(value)}")
            return ()
        for number, each in enumerate(value):
            one.read(each, f"{place}[{number}]", problems)
        return tuple(value)

    return Kind(read, {"type": "array", "items": one.schema, "minItems": 1, "maxItems": MAX_CHOICES})


VALUE = _any_value()
_PARAMETER = {
    "type": Field("type", choice(ParameterType), "text, integer, boolean or list; by default that of `default`."),
    "required": Field("required", flag(), "Whether it must be given; by default if it has no default."),
    "default": Field("default", VALUE, "Its value where none is given."),
    "choices": Field("choices", _choices(), "The values that it may have."),
    "min": Field("low", whole(-MAX_INTEGER, MAX_INTEGER), "The least number, or the least length."),
    "max": Field("high", whole(-MAX_INTEGER, MAX_INTEGER), "The largest number, or the largest length."),
    "pattern": Field("pattern", text(256), "How a text must look: `*` is anything, `?` one character."),
    "about": Field("about", text(1000), "For people."),
}
_PARAMETER_KIND = mapping(_PARAMETER, "a default, or a mapping of a parameter's keys")


def _parameters() -> Kind:
    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, dict):
            problems.note(place, f"must be a mapping of parameters by name, not {describe(value)}")
            return {}
        if len(value) > MAX_PARAMETERS:
            problems.note(place, f"has {len(value)} entries, and may have {MAX_PARAMETERS}")
        found: dict[str, Parameter] = {}
        for name, given in value.items():
            where = f"{place}.{name}"
            if not (name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdigit() and len(name) <= 64):
                problems.note(where, "is not the name of a parameter", "use letters, digits and '_', a letter first")
                continue
            before = len(problems)
            if given is None:
                found[name] = Parameter(name=name)
                continue
            keys = _PARAMETER_KIND.read(given if isinstance(given, dict) else {"default": given}, where, problems)
            if len(problems) == before:
                found[name] = _declare(name, keys, where, problems)
        return found

    return Kind(
        read,
        {"type": "object", "additionalProperties": {"anyOf": [VALUE.schema, _PARAMETER_KIND.schema, {"type": "null"}]}},
    )


def _declare(name: str, keys: dict[str, Any], place: str, problems: Problems) -> Parameter:
    keys.pop("about", None)
    default = keys.get("default")
    required = keys.pop("required", default is None)
    if required and default is not None:
        problems.note(place, "is required and has a default", "keep one of the two")
    elif not required and default is None:
        problems.note(place, "is not required and has no default", "give it one")
    if "type" not in keys and default is not None:
        keys["type"] = _type_of(default)
    declared = Parameter(name=name, **keys)
    if declared.pattern.count("*") > MAX_STARS:
        problems.note(f"{place}.pattern", f"has more than {MAX_STARS} stars")
    for key, values in (("default", () if default is None else (default,)), ("choices", declared.choices)):
        for value in values:
            if fault := fault_of_value(declared, value, chosen=key == "default"):
                problems.note(f"{place}.{key}", fault)
    return declared


PARAMETERS = _parameters()


def _type_of(value: Any) -> ParameterType:
    match value:
        case bool():
            return ParameterType.BOOLEAN
        case int():
            return ParameterType.INTEGER
        case list():
            return ParameterType.LIST
        case _:
            return ParameterType.TEXT


def fault_of_value(parameter: Parameter, value: Any, *, chosen: bool = True) -> str:
    """Why a parameter can't have the value, empty if it can."""
    if isinstance(value, float) or value is None or isinstance(value, dict) or _type_of(value) is not parameter.type:
        return f"must be {_NOUNS[parameter.type]}, not {describe(value)}"
    if isinstance(value, list):
        for each in value:
            if not isinstance(each, (str, int)):
                return f"must be a list of texts, whole numbers, true and false, and has {describe(each)}"
    if (
        chosen
        and parameter.choices
        and not any(type(value) is type(each) and value == each for each in parameter.choices)
    ):
        shown = ", ".join(to_text(each) for each in parameter.choices[:20])
        hint = (
            suggest(value, [each for each in parameter.choices if isinstance(each, str)])
            if isinstance(value, str)
            else ""
        )
        return f"must be one of {shown}, not {describe(value)}" + (f"; {hint}" if hint else "")
    if parameter.type is not ParameterType.BOOLEAN:
        size, noun = (value, "") if parameter.type is ParameterType.INTEGER else (len(value), "as long as ")
        if parameter.low is not None and size < parameter.low:
            return f"must be at least {noun}{parameter.low}, not {size}"
        if parameter.high is not None and size > parameter.high:
            return f"must be at most {noun}{parameter.high}, not {size}"
    if parameter.pattern and isinstance(value, str) and not matches_glob(value, parameter.pattern):
        return f"must look like {parameter.pattern}, not {describe(value)}"
    if len(to_text(value).encode("utf-8", "surrogatepass")) > MAX_VALUE_BYTES:
        return f"is larger than {MAX_VALUE_BYTES} bytes"
    return ""


_NOUNS = {
    ParameterType.TEXT: "a text",
    ParameterType.INTEGER: "a whole number",
    ParameterType.BOOLEAN: "true or false",
    ParameterType.LIST: "a list",
}


def read_values(
    declared: Mapping[str, Parameter], given: Mapping[str, Any], place: str, problems: Problems
) -> dict[str, Value]:
    """The value of every parameter. A text stands for a number where one is asked for: command lines have nothing else."""
    values: dict[str, Value] = {}
    for name in given:
        if name not in declared:
            hint = suggest(str(name), declared) or (f"there are: {', '.join(declared)}" if declared else "it has none")
            problems.note(f"{place}.{str(name)[:60]}", "there is no such parameter", hint)
    for name, parameter in declared.items():
        if name not in given:
            if parameter.default is None:
                problems.note(f"{place}.{name}", "must be given", f"it is {_NOUNS[parameter.type]}")
            else:
                values[name] = parameter.default
            continue
        value = _convert(parameter, given[name])
        if fault := fault_of_value(parameter, value):
            problems.note(f"{place}.{name}", fault)
        values[name] = value
    if sum(len(to_text(value)) for value in values.values() if value is not None) > MAX_PARAMETER_BYTES:
        problems.note(place, f"are larger than {MAX_PARAMETER_BYTES} bytes", "put data in files that tasks can reach")
    return values


def _convert(parameter: Parameter, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match parameter.type:
        case ParameterType.INTEGER if (
            len(value) < 20 and value.removeprefix("-").isascii() and value.removeprefix("-").isdigit()
        ):
            return int(value)
        case ParameterType.BOOLEAN if value in ("true", "false"):
            return value == "true"
        case ParameterType.LIST:
            return [each for each in value.split(",") if each]
        case _:
            return value


def sample_values(declared: Mapping[str, Parameter]) -> dict[str, Value]:
    """A value for each parameter that has none yet, to look at a document by."""
    samples: dict[str, Value] = {}
    for name, parameter in declared.items():
        if parameter.default is None:
            plain: dict[ParameterType, Value] = {
                ParameterType.TEXT: "x",
                ParameterType.INTEGER: max(1, parameter.low or 1),
                ParameterType.BOOLEAN: True,
                ParameterType.LIST: ["x"],
            }
            samples[name] = parameter.choices[0] if parameter.choices else plain[parameter.type]
    return samples


class _How(NamedTuple):
    """`late`: what can't be filled yet may stay, and what is filled is written so that it means itself. `text`: a text it is."""

    late: bool
    text: bool


class Filling:
    """Fills documents with the values of parameters. `late` ones are known only when a task starts.

    What can't be filled is noted in `problems`; `guessed` are the places where only a sample stands. Without `may_wait` no
    task is to start: everything has to be known now.
    """

    def __init__(
        self, values: Mapping[str, Value], late: Mapping[str, object], problems: Problems, *, may_wait: bool = True
    ) -> None:
        self._values = dict(values)
        self._may_wait = may_wait
        self._late = late
        self._problems = problems
        self.samples: Mapping[str, Value] = {}
        self.guessed: list[str] = []

    def fill_job(self, document: Mapping[str, Any], place_of: Mapping[str, str]) -> dict[str, Any]:
        """A job's document. Every text of LATE_KEYS is left in the form that is filled again when the task starts."""
        filled = {}
        for key, value in document.items():
            text = key in LATE_KEYS
            filled[key] = self._fill(value, place_of.get(key, key), _How(text and self._may_wait, text), 0)
        return filled

    def fill_value(self, value: Any, place: str, *, late: bool) -> Any:
        """Any value; `late`: what can't be filled yet may stand in it."""
        return self._fill(value, place, _How(late, False), 0)

    def _fill(self, value: Any, place: str, how: _How, depth: int) -> Any:
        if depth > MAX_FILLED_DEPTH:
            self._problems.note(place, "is nested too deeply")
            return None
        if isinstance(value, str):
            return self._fill_text(value, place, how) if OPENING in value else value
        if isinstance(value, list):
            return [self._fill(each, f"{place}[{number}]", how, depth + 1) for number, each in enumerate(value)]
        if isinstance(value, dict):
            prefix = f"{place}." if place else ""
            return {key: self._fill(each, f"{prefix}{key}", how, depth + 1) for key, each in value.items()}
        return value

    def _fill_text(self, value: str, place: str, how: _How) -> Any:
        try:
            pieces = list(pieces_of(value))
            waits = [isinstance(piece, Embedded) and self._is_late(piece) for piece in pieces]
            if any(waits) and not how.late:
                where = f"that may stand in {', '.join(LATE_KEYS)}" if self._may_wait else ""
                self._problems.note(place, "asks for what is known only when a task starts", where)
                return None
            if len(pieces) == 1 and isinstance(pieces[0], Embedded) and not waits[0] and not how.text:
                found = self._value_of(pieces[0], place)
                return escape(found) if how.late and isinstance(found, str) else found
            return (
                self._write(pieces, waits, place) if how.late else "".join(self._show(each, place) for each in pieces)
            )
        except ExpressionError as error:
            self._problems.note(place, str(error), error.hint)
            return None

    def _write(self, pieces: list[str | Embedded], waits: list[bool], place: str) -> str:
        """What is known as itself, what isn't as it was: no value can become an expression, wherever it meets another."""
        written, known = "", ""
        for piece, late in zip(pieces, waits, strict=True):
            if not late:
                known += self._show(piece, place)
                continue
            assert isinstance(piece, Embedded), "only an expression waits"
            plain = known.rstrip("#")
            written += (
                escape(plain) + (f"#{{'{known[len(plain) :]}'}}" if plain != known else "") + f"#{{{piece.source}}}"
            )
            known = ""
        return written + escape(known)

    def _show(self, piece: str | Embedded, place: str) -> str:
        return piece if isinstance(piece, str) else to_text(self._value_of(piece, place))

    def _value_of(self, piece: Embedded, place: str) -> Value:
        if any(name.name == "params" and key in self.samples for name, key in names_in(piece.expression)):
            self.guessed.append(place)
        return value_of(piece.expression, self._names)

    def _names(self, name: str) -> Value:
        if name != "params":
            raise ExpressionError(f"{name} can't be asked for here")
        return {**self._values, **self.samples}

    def _is_late(self, piece: Embedded) -> bool:
        for name, key in names_in(piece.expression):
            if name.name != "params" or key in self._late:
                return True
            if not key:
                raise ExpressionError("a parameter is written params.NAME", name.place)
            if key not in self._values and key not in self.samples:
                raise ExpressionError(
                    f"there is no parameter {key}", name.place, suggest(key, [*self._values, *self.samples])
                )
        return False


def fill_template(document: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a job that a job template makes with these parameters. Raises SpecInvalid."""
    problems = Problems()
    declared: dict[str, Parameter] = PARAMETERS.read(document.get("parameters") or {}, "parameters", problems)
    if problems:
        raise SpecInvalid(problems)
    values = read_values(declared, given, "parameters", problems)
    if problems:
        raise SpecInvalid(problems)
    filling = Filling(values, {}, problems, may_wait=False)
    filled = filling.fill_job({key: value for key, value in document.items() if key != "parameters"}, {})
    if problems:
        raise SpecInvalid(problems)
    return filled


def check_template(document: Mapping[str, Any]) -> Problems:
    """What is wrong with a job template, whatever its parameters will be."""
    from hasched.model.parse import parse_spec

    problems = Problems()
    declared: dict[str, Parameter] = PARAMETERS.read(document.get("parameters") or {}, "parameters", problems)
    if problems:
        return problems
    filling = Filling(
        {each.name: each.default for each in declared.values() if each.default is not None},
        {},
        problems,
        may_wait=False,
    )
    filling.samples = sample_values(declared)
    filled = filling.fill_job({key: value for key, value in document.items() if key != "parameters"}, {})
    if not problems:
        try:
            parse_spec(filled)
        except SpecInvalid as error:
            problems += [each for each in error.errors if not is_guessed(each.path, filling.guessed)]
    return problems


def is_guessed(path: str, guessed: list[str]) -> bool:
    """Whether a place holds, is, or is within one where a sample stands."""
    plain = _plain(path)
    return any(
        plain == other or other.startswith(f"{plain}.") or plain.startswith(f"{other}.")
        for other in map(_plain, guessed)
    )


def _plain(path: str) -> str:
    return path.replace("[", ".").replace("]", "").lstrip(".")
