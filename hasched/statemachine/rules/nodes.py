"""Nodes: registered by their agents, judged by the leader, removed by people.

A disconnected node's attempts are lost with it, so such a node holds nothing; it comes back by registering again.
"""

from __future__ import annotations

from hasched.model.ids import AttemptId, is_name
from hasched.model.states import NodeState
from hasched.statemachine.commands import RegisterNode, RemoveNode, SetNodeState, WatchNodes
from hasched.statemachine.events import NodeRegistered, NodeRemoved, NodeStateChanged, WatchStarted
from hasched.statemachine.node import Node
from hasched.statemachine.outcomes import ATTEMPTS_FORGOTTEN, Rejected
from hasched.statemachine.rules import Decision, inventories
from hasched.statemachine.rules.ends import decide_losses
from hasched.statemachine.rules.yields import MAX_REASON_LENGTH
from hasched.statemachine.state import State


def decide_register(state: State, command: RegisterNode) -> Decision | Rejected:
    """A smaller inventory than what is allocated is taken as it is: nothing more fits until enough has ended."""
    if not is_name(command.node_id):
        return Rejected("invalid_node", f"{command.node_id[:100]!r} can't name a node")
    if (fault := inventories.find_fault(command.info, state.entry_version)) is not None:
        return Rejected("invalid_node", f"the inventory of node {command.node_id} holds {fault}")
    node = state.nodes.get(command.node_id)
    if node is not None and node.state is NodeState.HEALTHY and node.said == command.info:
        return Decision([])
    if node is not None and not node.is_remembered_by(command.info) and _is_forgotten(state, node, command):
        return Rejected(
            ATTEMPTS_FORGOTTEN,
            f"the agent of {node.id} has lost its memory of what may still run there",
            "it is taken in once those attempts are given up, at the end of its grace",
        )
    return Decision([NodeRegistered(command.node_id, command.info)])


def _is_forgotten(state: State, node: Node, command: RegisterNode) -> bool:
    """Whether the node holds an attempt that the agent may not know.

    One that hasn't changed since `known_as_of` was there when the leader compared, so the agent knew it. One that has,
    and was known, is counted too, since it looks like one that was placed meanwhile: the agent says hello again.
    """
    known = dict.fromkeys(AttemptId(key.job_id, key.index, key.attempt) for key in command.known)
    for (job_id, index), attempt in node.attempts.items():
        active = state.jobs[job_id].attempt_of(index)
        assert active is not None, "a node holds only current attempts"
        if active.log_index > command.known_as_of and AttemptId(job_id, index, attempt) not in known:
            return True
    return False


def evolve_registered(state: State, event: NodeRegistered) -> None:
    node = state.nodes.get(event.node_id)
    if node is None:
        state.nodes[event.node_id] = Node(
            id=event.node_id,
            number=state.number_node(event.node_id),
            info=event.info,
            state=NodeState.HEALTHY,
            reason="",
            registered_ms=state.now_ms,
            changed_ms=state.now_ms,
            log_index=state.index,
        )
        state.note_node(state.nodes[event.node_id])
        return
    changed = node.info.gpus != event.info.gpus or node.info.resources != event.info.resources
    labels = node.info.labels
    node.describe(event.info)
    node.registered_ms = state.now_ms
    if changed and node.attempts:
        node.recount_gpus(state.jobs[job_id].request_of(index) for job_id, index in node.attempts)
    _change(state, node, NodeState.HEALTHY, "", relabelled=node.info.labels != labels)


def decide_set_state(state: State, command: SetNodeState) -> Decision | Rejected:
    node = state.nodes.get(command.node_id)
    if node is None:
        return no_such_node(command.node_id)
    if command.term and command.term != state.watch_term:
        return Rejected("node_changed", f"node {node.id} was judged in term {command.term}, not {state.watch_term}")
    if command.log_index and command.log_index != node.log_index:
        return Rejected("node_changed", f"node {node.id} has changed since it was judged")
    if node.state is command.state:
        return Decision([])
    reason = command.reason[:MAX_REASON_LENGTH]
    changed = NodeStateChanged(node.id, command.state, reason)
    if command.state is not NodeState.DISCONNECTED:
        return Decision([changed])
    return Decision([changed, *decide_losses(state, node, reason)])


def evolve_state_changed(state: State, event: NodeStateChanged) -> None:
    _change(state, state.nodes[event.node_id], event.state, event.reason)


def decide_watch(state: State, command: WatchNodes) -> Decision:
    """A leader that was deposed before its watch was committed comes too late, and changes nothing."""
    return Decision([WatchStarted(command.term)] if command.term > state.watch_term else [])


def evolve_watch(state: State, event: WatchStarted) -> None:
    state.watch_term = event.term


def decide_remove(state: State, command: RemoveNode) -> Decision | Rejected:
    node = state.nodes.get(command.node_id)
    if node is None:
        return no_such_node(command.node_id)
    if node.state is not NodeState.DISCONNECTED:
        return Rejected(
            "node_active", f"node {node.id} is {node.state}", "stop its agent and wait for its grace to end"
        )
    return Decision([NodeRemoved(node.id, command.actor)])


def evolve_removed(state: State, event: NodeRemoved) -> None:
    state.drop_node(state.nodes[event.node_id])


def _change(state: State, node: Node, to: NodeState, reason: str, *, relabelled: bool = False) -> None:
    node.state = to
    node.reason = reason
    node.changed_ms = state.now_ms
    node.log_index = state.index
    state.note_node(node, relabelled=relabelled)


def no_such_node(node_id: str) -> Rejected:
    return Rejected("no_such_node", f"there is no node {node_id[:100]!r}", "nodes appear when their agents connect")
