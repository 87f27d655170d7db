"""Nodes, what should run on them, and the cluster as a whole."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import NamedTuple

from msgspec.structs import asdict, replace

from hasched.model.ids import AttemptId
from hasched.model.policy import PolicyKind, Reservation
from hasched.model.spec import Resources
from hasched.model.states import TaskState
from hasched.model.views import (
    ClusterView,
    CordonView,
    DrainView,
    NodePage,
    NodeReservationView,
    NodeView,
    QuarantineView,
    Reason,
)
from hasched.model.wire import NodeInfo
from hasched.statemachine.node import Node
from hasched.statemachine.state import State

MOST_TASKS = 1000  # that are named of a node


def node_view(state: State, node_id: str, now_ms: int = 0) -> NodeView | None:
    """`connected` and `usage` are known to the leader's streams alone. `now_ms`: an idle state's own time stands still."""
    node = state.nodes.get(node_id)
    if node is None:
        return None
    tasks = [f"{job_id}.{index}" for job_id, index in nsmallest(MOST_TASKS, node.attempts)]
    return replace(_show_node(node, _reservations(state, now_ms)), tasks=tasks)


def list_nodes(state: State, now_ms: int = 0) -> NodePage:
    """`now_ms` as for `node_view`."""
    reserved = _reservations(state, now_ms)
    return NodePage(nodes=[_show_node(node, reserved) for _, node in sorted(state.nodes.items())])


def _reservations(state: State, now_ms: int) -> dict[str, list[NodeReservationView]]:
    """Of each node those that have not ended, the next first."""
    now_ms = max(now_ms, state.now_ms)
    found: dict[str, list[NodeReservationView]] = {}
    for name, record in sorted(state.policies[PolicyKind.RESERVATION].items()):
        body = record.body
        if isinstance(body, Reservation) and body.end_ms > now_ms:
            view = NodeReservationView(
                name=name,
                start_ms=body.start_ms,
                end_ms=body.end_ms,
                namespaces=list(body.namespaces),
                users=list(body.users),
                begun=body.start_ms <= now_ms,
            )
            for node_id in body.nodes:
                found.setdefault(node_id, []).append(view)
    for views in found.values():
        views.sort(key=lambda view: (view.start_ms, view.name))
    return found


def _show_node(node: Node, reserved: Mapping[str, list[NodeReservationView]]) -> NodeView:
    control = node.control
    return NodeView(
        id=node.id,
        state=node.state.value,
        reason=Reason(code=node.state.value, text=node.reason) if node.reason else None,
        hostname=node.info.hostname,
        agent_version=node.info.agent_version,
        isolation=node.info.isolation,
        labels=node.info.labels,
        total=node.total,
        allocated=node.allocated,
        gpus=list(node.info.gpus),
        devices=list(node.info.devices),
        pool=node.facts.pool,
        taints=[str(taint) for taint in node.facts.taints],
        attributes=dict(node.facts.attributes),
        running=len(node.attempts),
        connected=False,
        registered_ms=node.registered_ms,
        changed_ms=node.changed_ms,
        log_index=node.log_index,
        status=node.status,
        eligible=node.eligible,
        cordon=CordonView(**asdict(control.cordon)) if control.cordon is not None else None,
        drain=DrainView(**asdict(control.drain), drained=node.drained) if control.drain is not None else None,
        quarantine=QuarantineView(**asdict(control.quarantine)) if control.quarantine is not None else None,
        reservations=reserved.get(node.id, []),
    )


class Desired(NamedTuple):
    """An attempt that should be on a node. `stopping`: it was cancelled; `yielding`: it has to end and its task starts again."""

    job_id: int
    task_index: int
    attempt: int
    stopping: bool
    yielding: bool
    frozen: bool


def desired_attempts(state: State, node_id: str) -> Iterator[Desired]:
    """What should be on a node."""
    node = state.nodes.get(node_id)
    if node is None:
        return
    for (job_id, index), attempt in node.attempts.items():
        job = state.jobs[job_id]
        active = job.attempt_of(index)
        assert active is not None, "a node holds only current attempts"
        yielding = not active.stopping and job.yield_of(index) is not None
        frozen = job.suspended and not active.stopping and not yielding
        yield Desired(job_id, index, attempt, active.stopping, yielding, frozen)


def forgotten_attempts(state: State, node_id: str, info: NodeInfo, known: Container[AttemptId]) -> list[AttemptId]:
    """Attempts that an agent that says this doesn't know, though they may have been started on its node.

    If it has the table that the node's agent had, only those are meant that were seen to run: of others, it never heard.
    """
    node = state.nodes.get(node_id)
    if node is None:
        return []
    forgotten = []
    for (job_id, index), attempt in node.attempts.items():
        active = state.jobs[job_id].attempt_of(index)
        assert active is not None, "a node holds only current attempts"
        if active.state is TaskState.RUNNING or not node.is_remembered_by(info):
            forgotten.append(AttemptId(job_id, index, attempt))
    return [key for key in forgotten if key not in known]


def cluster_view(
    state: State, *, cluster: str, leader: str | None, term: int, test_cluster: bool = False
) -> ClusterView:
    """`test_cluster` is what the manager that answers was told, and no part of the state."""
    nodes: dict[str, int] = {}
    for node in state.nodes.values():
        nodes[node.state.value] = nodes.get(node.state.value, 0) + 1
    return ClusterView(
        cluster=cluster,
        leader=leader,
        term=term,
        applied_index=state.index,
        now_ms=state.now_ms,
        jobs={each.name: count for each in TaskState if (count := state.job_counts[each])},
        tasks={each.name: count for each in TaskState if (count := state.task_counts[each])},
        nodes=nodes,
        total=_sum([node.total for node in state.nodes.values()]),
        allocated=_sum([node.allocated for node in state.nodes.values()]),
        origin=state.origin,
        test_cluster=test_cluster,
    )


def _sum(amounts: Sequence[Resources]) -> Resources:
    countables: dict[str, int] = {}
    for amount in amounts:
        for name, units in amount.countables:
            countables[name] = countables.get(name, 0) + units
    return Resources(
        cpu_milli=sum(amount.cpu_milli for amount in amounts),
        memory_bytes=sum(amount.memory_bytes for amount in amounts),
        gpus=sum(amount.gpus for amount in amounts),
        countables=tuple(sorted(countables.items())),
        disk_bytes=sum(amount.disk_bytes for amount in amounts),
    )
