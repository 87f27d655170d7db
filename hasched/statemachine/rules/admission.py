"""Admission: what a quota or a semaphore will never let start, or not even wait, is refused when it is submitted."""

from __future__ import annotations

from hasched.model.policy import Cap, PolicyKind
from hasched.model.spec import JobSpec
from hasched.statemachine.limits import Group, Limits
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.shortages import Wanted, find_refusal
from hasched.statemachine.state import State


def refuse(state: State, actor: str, spec: JobSpec, limits: Limits) -> Rejected | None:
    """The refusal of a submission, None if it may come in. `limits` are the state's, or those with more in use."""
    if not (limits.any_quotas or spec.semaphores):
        return None
    group = Group(spec.namespace, actor, spec.name, spec.tags or None, spec.semaphores or None)
    caps = {
        name: cap
        for name, _ in spec.semaphores
        if (record := state.policies[PolicyKind.CAP].get(name)) is not None and isinstance(cap := record.body, Cap)
    }
    short = find_refusal(limits, group, options_of(spec), spec.count, caps)
    if isinstance(short, str):
        return Rejected("unknown_semaphore", short, "see `hasched policy list --kind cap`") if short else None
    if short.kind is PolicyKind.CAP:
        return Rejected("cap_exceeded", short.text, "ask for fewer units")
    if not short.used:
        return Rejected("quota_exceeded", f"{short.text}; it could never start", "ask for less")
    return Rejected("quota_exceeded", short.text, "wait until some of it has started or ended, or ask for less")


def options_of(spec: JobSpec) -> list[Wanted]:
    """What has to start at once, for each alternative."""
    if spec.groups:
        return [[(group.resources, group.count) for group in spec.groups]]
    terms = spec.gang_terms
    together = terms.min_count if terms is not None else 1
    return [[(request, together)] for request in (spec.placement.any_of or (spec.resources,))]
