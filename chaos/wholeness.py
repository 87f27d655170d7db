"""When a cluster is whole: one rule, for the waits before and after faults, for drills, and for whoever endangers a disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hasched.model.views import ManagerPage, NodePage, NodeView


def obstacles(page: ManagerPage, nodes: NodePage | None, managers: Iterable[str], agents: Iterable[str]) -> list[str]:
    """What is in the way, in sentences: somebody leads, each of these managers counts and has its disk filled, each of these
    agents is connected and healthy. Without `nodes` no agent is looked at."""
    return [*_of_managers(page, managers), *(_of_agents(nodes, agents) if nodes is not None else [])]


def is_fit(node: NodeView) -> bool:
    return node.connected and node.state == "healthy"


def _of_managers(page: ManagerPage, names: Iterable[str]) -> Iterator[str]:
    """`connected` and `filled` are the leader's word on the others. Of itself it need not give one: it could not lead."""
    if page.leader is None:
        yield "nobody leads"
        return
    known = {manager.id: manager for manager in page.managers}
    for name in names:
        manager = known.get(name)
        if manager is None:
            yield f"the manager {name} is not a member"
        elif not manager.reachable:
            yield f"the manager {name} can't be reached"
        elif manager.membership != "voter":
            yield f"the manager {name} is {manager.membership} and no voter"
        elif name != page.leader and not (manager.connected and manager.filled):
            yield f"the manager {name} is not connected to the leader, or its disk is not filled"


def _of_agents(page: NodePage, names: Iterable[str]) -> Iterator[str]:
    known = {node.id: node for node in page.nodes}
    for name in names:
        node = known.get(name)
        if node is None or not node.connected:
            yield f"the agent of {name} is not connected"
        elif not is_fit(node):
            yield f"the node {name} is {node.state}"
