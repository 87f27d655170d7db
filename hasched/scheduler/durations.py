"""How long tasks are taken to run, where nobody knows: by what others of their name took, else by their time limit.

An estimate is the median of the latest tasks with the same submitter and name that succeeded, never more than the job's
time limit. A task that has outlived it is taken to run to its time limit, or for twice as long as it has run already.
Without a time limit and without history nothing is known, and a forecast says so rather than guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from hasched.model.states import EndKind
from hasched.statemachine import columns
from hasched.statemachine.job import Job
from hasched.statemachine.state import State

SAMPLES = 21  # of a name, the latest


class Basis(StrEnum):
    """What an estimate rests on."""

    HISTORY = "history"
    TIME_LIMIT = "time_limit"
    UNKNOWN = "unknown"


class Estimate(NamedTuple):
    duration_ms: int  # 0: not known
    basis: Basis


class Durations:
    """The history that a state holds, read once; ask it about any job, and tell it of jobs that end meanwhile if you like."""

    def __init__(self, state: State) -> None:
        samples: dict[tuple[str, str], list[int]] = {}
        for job in reversed(state.jobs.values()):
            if job.finished is None:
                continue
            known = samples.setdefault((job.actor, job.name), [])
            for duration_ms in _successes(job):
                if len(known) >= SAMPLES:
                    break
                known.append(duration_ms)
        self._medians = {key: sorted(known)[len(known) // 2] for key, known in samples.items() if known}
        self._estimates: dict[int, Estimate] = {}

    def of(self, job: Job) -> Estimate:
        """How long an attempt of the job runs from its start."""
        estimate = self._estimates.get(job.id)
        if estimate is None:
            estimate = self._estimates[job.id] = self._estimate(job)
        return estimate

    def _estimate(self, job: Job) -> Estimate:
        limit_ms = job.spec.timeout_ms
        median_ms = self._medians.get((job.actor, job.name))
        if median_ms is not None:
            return Estimate(max(1, min(median_ms, limit_ms) if limit_ms else median_ms), Basis.HISTORY)
        return Estimate(limit_ms, Basis.TIME_LIMIT) if limit_ms else Estimate(0, Basis.UNKNOWN)

    def end_of(self, job: Job, started_ms: int, now_ms: int) -> int:
        """When an attempt that runs already will end, not before `now_ms`; 0: not known."""
        estimate = self.of(job)
        if not estimate.duration_ms:
            return 0
        end_ms = started_ms + estimate.duration_ms
        if end_ms <= now_ms and estimate.basis is Basis.HISTORY:
            limit_ms = job.spec.timeout_ms
            end_ms = started_ms + limit_ms if limit_ms else now_ms + (now_ms - started_ms)
        return max(end_ms, now_ms)


def _successes(job: Job) -> Iterator[int]:
    """Durations of the tasks that succeeded in their first attempt."""
    assert job.finished is not None
    for number, block in enumerate(job.finished):
        if block is None:
            continue
        for index in range(number * columns.BLOCK, min((number + 1) * columns.BLOCK, job.count)):
            record = columns.get(job.finished, index)
            if record is not None and record.kind == EndKind.EXITED and record.code in job.success_exit_codes:
                yield record.duration_ms
