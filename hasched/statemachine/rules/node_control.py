"""Control of nodes: cordons and drains by operators, quarantine by the leader.

All of it is checked again where a placement is applied, so a plan that was made before a cordon starts nothing after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from hasched.model.ids import is_name
from hasched.model.kinds import NAME_HINT
from hasched.statemachine.commands import (
    DrainNode,
    EndQuarantine,
    QuarantineNode,
    SetNodeEligibility,
    SetNodeProperties,
    UndrainNode,
)
from hasched.statemachine.control import AS_THE_AGENT_SAYS, Cordon, Drain, Overrides, Quarantine
from hasched.statemachine.events import (
    Event,
    NodeCordoned,
    NodeDrained,
    NodeDrainExpired,
    NodeDrainStarted,
    NodeOnProbation,
    NodePropertiesSet,
    NodeQuarantined,
    NodeQuarantineEnded,
    NodeUncordoned,
    NodeUndrained,
    TasksPreempted,
)
from hasched.statemachine.node import Node
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules import Decision
from hasched.statemachine.rules.inventories import MAX_ATTRIBUTE_CHARS, MAX_ATTRIBUTES, MAX_TAINTS
from hasched.statemachine.rules.nodes import no_such_node
from hasched.statemachine.rules.preemption import can_yield, whole
from hasched.statemachine.rules.yields import MAX_REASON_LENGTH
from hasched.statemachine.state import State

T = TypeVar("T")
MAX_WAIT_MS = 366 * 24 * 3600 * 1000


def decide_eligibility(state: State, command: SetNodeEligibility) -> Decision | Rejected:
    node = state.nodes.get(command.node_id)
    if node is None:
        return no_such_node(command.node_id)
    if command.eligible:
        return Decision([NodeUncordoned(node.id, command.actor)] if node.control.cordon is not None else [])
    cordon, reason = node.control.cordon, command.reason[:MAX_REASON_LENGTH]
    if cordon is not None and (not reason or reason == cordon.reason):
        return Decision([])
    return Decision([NodeCordoned(node.id, command.actor, reason)])


def evolve_cordoned(state: State, event: NodeCordoned) -> None:
    _replace(state, event.node_id, cordon=Cordon(event.actor, event.reason, state.now_ms))


def evolve_uncordoned(state: State, event: NodeUncordoned) -> None:
    _replace(state, event.node_id, cordon=None)


def decide_drain(state: State, command: DrainNode) -> Decision | Rejected:
    """One that asks for what the node does already changes nothing; a relative deadline is always a new one."""
    node = state.nodes.get(command.node_id)
    if node is None:
        return no_such_node(command.node_id)
    wait_ms, drain = command.wait_ms, node.control.drain
    if wait_ms is not None and not 0 <= wait_ms <= MAX_WAIT_MS:
        return Rejected("invalid_deadline", f"a drain can't have {wait_ms} ms", "give it at most a year")
    reason = command.reason[:MAX_REASON_LENGTH] or (drain.reason if drain is not None else "")
    if drain is not None and drain.reason == reason and wait_ms is None and not drain.deadline_ms:
        return Decision([])
    deadline_ms = 0 if wait_ms is None else state.now_ms + wait_ms
    events: list[Event] = [NodeDrainStarted(node.id, command.actor, reason, deadline_ms)]
    if not node.attempts:
        events.append(NodeDrained(node.id))
    elif wait_ms == 0:
        events += _expire(state, [(node, command.actor, reason)])
    return Decision(events)


def evolve_drain_started(state: State, event: NodeDrainStarted) -> None:
    _replace(state, event.node_id, drain=Drain(event.actor, event.reason, state.now_ms, event.deadline_ms))


def decide_undrain(state: State, command: UndrainNode) -> Decision | Rejected:
    node = state.nodes.get(command.node_id)
    if node is None:
        return no_such_node(command.node_id)
    return Decision([NodeUndrained(node.id, command.actor)] if node.control.drain is not None else [])


def evolve_undrained(state: State, event: NodeUndrained) -> None:
    _replace(state, event.node_id, drain=None)


def _expire(state: State, nodes: Sequence[tuple[Node, str, str]]) -> Iterator[Event]:
    """The deadlines of these nodes' drains have come: what runs there yields, and with it what can't run without it.

    Beside each node stands who drains it, and why.
    """
    told: dict[tuple[int, int], None] = {}  # a gang may stand on several of them
    for node, actor, reason in nodes:
        yield NodeDrainExpired(node.id, len(node.attempts))
        going: dict[int, list[int]] = {}
        for job_id, index in sorted(node.attempts):
            if can_yield(state.jobs[job_id], index):
                going.setdefault(job_id, []).append(index)
        words = f"node {node.id} is drained: {reason}" if reason else f"node {node.id} is drained"
        for job_id, indices in going.items():
            new = tuple(index for index in whole(state.jobs[job_id], indices) if (job_id, index) not in told)
            told.update(dict.fromkeys((job_id, index) for index in new))
            if new:
                yield TasksPreempted(job_id, new, 0, actor, words[:MAX_REASON_LENGTH])


def evolve_drain_expired(state: State, event: NodeDrainExpired) -> None:
    drain = state.nodes[event.node_id].control.drain
    assert drain is not None, "only a drain expires"
    _replace(state, event.node_id, drain=msgspec.structs.replace(drain, expired=True))


def decide_quarantine(state: State, command: QuarantineNode) -> Decision | Rejected:
    node = state.nodes.get(command.node_id)
    if node is None:
        return no_such_node(command.node_id)
    if not 0 < command.wait_ms <= MAX_WAIT_MS:
        return Rejected("invalid_deadline", f"a quarantine can't have {command.wait_ms} ms", "give it at most a year")
    if node.control.quarantined:
        return Decision([])
    before = node.control.quarantine
    times = 1 if before is None else before.times + 1
    reason = command.reason[:MAX_REASON_LENGTH]
    return Decision([NodeQuarantined(node.id, reason, state.now_ms + command.wait_ms, times)])


def evolve_quarantined(state: State, event: NodeQuarantined) -> None:
    quarantine = Quarantine(event.reason, state.now_ms, event.until_ms, event.times)
    _replace(state, event.node_id, quarantine=quarantine)


def evolve_on_probation(state: State, event: NodeOnProbation) -> None:
    quarantine = state.nodes[event.node_id].control.quarantine
    assert quarantine is not None, "probation follows quarantine"
    _replace(state, event.node_id, quarantine=msgspec.structs.replace(quarantine, probation=True))


def decide_end_quarantine(state: State, command: EndQuarantine) -> Decision | Rejected:
    """What the leader saw counts on probation only: in quarantine it saw what had been placed before."""
    node = state.nodes.get(command.node_id)
    if node is None:
        return no_such_node(command.node_id)
    quarantine = node.control.quarantine
    if quarantine is None or not (command.actor or quarantine.probation):
        return Decision([])
    return Decision([NodeQuarantineEnded(node.id, command.actor)])


def evolve_quarantine_ended(state: State, event: NodeQuarantineEnded) -> None:
    _replace(state, event.node_id, quarantine=None)


def decide_properties(state: State, command: SetNodeProperties) -> Decision | Rejected:
    node = state.nodes.get(command.node_id)
    if node is None:
        return no_such_node(command.node_id)
    before = AS_THE_AGENT_SAYS if command.reset else node.control.overrides
    said = node.said
    labels = _merge(before.labels, command.labels, said.labels)
    taints = _merge(before.taints, command.taints, {taint.key: taint for taint in said.taints})
    pool = command.pool or before.pool
    after = Overrides("" if pool == said.pool else pool, labels, taints)
    if (fault := _fault_of(after)) is not None:
        return Rejected("invalid_properties", f"node {node.id} can't have {fault}", NAME_HINT)
    if after == node.control.overrides:
        return Decision([])
    return Decision([NodePropertiesSet(node.id, command.actor, after.pool, after.labels, after.taints)])


def _merge(
    before: tuple[tuple[str, T | None], ...], changes: Mapping[str, T | None], said: Mapping[str, T]
) -> tuple[tuple[str, T | None], ...]:
    """What is overruled after the changes: nothing that the agent says just so."""
    after = {**dict(before), **changes}
    return tuple((name, value) for name, value in sorted(after.items()) if said.get(name) != value)


def _fault_of(overrides: Overrides) -> str | None:
    if overrides.pool and not is_name(overrides.pool):
        return f"the pool {overrides.pool[:100]!r}"
    for key, taint in overrides.taints:
        if not is_name(key) or (taint is not None and (taint.key != key or len(taint.value) > MAX_ATTRIBUTE_CHARS)):
            return f"the taint {key[:100]!r}"
    for name, value in overrides.labels:
        if not is_name(name) or len(value or "") > MAX_ATTRIBUTE_CHARS:
            return f"the label {name[:100]!r}"
    if len(overrides.labels) > MAX_ATTRIBUTES or len(overrides.taints) > MAX_TAINTS:
        return "so many labels and taints"
    return None


def evolve_properties(state: State, event: NodePropertiesSet) -> None:
    _replace(state, event.node_id, overrides=Overrides(event.pool, event.labels, event.taints))


def decide_due(state: State) -> Iterator[Event]:
    """What the clock does to nodes: deadlines of drains come, quarantines end."""
    if not state.node_due_ms or state.node_due_ms > state.now_ms:
        return
    expired: list[tuple[Node, str, str]] = []
    for node_id, due_ms in sorted(state.node_timers.items()):
        if due_ms > state.now_ms:
            continue
        node = state.nodes[node_id]
        drain, quarantine = node.control.drain, node.control.quarantine
        if drain is not None and not drain.expired and 0 < drain.deadline_ms <= state.now_ms:
            expired.append((node, drain.actor, drain.reason))
        if quarantine is not None and not quarantine.probation and quarantine.until_ms <= state.now_ms:
            yield NodeOnProbation(node_id)
    yield from _expire(state, expired)


def _replace(state: State, node_id: str, **what: Cordon | Drain | Quarantine | Overrides | None) -> None:
    """Give a node its new control: as it was, but for what is named."""
    node = state.nodes[node_id]
    state.control_node(node, msgspec.structs.replace(node.control, **what))
