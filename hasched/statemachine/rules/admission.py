"""Admission: what a queue, a quota or a cap will never let start, or not even wait, is refused when it is submitted."""

from __future__ import annotations

from hasched.model.policy import Cap, PolicyKind
from hasched.model.spec import JobSpec
from hasched.statemachine.limits import Group, Limits
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules import queues
from hasched.statemachine.shortages import Wanted, find_refusal
from hasched.statemachine.state import State


def refuse(state: State, actor: str, spec: JobSpec, limits: Limits, *, in_workflow: bool) -> Rejected | None:
    """The refusal of a submission, None if it may come in. `limits` are the state's, or those with more in use."""
    if refused := refuse_queue(state, spec.queue, together_of(spec)):
        return refused
    if not (limits.any_quotas or limits.any_caps or spec.semaphores):
        return None
    group = Group(spec.namespace, actor, in_workflow, spec.name, spec.tags or None, spec.semaphores or None)
    caps = {
        name: cap
        for name, _ in spec.semaphores
        if (record := state.policies[PolicyKind.CAP].get(name)) is not None and isinstance(cap := record.body, Cap)
    }
    short = find_refusal(limits, group, options_of(spec), spec.count, caps)
    if isinstance(short, str):
        return Rejected("unknown_semaphore", short, "see `hasched policy list --kind cap`") if short else None
    if short.kind is PolicyKind.CAP:
        hint = "ask for fewer units" if short.semaphore else "have fewer tasks start together, or name another"
        return Rejected("cap_exceeded", short.text, hint)
    if short.never:
        return Rejected("quota_exceeded", short.text, "ask for less")
    return Rejected("quota_exceeded", short.text, "wait until some of it has started or ended, or ask for less")


def refuse_queue(state: State, name: str, together: int) -> Rejected | None:
    """The refusal of a job of which so many tasks start together in a queue that never runs so many."""
    most = queues.max_running_of(state, name)
    if state.entry_version < queues.QUEUES_LIMIT_SINCE or not 0 < most < together:
        return None
    cause = f"{together} of its tasks start together, and queue {name} runs {most} at most; it could never start"
    return Rejected("queue_exceeded", cause, "have fewer start together, or name another queue")


def together_of(spec: JobSpec) -> int:
    """How many of its tasks start at once, or none does."""
    terms = spec.gang_terms
    return terms.min_count if terms is not None else 1


def options_of(spec: JobSpec) -> list[Wanted]:
    """What has to start at once, for each alternative."""
    if spec.groups:
        return [[(group.resources, group.count) for group in spec.groups]]
    return [[(request, together_of(spec))] for request in (spec.placement.any_of or (spec.resources,))]
