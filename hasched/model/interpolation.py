"""`#{…}` in a text: an expression whose value stands there. `##{` is a `#{` that means nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hasched.model.expressions import Expression, Names, parse, value_of
from hasched.model.values import ExpressionError, Value, to_text

OPENING, ESCAPED = "#{", "##{"
MAX_EMBEDDED = 1000  # expressions in one text


class Embedded(NamedTuple):
    source: str
    expression: Expression


def pieces_of(text: str) -> Iterator[str | Embedded]:
    """The text in pieces, escapes taken out. Raises ExpressionError, which names the place."""
    at = count = 0
    while (start := text.find(OPENING, at)) >= 0:
        if start and text[start - 1] == "#" and start > at:
            yield text[at : start - 1] + OPENING
            at = start + len(OPENING)
            continue
        if start > at:
            yield text[at:start]
        end = _closing(text, start + len(OPENING))
        source = text[start + len(OPENING) : end]
        count += 1
        if count > MAX_EMBEDDED:
            raise ExpressionError(f"it has more than {MAX_EMBEDDED} expressions", start + 1)
        try:
            yield Embedded(source, parse(source))
        except ExpressionError as error:
            raise ExpressionError(error.cause, start + len(OPENING) + error.place, error.hint) from None
        at = end + 1
    if at < len(text):
        yield text[at:]


def _closing(text: str, at: int) -> int:
    """Where the brace stands that ends an expression: not within a quoted text."""
    quote = ""
    for place in range(at, len(text)):
        character = text[place]
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "}":
            return place
    raise ExpressionError("`#{` has no `}`", at - 1, "write ##{ for a #{ that means nothing")


def fill(text: str, names: Names, most: int) -> str:
    """The text with the values of its expressions, of `most` characters at most. Raises ExpressionError."""
    if OPENING not in text:
        return text
    parts: list[str] = []
    size = 0
    for piece in pieces_of(text):
        part = piece if isinstance(piece, str) else _shown(value_of(piece.expression, names), piece.source)
        size += len(part)
        if size > most:
            raise ExpressionError(f"with its values it is longer than {most} characters")
        parts.append(part)
    return "".join(parts)


def _shown(value: Value, source: str) -> str:
    if value is None:
        raise ExpressionError(f"{source.strip()[:60]} is null")
    return to_text(value)


def escape(text: str) -> str:
    """The text so that it means itself."""
    return text.replace(OPENING, ESCAPED)
