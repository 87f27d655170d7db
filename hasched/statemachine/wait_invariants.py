"""What must hold of jobs that wait for others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from hasched.model.dependency import format_dependency
from hasched.model.spec import Condition
from hasched.model.states import ConditionKind, TaskState
from hasched.statemachine.job import IN_BACKOFF, Job
from hasched.statemachine.records import attempt_records
from hasched.statemachine.rules import releases
from hasched.statemachine.state import State
from hasched.statemachine.waits import Dependants


def check_waits(state: State) -> Iterator[str]:
    """Nobody starts before their time, and nobody is forgotten."""
    found = Dependants()
    for job in state.jobs.values():
        yield from _check_started(state, job)
        waits = job.waits
        tried = sum(job.phases[index] == IN_BACKOFF for index in job.histories or ())
        untried = job.in_backoff - tried
        if waits is None:
            if untried:
                yield f"job {job.id} holds tasks back and waits for no other"
            continue
        if job.ended:
            yield f"job {job.id} has ended and waits for others"
            continue
        if (waits.whole or waits.hopeless) and untried != job.count - sum(job.counts[TaskState.SUCCEEDED :]):
            yield f"job {job.id} has started before what it waits for"
        if not waits.open and not waits.broken:
            yield f"job {job.id} waits for nothing"
        for awaited in waits.open:
            if awaited.condition.job_id >= job.id:
                yield f"job {job.id} waits for one that came later"
            if not (waits.hopeless and awaited.due_ms):
                found.add(job.id, job.name_key, awaited)
        yield from _check_stirred(state, job)
    known = state.dependants
    for name in ("starts", "ends", "tasks", "singletons"):
        mine, theirs = getattr(known, name), getattr(found, name)
        if mine != theirs:
            yield f"the table of {name} is {mine}, and the jobs that wait say {theirs}"
    for table in (known.starts, known.ends, known.tasks):
        if any(job_id not in state.jobs and job_id not in state.kept_ends for job_id in table):
            yield "somebody waits for a job that is gone"
    if any(job_id in state.jobs or not known.is_awaited(job_id) for job_id in state.kept_ends):
        yield "an end is kept that nobody needs"
    if not set(found.timers) <= set(known.timers):
        yield "somebody waits for a time that would never come"
    names: dict[tuple[str, str, str], list[int]] = {}
    for job in state.jobs.values():
        if not job.ended:
            names.setdefault(job.name_key, []).append(job.id)
    if known.names.of_all() != names:
        yield "the table of names doesn't match the jobs that have not ended"


def _check_stirred(state: State, job: Job) -> Iterator[str]:
    """What is to be decided about a job is found, and as it would be if everything were looked at."""
    stirred = state.dependants.stirred
    before = dict(stirred)
    hinted = list(releases.decide_one(state, job.id))
    stirred[job.id] = None
    whole = list(releases.decide_one(state, job.id))
    state.dependants.stirred = before
    if hinted != whole:
        yield f"of job {job.id} {whole} is to be decided, and {hinted} is found"
    timed = any(0 < each.due_ms <= state.now_ms for each in job.waits.open) if job.waits is not None else False
    if whole and job.id not in before and not timed:
        yield f"job {job.id} would wait for ever"


def _check_started(state: State, job: Job) -> Iterator[str]:
    """Said once more, from what the jobs came to and without a word of how the engine decides it: nothing started too early.

    Of a job that is forgotten nobody knows any more.
    """
    if b"dependency" not in job.packed_spec or (dependency := job.spec.dependency) is None:
        return
    tried = [index for index in range(job.count) if job.attempts_made(index)]
    if not tried:
        return
    first_ms = min(_first_scheduled_ms(state, job, index) for index in tried)
    held = [_holds(state, job, condition, tried, first_ms) for condition in dependency.conditions]
    if not (any(held) if dependency.any_of else all(held)):
        yield f"job {job.id} has run, and what it was to wait for is not so: {format_dependency(dependency)}"


def _first_scheduled_ms(state: State, job: Job, index: int) -> int:
    for record in attempt_records(state, job, index):
        return record.scheduled_ms
    active = job.attempt_of(index)
    assert active is not None, "it was tried"
    return active.scheduled_ms


def _holds(state: State, job: Job, condition: Condition, tried: list[int], first_ms: int) -> bool:
    if condition.kind is ConditionKind.SINGLETON:
        earlier = (each for each in state.jobs.values() if each.id < job.id and each.name_key == job.name_key)
        return all(0 < each.ended_ms <= first_ms for each in earlier)
    other = state.jobs.get(condition.job_id)
    if other is None:
        return True
    match condition.kind:
        case ConditionKind.AFTEROK:
            return other.state is TaskState.SUCCEEDED and other.ended_ms <= first_ms
        case ConditionKind.AFTERNOTOK:
            return other.ended and other.state is not TaskState.SUCCEEDED and other.ended_ms <= first_ms
        case ConditionKind.AFTERANY:
            return 0 < other.ended_ms <= first_ms
        case ConditionKind.AFTER:
            began = other.started_ms > 0 or other.ended  # the first by the clock of its node, which may be wrong
            return began and other.submitted_ms + condition.delay_ms <= first_ms
        case ConditionKind.AFTERCORR:
            return all(other.task_state(index) is TaskState.SUCCEEDED for index in tried)
        case _:
            assert_never(condition.kind)
