"""When a cluster counts as whole: each thing that is missing is an obstacle, and named."""

from __future__ import annotations

import msgspec
import pytest

from chaos.wholeness import obstacles
from hasched.model.views import ManagerPage, ManagerView, NodePage
from tests.chaos.records import node

MANAGERS, AGENTS = ["m1", "m2"], ["n1"]


def manager(name: str, **told: object) -> ManagerView:
    view = ManagerView(
        id=name,
        api_url="",
        raft_address="",
        role="follower",
        term=1,
        last_index=1,
        commit_index=1,
        applied_index=1,
        version="",
        reachable=True,
        connected=True,
        filled=True,
    )
    return msgspec.structs.replace(view, **told)


def page(*others: ManagerView, leader: str | None = "m1", **of_leader: object) -> ManagerPage:
    return ManagerPage(managers=[manager("m1", role="leader", **of_leader), *others], leader=leader)


NODES = NodePage(nodes=[node("n1")])
GONE = msgspec.structs.replace(node("n1"), connected=False)
SICK = msgspec.structs.replace(node("n1"), state="unhealthy")
WHOLE = page(manager("m2"))


def test_a_whole_cluster_has_no_obstacle() -> None:
    assert obstacles(WHOLE, NODES, MANAGERS, AGENTS) == []


def test_a_leader_need_not_say_that_it_is_connected_to_itself() -> None:
    assert obstacles(page(manager("m2"), connected=None, filled=None), NODES, MANAGERS, AGENTS) == []


@pytest.mark.parametrize(
    ("managers", "nodes", "told"),
    [
        (page(manager("m2"), leader=None), NODES, "nobody leads"),
        (page(), NODES, "the manager m2 is not a member"),
        (page(manager("m2", reachable=False)), NODES, "the manager m2 can't be reached"),
        (page(manager("m2", membership="learner")), NODES, "the manager m2 is learner and no voter"),
        (page(manager("m2", connected=False)), NODES, "the manager m2 is not connected to the leader"),
        (page(manager("m2", filled=False)), NODES, "the manager m2 is not connected to the leader, or its disk"),
        (page(manager("m2", filled=None)), NODES, "the manager m2 is not connected to the leader, or its disk"),
        (page(manager("m2"), reachable=False), NODES, "the manager m1 can't be reached"),
        (WHOLE, NodePage(nodes=[]), "the agent of n1 is not connected"),
        (WHOLE, NodePage(nodes=[GONE]), "the agent of n1 is not connected"),
        (WHOLE, NodePage(nodes=[SICK]), "the node n1 is unhealthy"),
    ],
)
def test_whatever_is_missing_is_named(managers: ManagerPage, nodes: NodePage, told: str) -> None:
    (found,) = obstacles(managers, nodes, MANAGERS, AGENTS)
    assert found.startswith(told)


def test_only_who_is_asked_for_is_looked_at() -> None:
    lame = page(manager("m2", filled=False))
    assert obstacles(lame, None, ["m1"], AGENTS) == []
    assert obstacles(lame, NodePage(nodes=[]), ["m1"], []) == []
