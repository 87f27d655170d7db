"""Dependencies: a job that waits for others is held back from its acceptance on, until the clock's step that lets it go.

Only jobs that were accepted before can be named, so nothing ever waits for itself. What a job waits for is decided by what the
state says of the other job: its start, its recorded outcome, or the outcomes of its tasks. An end marks those that wait for it
(`statemachine/waits.py`), and the next step of the clock, which is due at once, decides about them (`releases.py`). Should the
other job be forgotten in between, its outcome is kept for as long as anybody waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

import msgspec

from hasched.model.dependency import format_condition
from hasched.model.spec import MAX_CONDITIONS, Condition, Dependency, JobSpec
from hasched.model.states import ConditionKind, TaskState
from hasched.model.units import MAX_INTEGER
from hasched.statemachine.events import DependencyBroken, DependencyMet, DependencyTimed, TasksReleased
from hasched.statemachine.job import Job
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.state import State
from hasched.statemachine.waits import ITS_NAME, MAX_DEPENDANTS, MAX_ELEMENTWISE, Awaited, KeptEnd, Waits

ENDS_KEPT_ONCE_SINCE = 4  # the version of entries; before, whoever waited was given a copy

# ── When a job comes in ─────────────────────────────────────────────────────────────────────────────────────────────


def fault_of(spec: JobSpec) -> str:
    """What makes a dependency unsafe to hold; the edge has refused it long before."""
    if spec.dependency is None:
        return ""
    conditions = spec.dependency.conditions
    if not 0 < len(conditions) <= MAX_CONDITIONS or len(dict.fromkeys(conditions)) != len(conditions):
        return "a dependency has too many conditions, none, or one of them twice"
    elementwise = [each for each in conditions if each.kind is ConditionKind.AFTERCORR]
    if elementwise and (spec.gang or spec.min_count or (spec.dependency.any_of and len(conditions) > 1)):
        return "aftercorr is of jobs whose tasks start one by one, and no alternative"
    for each in conditions:
        named = each.kind is not ConditionKind.SINGLETON
        delayed = each.kind is ConditionKind.AFTER
        if not named <= each.job_id <= named * MAX_INTEGER or not 0 <= each.delay_ms <= delayed * MAX_INTEGER // 2:
            return "a condition is out of bounds"
    return ""


def refuse(state: State, dependency: Dependency | None, count: int) -> Rejected | None:
    """Why a job of so many tasks can't wait for that."""
    for condition in dependency.conditions if dependency is not None else ():
        if condition.kind is not ConditionKind.SINGLETON and (refused := _refuse(state, condition, count)) is not None:
            return refused
    return None


def _refuse(state: State, condition: Condition, count: int) -> Rejected | None:
    job_id = condition.job_id
    other = state.jobs.get(job_id)
    if other is None:
        if job_id >= state.next_job_id:
            cause = f"`{format_condition(condition)}`: there is no job {job_id} yet"
            return Rejected("unknown_dependency", cause, "name jobs that were submitted before")
        cause = f"`{format_condition(condition)}`: job {job_id} is forgotten, and with it how it ended"
        return Rejected("dependency_gone", cause, "leave it out, or run that job again; ended jobs are kept seven days")
    if condition.kind is ConditionKind.AFTERCORR:
        if other.count != count:
            cause = f"`{format_condition(condition)}`: job {job_id} has {other.count} tasks, and this one {count}"
            return Rejected("dependency_mismatch", cause, "give it as many tasks, or wait for all of it by afterok")
        if other.is_gang:
            cause = f"`{format_condition(condition)}`: job {job_id} is a gang, whose tasks end together"
            return Rejected("dependency_mismatch", cause, "wait for all of it by afterok")
    elementwise = condition.kind is ConditionKind.AFTERCORR
    most = MAX_ELEMENTWISE if elementwise else MAX_DEPENDANTS
    dependants = state.dependants
    if (len(dependants.tasks.get(job_id, ())) if elementwise else dependants.number(job_id)) >= most:
        cause = f"`{format_condition(condition)}`: {most} jobs wait for job {job_id} already"
        return Rejected("too_many_dependants", cause, "wait for one of them instead, or put the work into one job")
    return None


