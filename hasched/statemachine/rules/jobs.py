"""Jobs: submitted once whatever is retried, suspended and resumed, cancelled, and forgotten after their end."""

from __future__ import annotations

import msgspec

from hasched.model.eligibility import find_fault, is_sound_request
from hasched.model.parse import MAX_SEMAPHORES, MAX_TAGS
from hasched.model.policy import PolicyKind, ResourceClass
from hasched.model.spec import ANYWHERE, MAX_GANG, MAX_INPUT_BYTES, MAX_PRIORITY, MAX_SPEC_BYTES, MAX_TASKS, JobSpec
from hasched.model.states import TaskState
from hasched.model.units import MAX_INTEGER
from hasched.statemachine.commands import CancelJob, DeleteJob, ResumeJob, SubmitJob, SuspendJob
from hasched.statemachine.events import (
    Event,
    JobCancelRequested,
    JobDeleted,
    JobEnded,
    JobExpired,
    JobResumed,
    JobSubmitted,
    JobSuspended,
)
from hasched.statemachine.job import OF_EXECUTIONS, WAITING, Cancel, derive_state
from hasched.statemachine.limits import Limits
from hasched.statemachine.outcomes import JobAccepted, Rejected
from hasched.statemachine.policies import find_policy
from hasched.statemachine.rules import Decision, admission, deadlines, dependencies, notifications, queues, updates
from hasched.statemachine.rules.planned import find_outdated
from hasched.statemachine.state import State, Tombstone

MAX_NAME_LENGTH = 256


def decide_submit(state: State, command: SubmitJob) -> Decision | Rejected:
    known = state.submissions.get(command.submission_id)
    if known is not None:
        return Decision([], JobAccepted(known, duplicate=True, log_index=state.jobs[known].submitted_index))
    packed = state.tombstones.get(command.submission_id)
    if packed is not None:
        gone = Tombstone.unpack(packed)
        return Decision([], JobAccepted(gone.job_id, duplicate=True, log_index=gone.log_index))
    outdated = find_outdated(state, command)
    if outdated is not None:
        return outdated
    spec = admit(state, command.submission_id, command.actor, command.spec, state.usage.limits, parent="")
    if isinstance(spec, Rejected):
        return spec
    job_id = state.next_job_id
    return Decision(
        [JobSubmitted(job_id, command.submission_id, command.actor, spec)],
        JobAccepted(job_id, duplicate=False, log_index=state.index),
    )


def admit(
    state: State, submission_id: str, actor: str, spec: JobSpec, limits: Limits, *, parent: str
) -> JobSpec | Rejected:
    """The spec with what classes give it, if such a job may come in now. `limits` are the state's, or those with more in use."""
    fault = _fault_of(submission_id, actor, spec)
    if fault is not None:
        return Rejected("invalid_spec", fault, "validate specs with parse_spec before they are proposed")
    late = deadlines.find_conflict(state, spec)
    if late is not None:
        return late
    if spec.namespace not in state.policies[PolicyKind.NAMESPACE]:
        return Rejected(
            "unknown_namespace",
            f"there is no namespace {spec.namespace}",
            "see `hasched namespace list`, or put it with `hasched policy apply`",
        )
    classed = updates.with_class(state, spec)
    if isinstance(classed, Rejected):
        return classed
    resolved = resolve_class(state, classed)
    if isinstance(resolved, Rejected):
        return resolved
    in_workflow = parent.startswith(OF_EXECUTIONS)
    refused = (
        notifications.refuse_unknown(state, resolved.notify, resolved.namespace)
        or queues.refuse_closed(state, resolved.queue)
        or dependencies.refuse(state, resolved.dependency, resolved.count)
        or admission.refuse(state, actor, resolved, limits, in_workflow=in_workflow)
    )
    return refused or resolved


def resolve_class(state: State, spec: JobSpec) -> JobSpec | Rejected:
    """The spec with the amounts of its resource class, as they are now: a later change of the class leaves the job as it is."""
    wanted = spec.placement.resource_class
    if not wanted:
        return spec
    found = find_policy(state.policies, ResourceClass, wanted)
    if found is None:
        known = ", ".join(sorted(state.policies[PolicyKind.RESOURCE_CLASS]))
        return Rejected("no_such_resource_class", f"there is no resource class {wanted!r}", f"known are {known}")
    return msgspec.structs.replace(spec, resources=found.resources)


