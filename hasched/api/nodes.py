"""Nodes: what they offer, what runs there, and what the leader hears of them."""

from __future__ import annotations

import msgspec

from hasched.api.call import Call
from hasched.api.hub import AgentHub
from hasched.api.routing import Routes
from hasched.model.errors import NotFound
from hasched.model.views import NodePage, NodeUsageView, NodeView, Reason
from hasched.statemachine import queries
from hasched.statemachine.commands import RemoveNode

routes = Routes("nodes")


@routes.add("GET", "/v1/nodes", by_leader=True)
async def list_nodes(call: Call) -> NodePage:
    """List the nodes, with what each uses as of its last heartbeat."""
    state = await call.read_state("linearizable")
    return NodePage(nodes=[_with_memory(call.context.hub, node) for node in queries.list_nodes(state).nodes])


@routes.add("GET", "/v1/nodes/{node_id}", by_leader=True)
async def show_node(call: Call, node_id: str) -> NodeView:
    """Show a node."""
    node = queries.node_view(await call.read_state("linearizable"), node_id)
    if node is None:
        raise NotFound(f"there is no node {node_id[:128]!r}", "see the list of nodes", code="no_such_node")
    return _with_memory(call.context.hub, node)


@routes.add("DELETE", "/v1/nodes/{node_id}", status=204)
async def remove_node(call: Call, node_id: str) -> None:
    """Forget a disconnected node; it comes back if its agent does."""
    await call.propose(RemoveNode(node_id=node_id, actor=call.actor))


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
