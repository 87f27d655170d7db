"""Whether a job that waits can still end in time. It starts nonetheless, and is stopped at its deadline."""

from __future__ import annotations

from hasched.model.answers import JobForecast
from hasched.model.reasons import ReasonCode
from hasched.model.times import format_time
from hasched.model.units import format_duration
from hasched.scheduler.blockers import Blocker, Change
from hasched.statemachine.job import Job
from hasched.statemachine.state import State


def find_late(state: State, job: Job, foreseen: JobForecast | None) -> Blocker | None:
    """The deadline, if the job isn't expected to start before it, or so late that its time limit reaches beyond it.

    Without a forecast it is taken to start at once. One that declares no time limit may end at any time.
    """
    if not job.deadline_ms or job.ending:
        return None
    deadline = format_time(job.deadline_ms)
    if foreseen is not None and foreseen.reason is not None and foreseen.reason.code == ReasonCode.DEADLINE:
        text = f"not all of it is expected to start before its deadline, {deadline}"
        return Blocker(
            ReasonCode.DEADLINE, text, change=Change("leave out the deadline, or name a later one", key="deadline")
        )
    limit_ms, expected_ms = job.spec.timeout_ms, 0
    if foreseen is not None:
        expected_ms = foreseen.last_start_ms or foreseen.start_ms
    start_ms = max(state.now_ms, job.not_before_ms, expected_ms)
    if not limit_ms or start_ms + limit_ms <= job.deadline_ms:
        return None
    start = f"is expected to start at {format_time(start_ms)}" if expected_ms else "has not started"
    text = f"it {start} and may take {format_duration(limit_ms)} by its timeout, and its deadline is {deadline}"
    needed = format_time(start_ms + limit_ms)
    return Blocker(
        ReasonCode.DEADLINE, text, change=Change(f"move the deadline to {needed}", key="deadline", value=needed)
    )
