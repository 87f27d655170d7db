"""Nodes: what they offer, what runs there, and what the leader hears of them."""

from __future__ import annotations

import contextlib
from typing import Annotated, TypeAlias
from urllib.parse import quote

import msgspec

from hasched.api.call import Call
from hasched.api.hub import AgentHub
from hasched.api.routing import Routes
from hasched.model.errors import NoLeader, NotFound
from hasched.model.states import TaintEffect
from hasched.model.taints import MAX_VALUE_CHARS, Taint
from hasched.model.views import NodePage, NodeUsageView, NodeView, Reason
from hasched.statemachine import queries
from hasched.statemachine.commands import (
    DrainNode,
    EndQuarantine,
    RemoveNode,
    SetNodeEligibility,
    SetNodeProperties,
    UndrainNode,
)
from hasched.statemachine.queries.names import node_hint
from hasched.statemachine.rules.node_control import MAX_WAIT_MS

MAX_REASON_CHARS = 1000
LEADER_TIMEOUT_S = 2.0  # to be shown a node that was changed

routes = Routes("nodes")

ControlCommand: TypeAlias = SetNodeEligibility | DrainNode | UndrainNode | EndQuarantine | SetNodeProperties
_Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)]


class CordonRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: _Reason = ""


class DrainRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`deadline_in_ms` counts from now; 0 moves everything at once, and without it what runs has all the time it takes."""

    reason: _Reason = ""
    deadline_in_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_WAIT_MS)] | None = None


class TaintRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    value: Annotated[str, msgspec.Meta(max_length=MAX_VALUE_CHARS)] = ""
    effect: TaintEffect = TaintEffect.NO_START


class PropertiesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A label or taint that is null is one that the node hasn't. `reset` takes back all that was said before."""

    pool: str = ""
    labels: dict[str, str | None] = {}
    taints: dict[str, TaintRequest | None] = {}
    reset: bool = False


@routes.add("GET", "/v1/nodes", by_leader=True)
async def list_nodes(call: Call) -> NodePage:
    """List the nodes, with what each uses as of its last heartbeat."""
    state = await call.read_state("linearizable")
    nodes = queries.list_nodes(state, call.context.now_ms()).nodes
    return NodePage(nodes=[_with_memory(call.context.hub, node) for node in nodes])


@routes.add("GET", "/v1/nodes/{node_id}", by_leader=True)
async def show_node(call: Call, node_id: str) -> NodeView:
    """Show a node."""
    return await _show(call, node_id)


@routes.add("DELETE", "/v1/nodes/{node_id}", status=204)
async def remove_node(call: Call, node_id: str) -> None:
    """Forget a disconnected node; it comes back if its agent does."""
    await call.propose(RemoveNode(node_id=node_id, actor=call.actor))


@routes.add("POST", "/v1/nodes/{node_id}/cordon")
async def cordon_node(call: Call, node_id: str, body: CordonRequest) -> NodeView:
    """Give a node no new work; what runs there goes on."""
    return await _control(
        call, SetNodeEligibility(node_id=node_id, eligible=False, actor=call.actor, reason=body.reason)
    )


@routes.add("POST", "/v1/nodes/{node_id}/uncordon")
async def uncordon_node(call: Call, node_id: str) -> NodeView:
    """Take a cordon back. A drain or a quarantine beside it goes on."""
    return await _control(call, SetNodeEligibility(node_id=node_id, eligible=True, actor=call.actor))


@routes.add("POST", "/v1/nodes/{node_id}/drain")
async def drain_node(call: Call, node_id: str, body: DrainRequest) -> NodeView:
    """Give a node no new work, and what runs there until the deadline; then it is stopped and started elsewhere.

    That costs the tasks no retry. The node is drained once nothing is left there, and stays so until it is undrained.
    """
    return await _control(
        call, DrainNode(node_id=node_id, actor=call.actor, reason=body.reason, wait_ms=body.deadline_in_ms)
    )


@routes.add("POST", "/v1/nodes/{node_id}/undrain")
async def undrain_node(call: Call, node_id: str) -> NodeView:
    """Let a node that drains, or is drained, have work again."""
    return await _control(call, UndrainNode(node_id=node_id, actor=call.actor))


@routes.add("POST", "/v1/nodes/{node_id}/unquarantine")
async def unquarantine_node(call: Call, node_id: str) -> NodeView:
    """Let a node whose launches failed have work again, and forget that they did."""
    return await _control(call, EndQuarantine(node_id=node_id, actor=call.actor))


@routes.add("POST", "/v1/nodes/{node_id}/properties")
async def set_node_properties(call: Call, node_id: str, body: PropertiesRequest) -> NodeView:
    """Say what a node's pool, labels and taints are, over what its agent says.

    What isn't named stays as it is. What runs there goes on, whatever the node has become.
    """
    taints = {key: None if each is None else Taint(key, each.value, each.effect) for key, each in body.taints.items()}
    return await _control(
        call,
        SetNodeProperties(
            node_id=node_id, actor=call.actor, pool=body.pool, labels=body.labels, taints=taints, reset=body.reset
        ),
    )


async def _control(call: Call, command: ControlCommand) -> NodeView:
    """Have the command decided, and show the node that it names: as the leader sees it, if that can be asked."""
    await call.propose(command)
    if not call.context.hub.leading and (leader := call.context.replica.leader) is not None:
        with contextlib.suppress(NoLeader):  # it is done all the same
            path = f"/v1/nodes/{quote(command.node_id, safe='')}"
            return await call.context.peers.ask(leader, path, NodeView, LEADER_TIMEOUT_S)
    return await _show(call, command.node_id)


async def _show(call: Call, node_id: str) -> NodeView:
    state = await call.read_state("linearizable")
    node = queries.node_view(state, node_id, call.context.now_ms())
    if node is None:
        raise NotFound(f"there is no node {node_id[:128]!r}", node_hint(state, node_id), code="no_such_node")
    return _with_memory(call.context.hub, node)


def _with_memory(hub: AgentHub, node: NodeView) -> NodeView:
    """`node` with what only the leader's streams know."""
    usage = hub.usage(node.id)
    shown = usage and NodeUsageView(
        cpu_milli=usage.cpu_milli,
        memory_bytes=usage.memory_bytes,
        load_milli=usage.load_milli,
        disk_free_bytes=usage.disk_free_bytes,
    )
    connected, reason = hub.connected(node.id), node.reason
    if reason is None and connected and hub.refuses_work(node.id):
        reason = Reason(code="refuses_work", text="its agent can't start anything now; the agent's log says why")
    return msgspec.structs.replace(node, connected=connected, usage=shown, reason=reason)
