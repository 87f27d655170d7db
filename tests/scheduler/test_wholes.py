"""Nodes that tasks with a few GPUs have begun are left to those who wait for whole ones, as long as that is of use."""

from __future__ import annotations

import pytest

from hasched.model.reasons import ReasonCode
from hasched.scheduler.explain import Known, explain_waiting
from hasched.statemachine.commands import CancelJob
from hasched.statemachine.job import Job
from tests.scheduler.world import World

HOUR = 3_600_000


def begun_nodes(nodes: int, limit_ms: int = HOUR) -> tuple[World, Job]:
    """Each has 8 GPUs, of which 5 are in use."""
    world = World()
    for number in range(nodes):
        world.node(f"g{number}", cpu=32, gpus=8)
    job = world.submit(nodes, gpus=5, limit_ms=limit_ms)
    assert len(world.settle()) == nodes
    return world, job


def test_who_would_keep_a_node_begun_waits_behind_those_who_want_it_whole() -> None:
    world, begun = begun_nodes(2)
    whole = world.submit(2, gpus=8, limit_ms=HOUR)
    long, short = world.submit(gpus=1, limit_ms=2 * HOUR), world.submit(5, gpus=1, limit_ms=HOUR // 2)
    assert world.settle() == [f"{short.id}.{index}@g{index // 3}" for index in range(5)], "these end before"
    assert world.planner.held_nodes == {"g0": whole.id, "g1": whole.id}
    for index in range(5):
        world.end(short.id, index)
    assert world.settle() == []
    answer = explain_waiting(world.state, long, known=Known(world.planner.held_nodes))
    assert [each.code for view in answer.classes for each in view.blockers] == [ReasonCode.RESERVED]
    for index in range(2):
        world.end(begun.id, index)
        assert world.settle() == [f"{whole.id}.{index}@g{index}"]
    world.end(whole.id, 0)
    assert world.settle() == [f"{long.id}.0@g0"]


def test_it_goes_to_a_smaller_node_meanwhile() -> None:
    world, _ = begun_nodes(2)
    world.submit(2, gpus=8)
    small = world.submit(gpus=1)
    assert world.settle() == []
    world.node("small", cpu=4, gpus=4)
    assert world.settle() == [f"{small.id}.0@small"]


def test_no_more_nodes_are_left_than_tasks_want_one_beside_the_one_that_is_held() -> None:
    world, _ = begun_nodes(3)
    whole = world.submit(gpus=8)
    small = world.submit(4, gpus=1)
    assert world.settle() == [f"{small.id}.{index}@g1" for index in range(3)], "g0 is held"
    assert small.eligible == 1 and set(world.planner.held_nodes.values()) == {whole.id}


def test_a_node_of_which_nobody_knows_when_it_is_whole_is_left_to_nobody() -> None:
    world, _ = begun_nodes(2, limit_ms=0)
    world.submit(2, gpus=8)
    small = world.submit(4, gpus=1)
    assert len(world.settle()) == 3 and small.eligible == 1, "one node is held"


def test_who_stands_before_those_who_want_whole_nodes_has_what_it_wants() -> None:
    world, _ = begun_nodes(2)
    world.submit(2, gpus=8)
    assert world.settle() == []
    urgent = world.submit(6, gpus=1, priority=1)
    assert len(world.settle()) == 6 and urgent.active == 6


@pytest.mark.parametrize("gpus", [pytest.param(8, id="whole nodes"), pytest.param(9, id="what no node has")])
def test_when_nobody_wants_whole_nodes_any_more_the_others_go_on(gpus: int) -> None:
    world, _ = begun_nodes(2)
    whole = world.submit(2, gpus=gpus)
    small = world.submit(6, gpus=1)
    assert len(world.settle()) == (0 if gpus == 8 else 6)
    world.do(CancelJob(job_id=whole.id, actor="ada"))
    world.settle()
    assert small.active == 6


def test_who_asks_meanwhile_which_nodes_are_left_keeps_nobody_out() -> None:
    world, _ = begun_nodes(2)
    world.submit(2, gpus=8)
    world.submit(6, gpus=1)
    assert world.settle() == []
    line, wholes = world.planner._line, world.planner._wholes
    line.call_back(next(shape for shape in line.aside if shape.requests[0].gpus == 8))
    _ = world.planner.held_nodes
    assert wholes.changed
    assert [shape.requests[0].gpus for shape in wholes.let_in()] == [1]