def _fault_of(submission_id: str, actor: str, spec: JobSpec) -> str | None:
    """What makes a submission unsafe to hold. The edge has refused it long before, with more to say."""
    if not 0 < len(submission_id) <= MAX_NAME_LENGTH or len(actor) > MAX_NAME_LENGTH:
        return "the submission id or the actor is empty or too long"
    if not 0 < spec.count <= MAX_TASKS or not 0 <= spec.max_running <= MAX_TASKS:
        return f"a job has 1 to {MAX_TASKS} tasks"
    if len(spec.input) > MAX_INPUT_BYTES or len(spec.script) > MAX_SPEC_BYTES:
        return "the spec is too large"
    if len(spec.name) > MAX_NAME_LENGTH or len(spec.queue) > MAX_NAME_LENGTH or abs(spec.priority) > MAX_PRIORITY:
        return "the name, queue or priority is out of bounds"
    if max(len(spec.namespace), *(len(tag) for tag in spec.tags), 0) > MAX_NAME_LENGTH or len(spec.tags) > MAX_TAGS:
        return "the namespace or a tag is too long, or there are too many tags"
    if len(spec.semaphores) > MAX_SEMAPHORES or not _are_amounts(spec.semaphores):
        return "a semaphore is out of bounds"
    if len(spec.priority_class) > MAX_NAME_LENGTH:
        return "the priority class is out of bounds"
    rules = spec.placement
    if not is_sound_request(spec.resources):
        return "a resource is out of bounds"
    if rules != ANYWHERE:
        if rules.any_of and rules.resource_class:
            return "alternatives and a resource class exclude each other"
        if not all(map(is_sound_request, rules.any_of)) or (rules.any_of and rules.any_of[0] != spec.resources):
            return "an alternative is out of bounds"
        if fault := find_fault(rules):
            return fault
    if not all(
        0 <= time_ms <= MAX_INTEGER // 2
        for time_ms in (spec.not_before_ms, spec.not_before_after_ms, spec.deadline_ms, spec.deadline_after_ms)
    ):
        return "a time is out of bounds"
    if fault := _fault_of_gang(spec):
        return fault
    if fault := dependencies.fault_of(spec):
        return fault
    retries, backoff = spec.retries, spec.retries.backoff
    numbers = (retries.max, retries.node_lost, backoff.initial_ms, backoff.max_ms, backoff.multiplier_milli)
    if not all(0 <= number <= MAX_INTEGER // 2 for number in (*numbers, spec.timeout_ms, spec.kill_grace_ms)):
        return "a time limit, or a number of the retries and their backoff, is out of bounds"
    return None


def _are_amounts(pairs: tuple[tuple[str, int], ...]) -> bool:
    """Whether they are in the order of their names, each once, and none is nothing."""
    names = [name for name, _ in pairs]
    return names == sorted(dict.fromkeys(names)) and all(0 < amount <= MAX_INTEGER for _, amount in pairs)


def _fault_of_gang(spec: JobSpec) -> str | None:
    if not 0 <= spec.min_count <= spec.count:
        return "min_count is out of bounds"
    if spec.gang and (spec.max_running or spec.placement.any_of or spec.count > MAX_GANG):
        return "a gang has no max_running, no alternatives, and not so many tasks"
    if spec.groups and (
        not spec.gang
        or spec.min_count
        or sum(group.count for group in spec.groups) != spec.count
        or not all(group.count > 0 and is_sound_request(group.resources) for group in spec.groups)
    ):
        return "the groups don't make up the gang"
    return None


def evolve_submitted(state: State, event: JobSubmitted) -> None:
    job = state.add_job(event.job_id, event.submission_id, event.actor, event.spec, event.parent)
    job.preempts = updates.class_preempts(state, job.priority_class)
    state.set_times(job, *deadlines.times_of(state, event.spec))
    if job.placement is not None:
        state.neighbours.expect(state, job)
    dependencies.evolve_held_back(state, job, event.spec.dependency)


def decide_suspend(state: State, command: SuspendJob) -> Decision | Rejected:
    job = updates.live_job(state, command.job_id)
    if isinstance(job, Rejected):
        return job
    if job.suspended:
        return Decision([])
    if job.cancelling:
        return Rejected("job_cancelling", f"job {job.id} is being cancelled", "wait for its end")
    if job.ending:
        return Rejected("job_ending", f"job {job.id} is being stopped at its deadline", "wait for its end")
    return Decision([JobSuspended(job.id, command.actor)])


def evolve_suspended(state: State, event: JobSuspended) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    job.suspended = True


def decide_resume(state: State, command: ResumeJob) -> Decision | Rejected:
    job = updates.live_job(state, command.job_id)
    if isinstance(job, Rejected):
        return job
    return Decision([JobResumed(job.id, command.actor)] if job.suspended else [])


def evolve_resumed(state: State, event: JobResumed) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    job.suspended = False


def decide_cancel(state: State, command: CancelJob) -> Decision | Rejected:
    """A second cancel finds nothing left to do. One that comes after another end is told so."""
    job = state.jobs.get(command.job_id)
    if job is None:
        return updates.no_such_job(command.job_id)
    if job.cancelling:
        return Decision([])
    if job.ended and not command.indices and job.state is not TaskState.CANCELLED:
        return Rejected("job_ended", f"job {job.id} has ended: {job.state.name}", "nothing is left to cancel")
    if job.ending:
        return Decision([])
    indices = tuple(sorted(dict.fromkeys(command.indices)))
    if indices and not 0 <= indices[0] <= indices[-1] < job.count:
        return Rejected("no_such_task", f"job {job.id} has the tasks 0 to {job.count - 1}", "name tasks of this job")
    if job.is_gang:
        indices = ()  # its tasks end together
    active = job.active_attempts or {}
    if indices:
        phases = job.phases
        waiting = [index for index in indices if phases[index] in WAITING]
        stopping = tuple(index for index in indices if index in active and not active[index].stopping)
        if not waiting and not stopping:
            return Decision([])
        indices = tuple(sorted((*waiting, *stopping)))
        cancelled = len(waiting)
    else:
        cancelled = job.counts[TaskState.PENDING]
        stopping = tuple(sorted(active))
        if not cancelled and not stopping:
            return Decision([])
    events: list[Event] = [
        JobCancelRequested(job.id, command.actor, command.reason, indices, cancelled, stopping),
    ]
    if cancelled == job.counts[TaskState.PENDING] and not active:
        after = list(job.counts)
        after[TaskState.PENDING] -= cancelled
        after[TaskState.CANCELLED] += cancelled
        events.append(JobEnded(job.id, derive_state(after, job.count, not indices)))
    return Decision(events)


def evolve_cancel_requested(state: State, event: JobCancelRequested) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    note = Cancel(event.actor, event.reason, state.now_ms, state.index)
    if event.indices:
        phases = job.phases
        state.cancel_waiting(job, [index for index in event.indices if phases[index] in WAITING], note)
    else:
        job.cancel = note
        state.end_waiting(job, TaskState.CANCELLED)
    active = job.active_attempts or {}
    for index in event.stopping:
        attempt = active[index]
        attempt.stopping = True
        attempt.changed_ms = state.now_ms
        attempt.log_index = state.index
        if event.indices:
            attempt.cancel = note
    state.dependants.note_tasks(job.id, event.indices)
    state.settle(job)


def evolve_ended(state: State, event: JobEnded) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    assert job.state is event.state, f"job {job.id} was to end as {event.state.name} and is {job.state.name}"
    if event.state is TaskState.SUCCEEDED:
        job.exit_code = 0
    state.end_job(job)


def decide_delete(state: State, command: DeleteJob) -> Decision | Rejected:
    job = state.jobs.get(command.job_id)
    if job is None:
        return updates.no_such_job(command.job_id)
    if not job.ended:
        return Rejected("job_active", f"job {job.id} has not ended", "cancel it first, and wait for its end")
    return Decision([JobDeleted(job.id, command.actor)])


def evolve_gone(state: State, event: JobDeleted | JobExpired) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    dependencies.keep_end(state, job)
    state.drop_job(job)
