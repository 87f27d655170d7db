"""The kinds of values in a document that a person wrote: how each is read, and its JSON Schema.

A reader takes a value, its place, and the list of problems. It returns the value in canonical form; or it notes what is
wrong, and what it returns then means nothing. So whoever reads a document looks at the problems before they use any of it,
and a person sees every mistake at once.
"""

from __future__ import annotations

import binascii
import difflib
import functools
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from hasched.model.errors import FieldError, SpecInvalid
from hasched.model.ids import NAME_PATTERN, is_name
from hasched.model.units import MAX_INTEGER, MAX_QUANTITY_CHARS, TooLarge

MAX_PROBLEMS = 50  # nobody reads on beyond so many
MAX_WORD_BYTES = 128 * 1024 - 1  # what Linux passes to a program in one argument or variable (MAX_ARG_STRLEN)
MOST_COMPARED = 500  # names, for the one that was meant

_MAX_SHOWN_CHARS = 60
_MOST_LISTED = 12
_QUOTE = "write it in quotes"


class Problems(list[FieldError]):
    """What is wrong with a document, in the order of its places."""

    def note(self, place: str, cause: str, hint: str = "") -> None:
        """Raises SpecInvalid when there are so many that reading on is a waste."""
        self.append(FieldError(place, cause, hint))
        if len(self) >= MAX_PROBLEMS:
            raise SpecInvalid(self)


Reader: TypeAlias = Callable[[Any, str, Problems], Any]


class Kind(NamedTuple):
    """`read` refuses what `schema` refuses, and can see more: a pattern, a sum, a forbidden character."""

    read: Reader
    schema: dict[str, Any]


class Field(NamedTuple):
    """A key of a mapping: `attribute` is its name in canonical form."""

    attribute: str
    kind: Kind
    about: str


def text(max_bytes: int, *, empty: bool = False, hint: str = "") -> Kind:
    """Text that can stand in a file, an argument or a variable: UTF-8 without NUL."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not value and not empty and isinstance(value, str):
            problems.note(place, "must not be empty")
        elif fault := fault_of_text(value, max_bytes):
            problems.note(place, fault, hint or ("" if isinstance(value, str) else _QUOTE))
        return value

    return Kind(read, {"type": "string"} if empty else {"type": "string", "minLength": 1})


def name() -> Kind:
    """Letters, digits, `.`, `_` and `-`: safe as a file name and in a URL."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, str):
            problems.note(place, f"must be text, not {describe(value)}", _QUOTE)
        elif not is_name(value):
            problems.note(place, f"{describe(value)} is not a name", NAME_HINT)
        return value

    return Kind(read, {"type": "string", "pattern": NAME_PATTERN})


def names(most: int) -> Kind:
    """A list of names, as a sorted tuple without repetitions."""
    return set_of(name(), most, "names")


def set_of(one: Kind, most: int, what: str) -> Kind:
    """A list, as a sorted tuple without repetitions."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, (list, tuple)):
            problems.note(place, f"must be a list of {what}, not {describe(value)}")
            return ()
        if len(value) > most:
            problems.note(place, f"has {len(value)} entries, and may have {most}")
        before = len(problems)
        for number, each in enumerate(value):
            one.read(each, f"{place}[{number}]", problems)
        return tuple(sorted(dict.fromkeys(value))) if len(problems) == before else ()

    return Kind(read, {"type": "array", "items": one.schema, "maxItems": most})


NAME_HINT = "use letters and digits, with '.', '_' and '-' between them, 128 at most"


def whole(low: int, high: int, hint: str = "") -> Kind:
    """An integer from `low` to `high`."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            problems.note(place, f"must be a whole number, not {describe(value)}", hint)
        elif not low <= value <= high:
            wanted = f"from {low} to {high}" if high < MAX_INTEGER or value > high else f"{low} or more"
            problems.note(place, f"must be {wanted}, not {describe(value)}", hint)
        return value

    return Kind(read, {"type": "integer", "minimum": low, "maximum": high})


