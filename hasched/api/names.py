"""Slips that the state machine would take: lists of what nothing has, reservations of nodes that aren't there, two currencies."""

from __future__ import annotations

from itertools import islice

from hasched.model.errors import BadRequest, Conflict
from hasched.model.facts import is_model
from hasched.model.kinds import MOST_COMPARED, suggest, suggest_name
from hasched.model.policy import FairShare, Policy, PolicyKind, Price, Reservation
from hasched.model.spec import EVERY, JobSpec
from hasched.scheduler.explain.resources import LABEL
from hasched.statemachine.queries.names import policy_hint
from hasched.statemachine.queries.pages import MAX_SCANNED
from hasched.statemachine.state import State

_UNKNOWN = {PolicyKind.QUEUE: "unknown_queue", PolicyKind.NAMESPACE: "unknown_namespace"}
_SHOWN_NODES = 3
_SHOWN_MODELS = 8
_MOST_NODES = 1000  # that are looked at for each job that is submitted


def check_filter(state: State, kind: PolicyKind, name: str | None) -> None:
    """Raises BadRequest for a queue or namespace that neither a policy nor a job has: whoever asks for its jobs has slipped."""
    if name is None or name in state.policies[kind]:
        return
    field = kind.value
    if len(state.jobs) > MAX_SCANNED or any(getattr(job, field) == name for job in state.jobs.values()):
        return  # of so many jobs one may have it
    raise BadRequest(f"there is no {field} {name[:100]!r}", policy_hint(state, kind, name), code=_UNKNOWN[kind])


def check_label(state: State, by: str) -> None:
    """Raises BadRequest for `label.NAME` where no node has such a label."""
    label = by.removeprefix(LABEL)
    if not by.startswith(LABEL) or not label or any(label in node.facts.labels for node in state.nodes.values()):
        return
    there = dict.fromkeys(key for node in islice(state.nodes.values(), _MOST_NODES) for key in node.facts.labels)
    raise BadRequest(f"no node has the label {label[:100]}", suggest_name(label, there), code="unknown_label")


def check_policy(state: State, name: str, body: Policy, allow_unknown_nodes: bool) -> None:
    """Raises Conflict for a policy that would be for nobody, or of nothing, because of a slip in a name.

    What it names already as it is stays as it is: a node that has been removed since doesn't keep anybody from changing it.
    """
    match body:
        case FairShare(weights=weights):
            for account, _ in weights:
                _need_namespace(state, account.partition("/")[0])
        case Reservation(namespaces=namespaces):
            for namespace in namespaces:
                _need_namespace(state, namespace)
            _check_nodes(state, name, body, allow_unknown_nodes)
        case Price():
            _check_currency(state, name, body)
        case _:
            pass


def _need_namespace(state: State, name: str) -> None:
    if name not in state.policies[PolicyKind.NAMESPACE]:
        hint = policy_hint(state, PolicyKind.NAMESPACE, name)
        raise Conflict(f"there is no namespace {name}", hint, code="unknown_namespace")


def _check_currency(state: State, name: str, body: Price) -> None:
    """What was used is summed up over all prices, so they are in one currency."""
    for other, record in sorted(state.policies[PolicyKind.PRICE].items()):
        price = record.body
        if other == name or not isinstance(price, Price) or not price.currency or not body.currency:
            continue
        if price.currency != body.currency:
            cause = f"price/{name} is in {body.currency}, and price/{other} in {price.currency}"
            raise Conflict(
                cause, "give all prices in one currency; to change it, delete the others first", code="price_currency"
            )


def _check_nodes(state: State, name: str, body: Reservation, allow_unknown_nodes: bool) -> None:
    record = state.policies[PolicyKind.RESERVATION].get(name)
    before = record.body.nodes if record is not None and isinstance(record.body, Reservation) else ()
    missing = [node for node in body.nodes if node not in state.nodes and node not in before]
    if missing and not allow_unknown_nodes:
        shown = ", ".join(missing[:_SHOWN_NODES]) + (", …" if len(missing) > _SHOWN_NODES else "")
        hint = suggest(missing[0], islice(state.nodes, MOST_COMPARED))
        more = "--allow-unknown-nodes (allow_unknown_nodes=true) takes nodes that are still to come"
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
            found.append(
                f"no node is in the pool {' or '.join(pools)} now; {suggest_name(pools[0], there)}".removesuffix("; ")
            )
    if len(state.nodes) <= _MOST_NODES and not spec.placement.any_of:
        found += [*_gpu_slips(state, spec), *_countable_slips(state, spec)]
    return found


def _countable_slips(state: State, spec: JobSpec) -> list[str]:
    there = dict.fromkeys(name for node in state.nodes.values() for name, _ in node.total.countables)
    wanted = [name for name, _ in spec.resources.countables if there and name not in there]
    told = (f"no node offers {name} now; {suggest_name(name, there)}" for name in wanted[:_SHOWN_NODES])
    return [text.removesuffix("; ") for text in told]


def _gpu_slips(state: State, spec: JobSpec) -> list[str]:
    wanted = dict.fromkeys(spec.resources.gpu_models)
    if not wanted:
        return []
    there = dict.fromkeys(kind.model for node in state.nodes.values() for kind in node.facts.gpus if kind.model)
    if not there or any(is_model(model, asked) for model in there for asked in wanted):
        return []
    models = ", ".join(sorted(there)[:_SHOWN_MODELS])
    return [f"no node has GPUs of the model {' or '.join(wanted)} now; there are: {models}"]
