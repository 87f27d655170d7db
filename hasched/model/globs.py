"""Patterns with `*` and `?`, matched in time that no pattern can make long."""

from __future__ import annotations

MAX_STARS = 8


def matches_glob(text: str, pattern: str) -> bool:
    """Whether the whole text is as the pattern says: `*` is anything, also nothing, and `?` one character."""
    first, *rest = pattern.split("*")
    if not rest:
        return _fits(text, pattern, 0) and len(text) == len(pattern)
    last = rest.pop()
    if len(text) < len(first) + len(last) or not _fits(text, first, 0) or not _fits(text, last, len(text) - len(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in rest:
        at = _find(text, part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _find(text: str, part: str, at: int, end: int) -> int:
    """Where the part stands first, -1 if nowhere."""
    if "?" not in part:
        return text.find(part, at, end)
    return next((place for place in range(at, end - len(part) + 1) if _fits(text, part, place)), -1)


def _fits(text: str, part: str, at: int) -> bool:
    if "?" not in part:
        return text.startswith(part, at)
    return at + len(part) <= len(text) and all(
        sign in ("?", character) for sign, character in zip(part, text[at : at + len(part)], strict=True)
    )
