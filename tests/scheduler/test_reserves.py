"""What is kept for a gang that waits: nodes that are free the soonest, and used until all of it can start."""

from __future__ import annotations

from itertools import pairwise

from hasched.scheduler.holds import REFRESHED_AT_ONCE
from hasched.statemachine.commands import StepClock
from tests.scheduler.world import World


def test_a_gang_waits_for_the_nodes_that_have_room_first_whatever_else_runs_there() -> None:
    world = World()
    for name, limit_ms in (("n1", 900), ("n2", 300), ("n3", 300), ("n4", 900)):
        world.node(name, cpu=8, gpus=2)
        world.submit(cpu=1, gpus=2, limit_ms=limit_ms)
        if name in ("n2", "n3"):
            world.submit(cpu=4)  # fuller, and without an end
        world.settle()
    gang = world.submit(2, gang=True, cpu=1, gpus=2)
    world.settle()
    assert world.planner.held_nodes == {"n2": gang.id, "n3": gang.id}


def test_nodes_kept_for_a_gang_are_used_until_all_of_it_can_start() -> None:
    world = World()
    for name, limit_ms in (("n1", 1000), ("n2", 500)):
        world.node(name, gpus=8)
        world.submit(gpus=8, limit_ms=limit_ms)
        world.settle()
    gang = world.submit(2, gang=True, gpus=8)
    world.settle()
    assert set(world.planner.held_nodes) == {"n1", "n2"}
    world.end(2, 0)  # n2 has room from now on, n1 only from 1000 on
    long, short = world.submit(gpus=8, limit_ms=2000), world.submit(gpus=8, limit_ms=600)
    assert world.settle() == [f"{short.id}.0@n2"]
    world.now_ms += 600
    world.end(short.id, 0)
    world.end(1, 0)
    world.do(StepClock())
    world.settle()
    assert gang.active == 2 and not long.active


def test_a_node_that_is_free_before_its_time_is_kept_for_the_gang_in_place_of_one_that_isnt() -> None:
    world = World()
    for name in ("n1", "n2", "n3"):
        world.node(name, gpus=8)
    first = world.submit(3, gpus=8, limit_ms=500)
    world.settle()
    gang = world.submit(2, gang=True, gpus=8)
    behind = world.submit(gpus=8, limit_ms=2000)
    world.settle()
    (other,) = (node for node, job_id in world.planner.held_nodes.items() if job_id == behind.id)
    ((_, early),) = world.state.nodes[other].attempts
    world.end(first.id, early)
    assert world.settle() == [], "it isn't given to who came later"
    assert world.planner.held_nodes[other] == gang.id
    world.end(first.id, (early + 1) % 3)
    assert len(world.settle()) == 2 and gang.active == 2 and not behind.active


def test_what_ends_before_a_gang_of_hundreds_is_found_out_some_nodes_at_a_time() -> None:
    world = World()
    for number in range(5 * REFRESHED_AT_ONCE):
        world.node(f"n{number}", cpu=3)
    nodes = len(world.state.nodes)
    world.submit(nodes, cpu=2, limit_ms=1000)
    world.settle()
    gang = world.submit(nodes, gang=True, cpu=3)
    world.settle()
    assert len(world.planner.held_nodes) == nodes and not gang.active
    short, long = world.submit(5, cpu=1, limit_ms=500), world.submit(cpu=1, limit_ms=2000)

    def known() -> int:
        """Of how many held nodes it is worked out when they have room."""
        holds = world.planner._holds
        return sum(not holds.of(slot).stale for slot in world.planner._slots.values() if slot.held)

    steps = [known()]
    while world.planner.ready:
        if (plan := world.plan(100)) is not None:
            world.decide(plan)
        steps.append(known())
    assert max(after - before for before, after in pairwise(steps)) <= 2 * REFRESHED_AT_ONCE, "no slice is long"
    assert (short.active, long.active) == (5, 0), "the gang can start in a second"