def flag() -> Kind:
    """True or false."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, bool):
            problems.note(place, f"must be true or false, not {describe(value)}")
        return value

    return Kind(read, {"type": "boolean"})


def choice(options: type[StrEnum]) -> Kind:
    """One of the words of an enum."""
    words = {option.value: option for option in options}

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, str) or value not in words:
            hint = suggest(value, words) if isinstance(value, str) else ""
            problems.note(place, f"must be one of {', '.join(words)}, not {describe(value)}", hint)
            return None
        return words[value]

    return Kind(read, {"enum": list(words)})


def quantity(parse: Callable[[Any], int], high: int, write: Callable[[int], str], noun: str, example: str) -> Kind:
    """A number with or without a unit up to `high`, as `parse` and `write` of hasched.model.units have it."""
    parse = functools.lru_cache(maxsize=1024, typed=True)(parse)  # The same few are asked for over and over.

    def read(value: Any, place: str, problems: Problems) -> Any:
        wrong = not isinstance(value, (str, int, float)) or isinstance(value, bool)
        if wrong or (isinstance(value, str) and len(value) > MAX_QUANTITY_CHARS):
            problems.note(place, f"must be a {noun} such as {example}, not {describe(value)}")
            return 0
        try:
            amount = parse(value)
        except TooLarge:
            amount = high + 1
        except ValueError as error:
            problems.note(place, str(error))
            return 0
        if amount > high:
            problems.note(place, f"must be at most {write(high)}, not {describe(value)}")
        return amount

    return Kind(read, {"anyOf": [{"type": "string", "examples": [example]}, {"type": "number", "minimum": 0}]})


def multiplier(low: int, high: int) -> Kind:
    """A factor, read as thousandths."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            problems.note(place, f"must be a number from {low} to {high}, not {describe(value)}")
            return 0
        thousandths = round(value * 1000)
        if thousandths / 1000 != value:
            problems.note(place, f"{value!r} is finer than a thousandth")
        return thousandths

    return Kind(read, {"type": "number", "minimum": low, "maximum": high})


def words(*, program: bool = True) -> Kind:
    """An argument vector, as a tuple. `program`: it begins with one."""
    example = "[echo, hello]" if program else '[--epochs, "20"]'

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, (list, tuple)):
            hint = "for a line of shell, use `script`" if program and isinstance(value, str) else ""
            problems.note(place, f"must be a list such as {example}, not {describe(value)}", hint)
            return ()
        if program and (not value or value[0] == ""):
            problems.note(place, "must begin with a program")
        for number, word in enumerate(value):
            if fault := fault_of_text(word, MAX_WORD_BYTES):
                problems.note(f"{place}[{number}]", fault, "" if isinstance(word, str) else _QUOTE)
        return tuple(value)

    return Kind(read, {"type": "array", "items": {"type": "string"}, **({"minItems": 1} if program else {})})