def refuse_change(state: State, job: Job, dependency: Dependency) -> Rejected | None:
    """Why a job can't wait for that from now on. It may name none that came later, so nothing ever waits for itself."""
    if job.started_ms or job.active or job.histories or job.counts[TaskState.PENDING] != job.count:
        return Rejected("job_started", f"tasks of job {job.id} have been started already", "suspend it instead")
    if dependency.conditions and (
        fault := fault_of(msgspec.structs.replace(job.spec, dependency=dependency, count=job.count))
    ):
        return Rejected("invalid_update", fault, "validate updates with parse_update before they are proposed")
    later = next((each.job_id for each in dependency.conditions if each.job_id >= job.id), 0)
    if later:
        cause = f"job {later} was not submitted before job {job.id}, which can wait only for those that were"
        return Rejected("unknown_dependency", cause, "so that no jobs wait for each other in a circle")
    return refuse(state, dependency, job.count)


def evolve_changed(state: State, job: Job, dependency: Dependency) -> None:
    """A job of which nothing was tried waits for this instead; without conditions, for nothing."""
    state.change_spec(job, msgspec.structs.replace(job.spec, dependency=dependency if dependency.conditions else None))
    state.let_all_go(job)
    state.set_waits(job, None)
    if dependency.conditions:
        evolve_held_back(state, job, dependency)


def evolve_held_back(state: State, job: Job, dependency: Dependency | None) -> None:
    """A job that was just accepted, or given another dependency, waits."""
    if dependency is not None:
        waits = Waits.of(dependency)
        state.hold_back(job, waits)
        for awaited in waits.open:
            _stir_if_begun(state, job, awaited.condition)


def _stir_if_begun(state: State, job: Job, condition: Condition) -> None:
    """Have it looked at what a job waits for of another that has begun, or ended, before it came. Most have not."""
    other = state.jobs.get(condition.job_id)
    match condition.kind:
        case ConditionKind.SINGLETON:
            if state.dependants.names.first(job.name_key) == job.id:
                state.dependants.stir_for(job.id, ITS_NAME)
        case ConditionKind.AFTERCORR:
            if other is None or any(other.counts[TaskState.SUCCEEDED :]):
                state.dependants.stir(job.id)
        case ConditionKind.AFTER:
            if other is None or other.started_ms or other.ended:
                state.dependants.stir_for(job.id, condition.job_id)
        case _:
            if other is None or other.ended:
                state.dependants.stir_for(job.id, condition.job_id)


# ── What a condition depends on ─────────────────────────────────────────────────────────────────────────────────────


def judge(state: State, job: Job, awaited: Awaited) -> bool | None:
    """Whether what the job as a whole waits for holds; None: that is open."""
    condition = awaited.condition
    match condition.kind:
        case ConditionKind.SINGLETON:
            return state.dependants.names.first(job.name_key) == job.id or None
        case ConditionKind.AFTER:
            due_ms = due_of(state, awaited)
            return True if 0 < due_ms <= state.now_ms else None
        case ConditionKind.AFTERANY | ConditionKind.AFTEROK | ConditionKind.AFTERNOTOK:
            end = _end_of(state, awaited)
            if end is None or condition.kind is ConditionKind.AFTERANY:
                return None if end is None else True
            return (end is TaskState.SUCCEEDED) == (condition.kind is ConditionKind.AFTEROK)
        case ConditionKind.AFTERCORR:
            raise AssertionError("this is decided task by task")
        case _:
            assert_never(condition.kind)


def _end_of(state: State, awaited: Awaited) -> TaskState | None:
    """How the other job has ended."""
    other = state.jobs.get(awaited.condition.job_id)
    if other is None:
        kept = state.kept_ends.get(awaited.condition.job_id)
        return kept.end if kept is not None else awaited.end
    return other.state if other.ended else None


def due_of(state: State, awaited: Awaited) -> int:
    """From when an `after` holds; 0: the other job has neither started nor ended."""
    if awaited.due_ms:
        return awaited.due_ms
    other = state.jobs.get(awaited.condition.job_id)
    if other is not None:
        began_ms = _began_ms(state, other)
    else:
        kept = state.kept_ends.get(awaited.condition.job_id)
        began_ms = kept.began_ms if kept is not None else 0
    return began_ms + awaited.condition.delay_ms if began_ms else 0


def _began_ms(state: State, other: Job) -> int:
    """From when those that wait for its start count; 0: from no time yet."""
    if not other.started_ms:
        return other.ended_ms
    return max(other.submitted_ms, min(other.started_ms, state.now_ms))  # by the clock of its node


