"""Who stands first and fits nowhere is not passed for ever, and others lose nothing by it that they could have had."""

from __future__ import annotations

import pytest

from hasched.model.states import NodeState
from hasched.statemachine.commands import CancelJob, SetNodeEligibility, SetNodeState
from tests.scheduler.world import World

MINUTE = 60_000


def test_a_large_job_is_not_starved_by_small_ones_that_keep_coming() -> None:
    world = World()
    world.node("n1", cpu=4)
    world.submit(count=1000)
    assert len(world.settle()) == 4
    large = world.submit(cpu=4, priority=1)
    for index in range(4):
        assert large.active == 0
        world.end(1, index)
        placed = world.settle()
    assert placed == [f"{large.id}.0@n1"]
    world.end(large.id, 0)
    assert len(world.settle()) == 4, "then the small ones go on"


def test_the_job_at_the_head_holds_one_node_and_others_pass_it_elsewhere() -> None:
    world = World()
    for number in range(3):
        world.node(f"n{number}", cpu=4)
    world.submit(count=9)
    world.settle()
    world.submit(cpu=4)
    small = world.submit(count=20)
    placed = world.settle()
    assert world.planner.held_nodes == {"n2": 2}, "the node that lacks the least"
    assert placed == []
    world.end(1, 0)
    assert world.settle() == [f"{small.id}.0@n0"]
    world.end(1, 8)
    assert world.settle() == ["2.0@n2"]


@pytest.mark.parametrize(
    ("limit_ms", "passes"),
    [
        pytest.param(4 * MINUTE, True, id="it has ended before"),
        pytest.param(7 * MINUTE, False, id="it might still run"),
        pytest.param(0, False, id="nobody knows when it ends"),
    ],
)
def test_who_has_surely_ended_by_the_held_start_may_use_the_node(limit_ms: int, passes: bool) -> None:
    world = World()
    world.node("n1", cpu=4)
    world.submit(cpu=2, limit_ms=5 * MINUTE)
    world.settle()
    began_ms = world.state.now_ms
    head = world.submit(cpu=4)
    behind = world.submit(limit_ms=limit_ms)
    assert world.settle() == ([f"{behind.id}.0@n1"] if passes else [])
    start_ms = world.planner.estimate(world.state, head.id)
    assert start_ms == began_ms + 5 * MINUTE
    assert world.planner.estimate(world.state, behind.id) is None
    if passes:
        world.end(behind.id, 0)
    world.now_ms = start_ms
    world.end(1, 0)
    assert world.settle()[0] == f"{head.id}.0@n1"


def test_what_fits_beside_the_held_job_starts_whatever_its_limit() -> None:
    world = World()
    world.node("n1", cpu=8)
    world.submit(cpu=4, limit_ms=5 * MINUTE)
    world.submit(cpu=2)
    world.settle()
    head = world.submit(cpu=5)
    beside = world.submit(count=3)
    assert world.settle() == [f"{beside.id}.0@n1"], "of 8 CPU, 5 are held and 2 in use"
    assert world.planner.estimate(world.state, head.id) is not None
    world.end(1, 0)
    assert world.settle() == [f"{head.id}.0@n1"]


def test_the_soonest_node_is_held() -> None:
    world = World()
    for node, minutes in (("n1", 30), ("n2", 10), ("n3", 20)):
        world.node(node, cpu=2)
        world.submit(cpu=2, limit_ms=minutes * MINUTE)
        world.settle()
    head = world.submit(cpu=2)
    world.settle()
    assert world.planner.held_nodes == {"n2": head.id}


def test_who_stands_before_the_holder_may_take_the_node() -> None:
    world = World()
    world.node("n1", cpu=4)
    world.submit(count=2)
    world.settle()
    head = world.submit(cpu=4)
    assert world.settle() == []
    urgent = world.submit(cpu=2, priority=9)
    assert world.settle() == [f"{urgent.id}.0@n1"]
    assert world.planner.held_nodes == {"n1": head.id}, "and then it is held again"


def test_the_higher_priority_has_the_hold() -> None:
    world = World()
    world.node("n1", cpu=4)
    world.submit(count=2)
    world.settle()
    world.submit(cpu=4)
    world.settle()
    urgent = world.submit(cpu=3, priority=9)
    world.settle()
    assert world.planner.held_nodes == {"n1": urgent.id}


@pytest.mark.parametrize("why", ["lost", "cordoned", "cancelled"])
def test_a_hold_ends_with_what_it_rests_on(why: str) -> None:
    world = World()
    world.node("n1", cpu=4)
    world.submit(count=3)
    world.settle()
    head = world.submit(cpu=4)
    small = world.submit()
    assert world.settle() == []
    world.node("n2", cpu=2)
    assert world.settle() == [f"{small.id}.0@n2"]
    another = world.submit(count=2)
    match why:
        case "lost":
            world.do(SetNodeState(node_id="n1", state=NodeState.UNHEALTHY, reason="silent"))
        case "cordoned":
            world.do(SetNodeEligibility(node_id="n1", eligible=False, actor="ada"))
        case _:
            world.do(CancelJob(job_id=head.id, actor="ada"))
    world.settle()
    world.end(small.id, 0)
    assert another.active == 1 + (why == "cancelled") or world.settle()
    assert "n1" not in world.planner.held_nodes


def test_what_fits_no_node_at_all_holds_none() -> None:
    world = World()
    world.node("n1", cpu=4)
    world.submit(cpu=5)
    small = world.submit(count=5)
    assert len(world.settle()) == 4
    assert list(world.planner.held_nodes.values()) == [small.id]
    world.node("n2", cpu=8)
    assert [placed.split("@")[1] for placed in world.settle()] == ["n2", "n2"]


def test_a_job_that_wants_what_few_nodes_have_holds_one_of_those() -> None:
    world = World()
    for number in range(40):
        world.node(f"n{number}", cpu=1, licence=int(number == 20))
    world.submit(count=41, countables=())
    world.settle()
    head = world.submit(countables=(("licence", 1),), priority=1)
    world.settle()
    assert world.planner.held_nodes["n20"] == head.id


def test_a_new_leader_holds_as_the_old_one_did() -> None:
    world = World()
    world.node("n1", cpu=4)
    world.submit(count=2, limit_ms=MINUTE)
    world.settle()
    head = world.submit(cpu=4)
    world.submit()
    world.settle()
    start_ms = world.planner.estimate(world.state, head.id)
    for _ in world.planner.rebuild(world.state):
        pass
    assert world.settle() == []
    assert world.planner.estimate(world.state, head.id) == start_ms
