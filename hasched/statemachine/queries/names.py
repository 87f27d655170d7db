"""Refusals for a name that nothing has, with what was perhaps meant.

That is worked out for who asked, and not where a command is decided: what every manager does for an entry must be little,
however many names there are.
"""

from __future__ import annotations

import msgspec

from hasched.model.kinds import suggest_name
from hasched.model.policy import Cap, PolicyKind, Quota
from hasched.model.schedule import ScheduleSpec
from hasched.model.spec import JobSpec
from hasched.statemachine.commands import (
    Command,
    DeletePolicy,
    PutPolicy,
    PutSchedule,
    RemoveManager,
    SubmitJob,
    UpdateJob,
)
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.state import State


def with_hint(rejected: Rejected, command: Command, state: State) -> Rejected:
    """The refusal with the names that come nearest to the one that nothing has."""
    match command:
        case SubmitJob(spec=spec):
            hint = _hint_for_job(rejected.code, spec, state)
        case UpdateJob(priority_class=str(name)) if rejected.code == "unknown_priority_class":
            hint = policy_hint(state, PolicyKind.PRIORITY_CLASS, name)
        case PutPolicy(body=Quota(namespace=name) | Cap(namespace=name)) if rejected.code == "unknown_namespace":
            hint = policy_hint(state, PolicyKind.NAMESPACE, name)
        case PutSchedule(spec=ScheduleSpec(job=JobSpec() as spec)):
            hint = _hint_for_job(rejected.code, spec, state)
        case PutPolicy(body=Quota(parent=name)) if rejected.code == "unknown_quota":
            hint = policy_hint(state, PolicyKind.QUOTA, name)
        case DeletePolicy(kind=kind, name=name) if rejected.code == "no_such_policy":
            hint = policy_hint(state, kind, name)
        case RemoveManager(manager_id=name) if rejected.code == "no_such_manager":
            hint = suggest_name(name, state.managers)
        case object(node_id=str(name)) if rejected.code == "no_such_node":
            hint = node_hint(state, name)
        case _:
            hint = ""
    return msgspec.structs.replace(rejected, hint=hint) if hint else rejected


def _hint_for_job(code: str, spec: JobSpec, state: State) -> str:
    match code:
        case "unknown_priority_class":
            return policy_hint(state, PolicyKind.PRIORITY_CLASS, spec.priority_class)
        case "unknown_namespace":
            return policy_hint(state, PolicyKind.NAMESPACE, spec.namespace)
        case "no_such_resource_class":
            return policy_hint(state, PolicyKind.RESOURCE_CLASS, spec.placement.resource_class)
        case "unknown_semaphore":
            caps = state.policies[PolicyKind.CAP]
            return next(
                (policy_hint(state, PolicyKind.CAP, name) for name, _ in spec.semaphores if name not in caps), ""
            )
        case _:
            return ""


def policy_hint(state: State, kind: PolicyKind, name: str) -> str:
    table = state.policies[kind]
    return "" if name in table else suggest_name(name, table, f"see `hasched policy list --kind {kind}`")


def node_hint(state: State, name: str) -> str:
    return suggest_name(name, state.nodes, "see `hasched node list`")
