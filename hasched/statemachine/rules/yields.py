"""Yields: active tasks that have to stop now, to start again later."""

from __future__ import annotations

from collections.abc import Sequence

from hasched.model.states import EndKind
from hasched.statemachine.job import Job, Yield

MAX_REASON_LENGTH = 1000


def mark_yielding(job: Job, indices: Sequence[int], note: Yield) -> None:
    """Have these active tasks stop and start again later."""
    attempts, now_ms, log_index = job.active_attempts or {}, note.requested_ms, note.log_index
    for index in indices:
        active = attempts[index]
        active.changed_ms = now_ms
        active.log_index = log_index
    noted = dict.fromkeys(indices, note)
    if job.yields:
        job.yields.update(noted)
    else:
        job.yields = noted


def words_of_yield(note: Yield) -> str:
    """Why an attempt was ended so that its task starts again."""
    if note.kind is EndKind.GANG_RESTARTED:
        return note.reason
    asker = f"for job {note.for_job}" if note.for_job else f"by {note.actor}"
    return f"preempted {asker}: {note.reason}"[:MAX_REASON_LENGTH] if note.reason else f"preempted {asker}"
