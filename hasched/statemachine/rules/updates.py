"""Updates: where a job stands in the order, and its times, from its submission to its end.

A priority class is looked up when a job is accepted or given it, and then left alone: what an operator makes of the class later
concerns later jobs.
"""

from __future__ import annotations

import msgspec

from hasched.model.ids import is_name
from hasched.model.policy import PolicyKind, Preempts, PriorityClass
from hasched.model.spec import MAX_PRIORITY, Dependency, JobSpec
from hasched.model.units import MAX_INTEGER
from hasched.model.words import counted
from hasched.statemachine.commands import UpdateJob
from hasched.statemachine.events import JobUpdated
from hasched.statemachine.job import Job
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.policies import find_policy
from hasched.statemachine.rules import Decision, admission, deadlines, dependencies, queues
from hasched.statemachine.state import State

NO_DEPENDENCY = Dependency(())


def with_class(state: State, spec: JobSpec) -> JobSpec | Rejected:
    """The spec with the priority that its class gives it."""
    if not spec.priority_class:
        return spec
    found = _find_class(state, spec.priority_class)
    return found if isinstance(found, Rejected) else msgspec.structs.replace(spec, priority=found.value)


def class_preempts(state: State, name: str) -> bool:
    """Whether jobs that are given the class now may drive out attempts of a lower priority."""
    found = find_policy(state.policies, PriorityClass, name) if name else None
    return found is not None and found.preempts is Preempts.LOWER


def _find_class(state: State, name: str) -> PriorityClass | Rejected:
    found = find_policy(state.policies, PriorityClass, name)
    if found is not None:
        return found
    known = ", ".join(sorted(state.policies[PolicyKind.PRIORITY_CLASS])[:20])
    return Rejected("unknown_priority_class", f"there is no priority class {name}", f"there are: {known}")


def decide_update(state: State, command: UpdateJob) -> Decision | Rejected:
    job = live_job(state, command.job_id)
    if isinstance(job, Rejected):
        return job
    if job.ending:
        return Rejected("job_ending", f"job {job.id} is being ended", "wait for its end")
    if fault := _fault_of(command):
        return Rejected("invalid_update", fault, "validate updates with parse_update before they are proposed")
    name, priority, preempts = job.priority_class, job.priority, job.preempts
    if command.priority_class is not None:
        found = _find_class(state, command.priority_class)
        if isinstance(found, Rejected):
            return found
        name, priority, preempts = command.priority_class, found.value, found.preempts is Preempts.LOWER
    elif command.priority is not None:
        name, priority, preempts = "", command.priority, False
    not_before_ms = _time_of(state, command.not_before_ms, command.not_before_after_ms, job.not_before_ms)
    deadline_ms = _time_of(state, command.deadline_ms, command.deadline_after_ms, job.deadline_ms)
    if not_before_ms <= state.now_ms:
        not_before_ms = 0
    if conflict := deadlines.conflict_of(state, not_before_ms, deadline_ms):
        return conflict
    if not_before_ms and job.active:
        return Rejected(
            "job_started", f"job {job.id} has {counted(job.active, 'task')} running already", "suspend it instead"
        )
    queue = job.queue if command.queue is None else command.queue
    if queue != job.queue:
        together = max(job.gang.min_count, 1) if job.gang is not None else 1
        refused = queues.refuse_closed(state, queue) or admission.refuse_queue(state, queue, together)
        if refused is not None:
            return refused
    dependency = command.dependency
    if dependency is not None and dependency == (job.spec.dependency or NO_DEPENDENCY):
        dependency = None
    if dependency is not None and (refused := dependencies.refuse_change(state, job, dependency)) is not None:
        return refused
    updated = JobUpdated(job.id, command.actor, priority, name, preempts, queue, not_before_ms, deadline_ms, dependency)
    return Decision([] if updated == _as_it_is(job, command.actor) else [updated])


def _fault_of(command: UpdateJob) -> str:
    times = (command.not_before_ms, command.not_before_after_ms, command.deadline_ms, command.deadline_after_ms)
    if any(not 0 <= time_ms <= MAX_INTEGER // 2 for time_ms in times if time_ms is not None):
        return "a time is out of bounds"
    if command.priority is not None and abs(command.priority) > MAX_PRIORITY:
        return "the priority is out of bounds"
    return "" if command.queue is None or is_name(command.queue) else "the queue is not a name"


def _time_of(state: State, time_ms: int | None, after_ms: int | None, before: int) -> int:
    if time_ms is not None:
        return time_ms
    return before if after_ms is None else state.now_ms + after_ms


def _as_it_is(job: Job, actor: str) -> JobUpdated:
    return JobUpdated(
        job.id, actor, job.priority, job.priority_class, job.preempts, job.queue, job.not_before_ms, job.deadline_ms
    )


def evolve_updated(state: State, event: JobUpdated) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    job.priority, job.preempts = event.priority, event.preempts
    job.priority_class = state.intern(event.priority_class)
    if event.queue != job.queue:
        state.change_queue(job, event.queue)
    state.set_times(job, event.not_before_ms, event.deadline_ms)
    if event.dependency is not None:
        dependencies.evolve_changed(state, job, event.dependency)


def live_job(state: State, job_id: int) -> Job | Rejected:
    """A job that has not ended."""
    job = state.jobs.get(job_id)
    if job is None:
        return no_such_job(job_id)
    if job.ended:
        return Rejected("job_ended", f"job {job_id} has ended: {job.state.name}", "submit it again to run it again")
    return job


def no_such_job(job_id: int) -> Rejected:
    return Rejected(
        "no_such_job", f"there is no job {job_id}", "it may have been deleted, or have passed its retention"
    )
