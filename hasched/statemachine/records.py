"""The ended attempts of a task, whichever way they are kept."""

from __future__ import annotations

from collections.abc import Sequence

from hasched.model.spec import MAX_JOB_OUTPUT_BYTES
from hasched.model.states import EndKind
from hasched.statemachine.job import AttemptRecord, Job
from hasched.statemachine.state import State

OUTPUT_DROPPED = f"its output was not kept: the job's outputs fill {MAX_JOB_OUTPUT_BYTES >> 20} MiB"


def attempt_records(state: State, job: Job, index: int) -> Sequence[AttemptRecord]:
    """The ended attempts of a task, oldest first."""
    history = job.history_of(index)
    if history is not None:
        return history.attempts
    plain = job.plain_end_of(index)
    if plain is None:
        return ()
    ended_ms = job.submitted_ms + plain.ended_after_ms
    return (
        AttemptRecord(
            1,
            job.task_state(index),
            state.node_names[plain.node_number],
            EndKind(plain.kind),
            plain.code,
            OUTPUT_DROPPED if plain.output_dropped else "",
            job.submitted_ms + plain.scheduled_after_ms,
            ended_ms - plain.duration_ms,
            ended_ms,
            plain.cpu_ms,
            plain.peak_memory_bytes,
            ended_ms,
            job.submitted_index + plain.index_after,
        ),
    )