def exit_codes() -> Kind:
    """Exit codes of a process, as a sorted tuple without repetitions."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, (list, tuple)) or not value:
            problems.note(place, f"must be a list of exit codes such as [0, 3], not {describe(value)}")
            return ()
        good = []
        for number, code in enumerate(value):
            if isinstance(code, int) and not isinstance(code, bool) and 0 <= code <= 255:
                good.append(code)
            else:
                problems.note(f"{place}[{number}]", f"must be an exit code from 0 to 255, not {describe(code)}")
        return tuple(sorted(dict.fromkeys(good)))

    return Kind(read, {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}, "minItems": 1})


def blob(max_bytes: int) -> Kind:
    """Bytes, written as text or as `{base64: …}`."""
    too_large = f"is larger than {max_bytes} bytes"
    hint = "put it in a file that tasks can reach"

    def read(value: Any, place: str, problems: Problems) -> Any:
        if isinstance(value, dict):
            encoded = value.get("base64")
            if list(value) != ["base64"] or not isinstance(encoded, str):
                problems.note(place, "must be text, or bytes as {base64: TEXT}")
                return b""
            try:
                data = binascii.a2b_base64("".join(encoded.split()), strict_mode=True)
            except ValueError as error:
                problems.note(f"{place}.base64", f"is not base64: {error}")
                return b""
            if len(data) > max_bytes:
                problems.note(place, too_large, hint)
            return data
        if fault := fault_of_text(value, max_bytes):
            problems.note(place, fault, hint if fault == too_large else "bytes go in as {base64: TEXT}")
            return b""
        return value.encode()

    base64 = {
        "type": "object",
        "properties": {"base64": {"type": "string", "contentEncoding": "base64"}},
        "required": ["base64"],
        "additionalProperties": False,
    }
    return Kind(read, {"anyOf": [{"type": "string"}, base64]})


def pairs(key_fault: Callable[[str], str], values: Kind, max_pairs: int) -> Kind:
    """A mapping whose keys the user chose. `key_fault` says what is wrong with a key, empty if nothing is."""
    read_value = values.read

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, dict):
            problems.note(place, f"must be a mapping, not {describe(value)}")
            return {}
        if len(value) > max_pairs:
            problems.note(place, f"has {len(value)} entries, and may have {max_pairs}")
        for key, item in value.items():
            if not isinstance(key, str):
                problems.note(place, f"the key {describe(key)} must be text")
            elif fault := key_fault(key):
                problems.note(f"{place}.{shorten(key)}", fault)
            else:
                read_value(item, f"{place}.{key}", problems)
        return dict(value)

    return Kind(read, {"type": "object", "additionalProperties": values.schema, "maxProperties": max_pairs})


def mapping(fields: Mapping[str, Field], noun: str, elsewhere: Mapping[str, str] | None = None) -> Kind:
    """A mapping with fixed keys, read as the attributes that it gives. `elsewhere` has hints for keys that belong elsewhere."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        given: dict[str, Any] = {}
        if not isinstance(value, dict):
            problems.note(place, f"must be {noun}, not {describe(value)}")
            return given
        prefix = f"{place}." if place else ""
        for key, item in value.items():
            field = fields.get(key)
            if field is None:
                known_as = shorten(key) if isinstance(key, str) else describe(key)
                hint = (elsewhere or {}).get(key, "") or suggest(known_as, fields)
                problems.note(f"{prefix}{known_as}", "unknown key", hint)
            elif item is None:
                problems.note(f"{prefix}{key}", "has no value", "give it one, or leave the key out")
            else:
                given[field.attribute] = field.kind.read(item, f"{prefix}{key}", problems)
        return given

    properties = {key: {"description": field.about, **field.kind.schema} for key, field in fields.items()}
    return Kind(read, {"type": "object", "properties": properties, "additionalProperties": False})


def fault_of_text(value: Any, max_bytes: int) -> str:
    """What keeps `value` from being text of at most `max_bytes` of UTF-8, empty if nothing does."""
    if not isinstance(value, str):
        return f"must be text, not {describe(value)}"
    if "\0" in value:
        return "must not contain a NUL character"
    if value.isascii():
        size = len(value)
    else:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            return "contains half of a surrogate pair, which is not a character"
    return f"is larger than {max_bytes} bytes" if size > max_bytes else ""


def suggest(word: str, known: Iterable[str]) -> str:
    """`did you mean …?` for a mistyped word, empty if nothing is near."""
    found = nearest(word, known)
    return f"did you mean {found!r}?" if found else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of `known` that `word` is a slip for, empty if none comes near."""
    matches = difflib.get_close_matches(word[:_MAX_SHOWN_CHARS], list(known), n=1)
    return matches[0] if matches else ""


def suggest_name(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """What to do about a name that nothing has: the nearest there is, else what there is if that is little, else `otherwise`.

    It looks at the first MOST_COMPARED only, for there may be a hundred thousand.
    """
    names = list(islice(known, MOST_COMPARED))
    few = f"there are: {', '.join(sorted(names))}" if 0 < len(names) <= _MOST_LISTED else ""
    return suggest(word, names) or few or otherwise


def describe(value: Any) -> str:
    """A value as a sentence names it, never long."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case str():
            return repr(shorten(value))
        case int() if abs(value) > MAX_INTEGER:
            return "so large a number"
        case int() | float():
            return str(value)
        case _:
            return f"a {type(value).__name__}"


def shorten(text: str) -> str:
    """Text that can be shown and sent: not long, and always UTF-8."""
    shown = text if len(text) <= _MAX_SHOWN_CHARS else f"{text[: _MAX_SHOWN_CHARS - 1]}…"
    return shown.encode("utf-8", "backslashreplace").decode()
