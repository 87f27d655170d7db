"""Placement: a plan is a proposal, and every task of it is checked again against the state that it meets."""

from __future__ import annotations

from hasched.model.states import TaskState
from hasched.statemachine.commands import Placement
from hasched.statemachine.events import TasksScheduled
from hasched.statemachine.job import ActiveAttempt
from hasched.statemachine.neighbours import RELATIONS_HELD_SINCE
from hasched.statemachine.rules.queues import room_in
from hasched.statemachine.state import State
from hasched.statemachine.usage import group_of

GPU_KINDS_SINCE = 2  # the version of entries; before, all GPUs of a node were alike


def decide_placement(state: State, placement: Placement) -> TasksScheduled | None:
    """As many of the placement's tasks as may start there now, in its order; None if none may."""
    job = state.jobs.get(placement.job_id)
    node = state.nodes.get(placement.node_id)
    if job is None or node is None or not node.takes_work or job.suspended or job.ending or job.not_before_ms:
        return None
    if job.starts_together:
        return None
    if not job.has_choice(placement.choice) or not node.admits(job.placement):
        return None
    indices = [index for index in dict.fromkeys(placement.indices) if job.is_eligible(index)]
    room = node.room_for(job.request(placement.choice), len(indices), by_kind=state.entry_version >= GPU_KINDS_SINCE)
    usage = state.usage
    if usage.limits.any_quotas or usage.limits.any_caps or job.semaphores:
        room = usage.limits.room(group_of(job), job.request(placement.choice), room, not job.active, state.now_ms)
    if job.max_running:
        room = min(room, job.max_running - job.active)
    room = room_in(state, job.queue, room)
    if room > 0 and job.placement is not None and state.entry_version >= RELATIONS_HELD_SINCE:
        room = state.neighbours.room(state, job, node, room)
    if room <= 0 or not indices:
        return None
    placed = tuple(indices[:room])
    attempts = tuple(job.attempts_made(index) + 1 for index in placed)
    return TasksScheduled(job.id, node.id, placed, attempts, placement.choice)


def evolve_scheduled(state: State, event: TasksScheduled) -> None:
    job = state.jobs[event.job_id]
    node = state.nodes[event.node_id]
    state.touch(job)
    if job.active_attempts is None:
        job.active_attempts = {}
        state.usage.start_job(job)
    for index, attempt in zip(event.indices, event.attempts, strict=True):
        state.move_task(job, index, TaskState.SCHEDULED, counted=True)
        job.active_attempts[index] = ActiveAttempt(
            attempt, node.id, TaskState.SCHEDULED, state.now_ms, state.index, state.now_ms
        )
        node.attempts[job.id, index] = attempt
    state.usage.wait(job, -len(event.indices))
    if event.choice:
        if job.choices is None:
            job.choices = {}
        job.choices.update(dict.fromkeys(event.indices, event.choice))
    if job.gang is not None and job.gang.groups:
        for index in event.indices:
            state.hold(job, node, job.request_of(index), 1)
    else:
        state.hold(job, node, job.request(event.choice), len(event.indices))
    state.settle(job)
