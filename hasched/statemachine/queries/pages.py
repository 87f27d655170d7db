"""Pages: a list is read a page at a time, each naming where the next begins."""

from __future__ import annotations

from collections.abc import Iterator

from hasched.statemachine.job import Job
from hasched.statemachine.state import State

MAX_PAGE = 1000
MAX_SCANNED = 20_000  # jobs looked at for one page: a rare match must not hold up the manager


class BadCursor(ValueError):
    """A cursor that no page has given out."""


def parse_cursor(cursor: str) -> int | None:
    if not cursor:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20):
        raise BadCursor(f"{cursor[:40]!r} is not a cursor; pass on the next_cursor of a page")
    return int(cursor)


def jobs_before(state: State, before_id: int | None) -> Iterator[Job]:
    """Jobs with smaller ids, descending."""
    if before_id is None:
        yield from reversed(state.jobs.values())
        return
    oldest_id = next(iter(state.jobs), 0)
    for job_id in range(min(before_id, state.next_job_id) - 1, oldest_id - 1, -1):
        job = state.jobs.get(job_id)
        if job is not None:
            yield job
