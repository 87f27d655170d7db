"""Yields: active tasks that have to stop now, to start again later."""

from __future__ import annotations

from collections.abc import Iterable

from hasched.model.states import EndKind
from hasched.statemachine.job import Job, Yield

MAX_REASON_LENGTH = 1000


def mark_yielding(job: Job, indices: Iterable[int], note: Yield) -> None:
    """Have these active tasks stop and start again later."""
    yields = job.yields = job.yields or {}
    attempts = job.active_attempts or {}
    for index in indices:
        active = attempts[index]
        yields[index] = note
        active.changed_ms = note.requested_ms
        active.log_index = note.log_index


def words_of_yield(note: Yield) -> str:
    """Why an attempt was ended so that its task starts again."""
    if note.kind is EndKind.GANG_RESTARTED:
        return note.reason
    asker = f"for job {note.for_job}" if note.for_job else f"by {note.actor}"
    return f"preempted {asker}: {note.reason}"[:MAX_REASON_LENGTH] if note.reason else f"preempted {asker}"
