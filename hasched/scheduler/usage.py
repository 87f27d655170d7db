"""Usage: what runs on a node, and when it has surely ended, by the time limits that were declared."""

from __future__ import annotations

from hasched.model.spec import Resources
from hasched.scheduler.shapes import NEVER_MS, limit_of
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.state import State

MOST_ATTEMPTS = 256  # on a node: of one with more it isn't worked out when they end


def end_of(state: State, job: Job, index: int, limit_ms: int) -> int:
    """When the active attempt of a task has surely ended, `NEVER_MS` if nothing says so. What is overdue ends now."""
    active = job.attempt_of(index)
    assert active is not None, "only an active task holds a node"
    end_ms = NEVER_MS
    if limit_ms < NEVER_MS:
        end_ms = (active.started_ms or active.scheduled_ms) + limit_ms
    told = job.yield_of(index)
    if told is not None or active.stopping or job.deadline_ms:
        spec = job.spec
        if told is not None:
            end_ms = min(end_ms, told.requested_ms + spec.preemption.warning_ms + spec.kill_grace_ms)
        if active.stopping:
            end_ms = min(end_ms, active.changed_ms + spec.kill_grace_ms)
        if job.deadline_ms:
            end_ms = min(end_ms, job.deadline_ms + spec.kill_grace_ms)
    return max(end_ms, state.now_ms)


def gpus_end_of(state: State, node: Node) -> int:
    """When everything with GPUs on a node has surely ended."""
    end_ms = state.now_ms
    for job_id, index in node.attempts:
        job = state.jobs[job_id]
        if job.request_of(index).gpus:
            end_ms = max(end_ms, end_of(state, job, index, limit_of(job)))
    return end_ms


def ends_of(state: State, node: Node) -> list[tuple[int, Resources]]:
    """What each attempt on a node holds and when it has surely ended, the first to end first."""
    if len(node.attempts) > MOST_ATTEMPTS:
        return []
    limits: dict[int, int] = {}
    ends: list[tuple[int, int, int, Resources]] = []
    for job_id, index in node.attempts:
        job = state.jobs[job_id]
        limit_ms = limits.get(job_id)
        if limit_ms is None:
            limit_ms = limits[job_id] = limit_of(job)
        ends.append((end_of(state, job, index, limit_ms), job_id, index, job.request_of(index)))
    ends.sort(key=lambda end: end[:3])
    return [(end_ms, asked) for end_ms, _, _, asked in ends]