def peers_of(state: State, awaited: Awaited) -> bytes | bytearray:
    """The phases of the tasks whose successes are waited for."""
    other = state.jobs.get(awaited.condition.job_id)
    if other is not None:
        return other.phases
    kept = state.kept_ends.get(awaited.condition.job_id)
    return kept.phases if kept is not None else awaited.phases


def tell_waits(state: State, job: Job) -> str:
    """What a job waits for, in words: the first few conditions."""
    waits = job.waits
    assert waits is not None, "it waits"
    if waits.hopeless:
        broken = ", ".join(f"`{format_condition(each)}`" for each in waits.broken[:3])
        return f"its dependency can't be met any more: {broken}; cancel it, or give it another dependency"
    told = [_tell(state, job, awaited) for awaited in waits.open[:3]]
    more = len(waits.open) - len(told)
    text = (" or " if waits.any_of else " and ").join(told)
    return f"it waits for {text}" + (f", and {more} more" if more else "")


def _tell(state: State, job: Job, awaited: Awaited) -> str:
    condition = awaited.condition
    name = f"`{format_condition(condition)}`"
    if condition.kind is ConditionKind.SINGLETON:
        return f"{name} (job {state.dependants.names.first(job.name_key)} of its name has not ended)"
    other = state.jobs.get(condition.job_id)
    return f"{name} (job {condition.job_id} is {other.state.name})" if other is not None else name


# ── What events do to those that wait ───────────────────────────────────────────────────────────────────────────────


def evolve_met(state: State, event: DependencyMet) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    state.decide_waits(job, event.conditions, broken=False)
    if job.waits is not None and not job.waits.is_whole_left:
        state.dependants.stir(job.id)  # all its tasks: what held back all of it was the last such


def evolve_broken(state: State, event: DependencyBroken) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    state.decide_waits(job, event.conditions, broken=True)


def evolve_timed(state: State, event: DependencyTimed) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    state.time_wait(job, event.condition, event.due_ms)


def evolve_released(state: State, event: TasksReleased) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    if event.indices:
        state.let_go(job, event.indices)
    else:
        state.let_all_go(job)


def keep_end(state: State, other: Job) -> None:
    """The job is about to be forgotten: what it came to is kept, once, for those that have not been looked at yet."""
    dependants = state.dependants
    if state.entry_version < ENDS_KEPT_ONCE_SINCE:
        _keep_with_each(state, other)
    elif dependants.is_awaited(other.id):
        phases = bytes(other.phases) if other.id in dependants.tasks else b""
        state.kept_ends[other.id] = KeptEnd(other.id, other.state, _began_ms(state, other), phases)


def _keep_with_each(state: State, other: Job) -> None:
    for job_id in list(state.dependants.waiting_for(other.id)):
        job = state.jobs[job_id]
        state.touch(job)
        assert job.waits is not None, "it waits"
        kept = tuple(_kept(state, awaited, other) for awaited in job.waits.open)
        state.set_waits(job, msgspec.structs.replace(job.waits, open=kept))
        state.dependants.stir(job_id)


def _kept(state: State, awaited: Awaited, other: Job) -> Awaited:
    condition = awaited.condition
    if condition.job_id != other.id or awaited.due_ms:
        return awaited
    match condition.kind:
        case ConditionKind.AFTER:
            return Awaited(condition, due_of(state, awaited))
        case ConditionKind.AFTERCORR:
            return Awaited(condition, end=other.state, phases=bytes(other.phases))
        case _:
            return Awaited(condition, end=other.state)


def restore(state: State, job: Job) -> Iterator[str]:
    """Find a job that was read by what it waits for. Yields why it can't be."""
    assert job.waits is not None, "it waits"
    for awaited in job.waits.open:
        named = awaited.condition.kind is not ConditionKind.SINGLETON
        other = awaited.condition.job_id
        known = awaited.due_ms or awaited.end is not None or other in state.jobs or other in state.kept_ends
        if named and not known:
            yield f"waits for job {other}, which is not there"
        elementwise = awaited.condition.kind is ConditionKind.AFTERCORR
        if elementwise and known and len(peers_of(state, awaited)) != job.count:
            yield f"waits for tasks of job {other} that it hasn't"
        state.await_job(job, awaited)
