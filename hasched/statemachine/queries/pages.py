"""Pages: a list is read a page at a time, each naming where the next begins."""

from __future__ import annotations

MAX_PAGE = 1000


class BadCursor(ValueError):
    """A cursor that no page has given out."""


def parse_cursor(cursor: str) -> int | None:
    if not cursor:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20):
        raise BadCursor(f"{cursor[:40]!r} is not a cursor; pass on the next_cursor of a page")
    return int(cursor)
