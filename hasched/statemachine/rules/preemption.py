"""Preemption: a running task gives its room back, and waits again.

What is decided here is only that it has to. Its agent warns it and ends it, and the end of its attempt puts the task back
into the line where it stood, with no retry used (`rules/ends.py`). Until that end the attempt holds its room, and whatever
the task says counts: one that succeeds in time has succeeded. So nothing is lost if the node, the agent or the leader goes
meanwhile: a node's loss is one more way for the attempt to end, and a new leader sends the stop again.
"""

from __future__ import annotations

from collections.abc import Iterable

from hasched.model.states import EndKind
from hasched.model.wire import AttemptKey
from hasched.statemachine.commands import PreemptAttempts, PreemptTasks
from hasched.statemachine.events import TasksPreempted
from hasched.statemachine.job import Job, Yield
from hasched.statemachine.outcomes import AttemptsPreempted, Rejected
from hasched.statemachine.rules import Decision
from hasched.statemachine.rules.yields import MAX_REASON_LENGTH, mark_yielding
from hasched.statemachine.state import State


def decide_attempts(state: State, command: PreemptAttempts) -> Decision | Rejected:
    """The planner's choice. Each attempt is checked again: still current, not on its way out, and of a job that may be
    preempted for this one."""
    winner = state.jobs.get(command.for_job)
    if winner is None or winner.suspended or winner.ending or not winner.eligible:
        return Rejected("preemption_moot", f"nothing of job {command.for_job} waits to start")
    chosen: dict[int, list[int]] = {}
    for key in dict.fromkeys(command.attempts):
        job = state.jobs.get(key.job_id)
        if job is not None and may_preempt(winner, job) and _is_current(job, key):
            chosen.setdefault(job.id, []).append(key.index)
    events = [
        TasksPreempted(job_id, indices, winner.id, "", command.reason[:MAX_REASON_LENGTH])
        for job_id, indices in sorted((job_id, whole(state.jobs[job_id], some)) for job_id, some in chosen.items())
    ]
    taken = sum(map(len, chosen.values()))
    return Decision(list(events), AttemptsPreempted(sum(len(e.indices) for e in events), len(command.attempts) - taken))


def decide_tasks(state: State, command: PreemptTasks) -> Decision | Rejected:
    """An operator's wish: for no other job, so whatever runs will do."""
    job = state.jobs.get(command.job_id)
    if job is None:
        return Rejected(
            "no_such_job", f"there is no job {command.job_id}", "it may have been deleted, or have passed its retention"
        )
    if any(not 0 <= index < job.count for index in command.indices):
        return Rejected("no_such_task", f"job {job.id} has the tasks 0 to {job.count - 1}", "name tasks of this job")
    wanted = [index for index in dict.fromkeys(command.indices) if can_yield(job, index)]
    indices = whole(job, wanted if command.indices else _all_that_can_yield(job))
    if not indices:
        return Rejected(
            "nothing_to_preempt",
            f"none of the tasks meant of job {job.id} runs without being stopped already",
            "only a scheduled or running task can be preempted",
        )
    event = TasksPreempted(job.id, indices, 0, command.actor, command.reason[:MAX_REASON_LENGTH])
    return Decision([event], AttemptsPreempted(len(indices), 0))


def may_preempt(winner: Job, victim: Job) -> bool:
    """Only if the winner's priority class says so, and never for an equal."""
    return winner.preempts and winner.priority > victim.priority


def can_yield(job: Job, index: int) -> bool:
    """Whether the task runs, and nobody has told it to stop."""
    active = job.attempt_of(index)
    return active is not None and not active.stopping and job.yield_of(index) is None


def _all_that_can_yield(job: Job) -> list[int]:
    """There may be a hundred thousand."""
    attempts, yields = (job.active_attempts or {}).items(), job.yields
    if not yields:
        return [index for index, active in attempts if not active.stopping]
    return [index for index, active in attempts if not active.stopping and index not in yields]


def _is_current(job: Job, key: AttemptKey) -> bool:
    active = job.attempt_of(key.index)
    return active is not None and active.attempt == key.attempt and can_yield(job, key.index)


def whole(job: Job, indices: Iterable[int]) -> tuple[int, ...]:
    """What has to yield if these do, each named once: of a gang all, of an elastic job all if fewer than its floor would stay."""
    if job.gang is None:
        return tuple(sorted(indices))
    chosen = dict.fromkeys(indices)
    if chosen:
        active = job.active_attempts or {}
        staying = [index for index in active if can_yield(job, index) and index not in chosen]
        if job.gang.whole or len(staying) < job.floor:
            chosen.update(dict.fromkeys(staying))
    return tuple(sorted(chosen))


def evolve_preempted(state: State, event: TasksPreempted) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    note = Yield(EndKind.PREEMPTED, event.for_job, event.actor, event.reason, state.now_ms, state.index)
    mark_yielding(job, event.indices, note)
