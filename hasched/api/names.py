"""Names that nothing has: a refusal that says what was perhaps meant, and a warning where a name may be a slip.

That is worked out here and not where a command is decided: what every manager does for an entry must be little, however many
names there are.
"""

from __future__ import annotations

from itertools import islice

import msgspec

from hasched.model.errors import BadRequest, Conflict
from hasched.model.kinds import MOST_COMPARED, suggest, suggest_name
from hasched.model.policy import Cap, Policy, PolicyKind, Quota, Reservation
from hasched.model.schedule import ScheduleSpec
from hasched.model.spec import EVERY, JobSpec
from hasched.statemachine.commands import Command, DeletePolicy, PutPolicy, PutSchedule, SubmitJob, UpdateJob
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.queries.pages import MAX_SCANNED
from hasched.statemachine.state import State

_UNKNOWN = {PolicyKind.QUEUE: "unknown_queue", PolicyKind.NAMESPACE: "unknown_namespace"}
_SHOWN_NODES = 3
_MOST_NODES = 1000  # that are looked at for each job that is submitted


def with_hint(rejected: Rejected, command: Command, state: State) -> Rejected:
    """The refusal with the names that come nearest to the one that nothing has."""
    match command:
        case SubmitJob(spec=spec):
            hint = _hint_for_job(rejected.code, spec, state)
        case UpdateJob(priority_class=str(name)) if rejected.code == "unknown_priority_class":
            hint = policy_hint(state, PolicyKind.PRIORITY_CLASS, name)
        case PutPolicy(body=Quota(namespace=name) | Cap(namespace=name)) if rejected.code == "unknown_namespace":
            hint = policy_hint(state, PolicyKind.NAMESPACE, name)
        case PutSchedule(spec=ScheduleSpec(job=spec)):
            hint = _hint_for_job(rejected.code, spec, state)
        case PutPolicy(body=Quota(parent=name)) if rejected.code == "unknown_quota":
            hint = policy_hint(state, PolicyKind.QUOTA, name)
        case DeletePolicy(kind=kind, name=name) if rejected.code == "no_such_policy":
            hint = policy_hint(state, kind, name)
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


def check_filter(state: State, kind: PolicyKind, name: str | None) -> None:
    """Raises BadRequest for a queue or namespace that neither a policy nor a job has: whoever asks for its jobs has slipped."""
    if name is None or name in state.policies[kind]:
        return
    field = kind.value
    if len(state.jobs) > MAX_SCANNED or any(getattr(job, field) == name for job in state.jobs.values()):
        return  # of so many jobs one may have it
    raise BadRequest(f"there is no {field} {name[:100]!r}", policy_hint(state, kind, name), code=_UNKNOWN[kind])


def check_reservation(state: State, name: str, body: Policy, allow_unknown_nodes: bool) -> None:
    """Raises Conflict for a reservation that would keep nothing, or for nobody, because of a slip in a name.

    What it names already as it is stays as it is: a node that has been removed since doesn't keep anybody from changing it.
    """
    if not isinstance(body, Reservation):
        return
    record = state.policies[PolicyKind.RESERVATION].get(name)
    before = record.body.nodes if record is not None and isinstance(record.body, Reservation) else ()
    for namespace in body.namespaces:
        if namespace not in state.policies[PolicyKind.NAMESPACE]:
            hint = policy_hint(state, PolicyKind.NAMESPACE, namespace)
            raise Conflict(f"there is no namespace {namespace}", hint, code="unknown_namespace")
    missing = [node for node in body.nodes if node not in state.nodes and node not in before]
    if missing and not allow_unknown_nodes:
        shown = ", ".join(missing[:_SHOWN_NODES]) + (", …" if len(missing) > _SHOWN_NODES else "")
        hint = suggest(missing[0], islice(state.nodes, MOST_COMPARED))
        more = "nodes that are still to come are accepted with --allow-unknown-nodes (allow_unknown_nodes=true)"
        raise Conflict(
            f"no node is called {shown}",
            f"{hint} {more}" if hint else f"see `hasched node list`; {more}",
            code="unknown_node",
        )


def find_slips(state: State, spec: JobSpec) -> list[str]:
    """Warnings of names in a job that was accepted: they may be right, and nothing has them now."""
    found = []
    queues = state.policies[PolicyKind.QUEUE]
    if spec.queue not in queues and (meant := suggest(spec.queue, islice(queues, MOST_COMPARED))):
        found.append(f"no policy describes the queue {spec.queue}, so it is an ordinary one; {meant}")
    pools = spec.placement.pools
    if EVERY not in pools and len(state.nodes) <= _MOST_NODES:
        there = dict.fromkeys(node.facts.pool for node in state.nodes.values())
        if there and not any(pool in there for pool in pools):
            found.append(f"no node is in the pool {' or '.join(pools)} now; {suggest_name(pools[0], there)}")
    return found
