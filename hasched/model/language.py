"""The tokens of a small language, and a cursor over them: what the readers of constraints and of expressions share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

Refusal = Callable[[str, int, str], "LanguageError"]  # of a cause, a place and a hint


class LanguageError(ValueError):
    """What is wrong with a text in a small language. `place` counts its characters from 1, 0: it is about no one place."""

    def __init__(self, cause: str, place: int = 0, hint: str = "") -> None:
        super().__init__(f"at character {place}: {cause}" if place else cause)
        self.cause = cause
        self.place = place
        self.hint = hint


class Token(NamedTuple):
    kind: str  # a group of the pattern, or "end"
    text: str  # without its quotes
    place: int


class Cursor:
    """Goes over the tokens of a text from the left, and stays at the end.

    `pattern` has one named group for each kind of token; of those, `quoted` is a text in quotes and `bad` a character
    that can't stand anywhere, for which `hint` has words. What is wrong is raised as `error` makes it.
    """

    def __init__(self, text: str, pattern: re.Pattern[str], error: Refusal, hint: Callable[[str], str]) -> None:
        self._error = error
        self._tokens = list(self._read(text, pattern, hint))
        self._next = 0

    def _read(self, text: str, pattern: re.Pattern[str], hint: Callable[[str], str]) -> Iterator[Token]:
        at = 0
        while (match := pattern.match(text, at)) is not None:
            kind = match.lastgroup or ""
            place = match.start(kind) + 1
            if kind == "bad":
                raise self._error(f"{match[kind]!r} can't stand here", place, hint(match[kind]))
            yield Token(kind, match[kind][1:-1] if kind == "quoted" else match[kind], place)
            at = match.end()
        yield Token("end", "the end", len(text) + 1)

    def peek(self, further: int = 0) -> Token:
        """The next token, or the one so many after it."""
        return self._tokens[min(self._next + further, len(self._tokens) - 1)]

    def advance(self) -> Token:
        token = self.peek()
        if token.kind != "end":
            self._next += 1
        return token

    def take(self, text: str) -> bool:
        """Go past the next token if it is this word or sign."""
        if self.peek().text != text or self.peek().kind not in ("word", "sign"):
            return False
        self._next += 1
        return True

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            raise self._error(f"{sign!r} must stand here, not {self.peek().text!r}", self.peek().place, "")
