"""Nodes that belong to others from a time on get only what has surely ended by then."""

from __future__ import annotations

import pytest

from hasched.model.policy import PolicyKind, Reservation
from hasched.scheduler.explain import explain_waiting
from hasched.statemachine.commands import DeletePolicy, PutPolicy, StepClock
from hasched.statemachine.rules.clock import next_deadline
from tests.scheduler.world import World

HOUR = 3_600_000


def reserve(world: World, *nodes: str, begins_in: int = HOUR, hours: int = 2, **whom: tuple[str, ...]) -> Reservation:
    start_ms = world.state.now_ms + begins_in
    body = Reservation(nodes=nodes, start_ms=start_ms, end_ms=start_ms + hours * HOUR, **whom)
    world.do(PutPolicy(kind=PolicyKind.RESERVATION, name="window", body=body, actor="root"))
    return body


@pytest.mark.parametrize(
    ("limit_ms", "starts"),
    [
        pytest.param(HOUR // 2, True, id="it has ended before"),
        pytest.param(2 * HOUR, False, id="it might still run"),
        pytest.param(0, False, id="nobody knows when it ends"),
    ],
)
def test_before_maintenance_only_what_ends_in_time_starts(limit_ms: int, starts: bool) -> None:
    world = World()
    world.node("n1")
    reserve(world, "n1")
    job = world.submit(limit_ms=limit_ms)
    assert world.settle() == ([f"{job.id}.0@n1"] if starts else [])


def test_what_waited_starts_when_the_window_is_over_and_the_clock_says_so() -> None:
    world = World()
    world.node("n1")
    window = reserve(world, "n1")
    world.submit()
    assert world.settle() == []
    assert next_deadline(world.state) == window.end_ms
    world.now_ms = window.end_ms
    world.do(StepClock())
    assert next_deadline(world.state) != window.end_ms
    assert world.settle() == ["1.0@n1"]


def test_what_waited_starts_when_the_reservation_is_dropped() -> None:
    world = World()
    world.node("n1")
    reserve(world, "n1")
    world.submit(count=3)
    assert world.settle() == []
    world.do(DeletePolicy(kind=PolicyKind.RESERVATION, name="window", actor="root"))
    assert world.settle() == ["1.0@n1", "1.1@n1", "1.2@n1"]


def test_those_whom_it_is_for_may_use_it_and_others_go_elsewhere() -> None:
    world = World()
    world.node("n1")
    world.node("n2")
    reserve(world, "n1", begins_in=0, users=("bob",))
    hers = world.submit(count=9)
    assert world.settle() == [f"{hers.id}.{index}@n2" for index in range(4)]
    his = world.submit(count=4, actor="bob")
    assert world.settle() == [f"{his.id}.{index}@n1" for index in range(4)]


def test_as_the_window_comes_nearer_less_starts() -> None:
    world = World()
    world.node("n1")
    window = reserve(world, "n1")
    world.submit(count=5, limit_ms=HOUR // 2)
    assert len(world.settle()) == 4
    world.now_ms = window.start_ms - HOUR // 4
    world.end(1, 0)
    assert world.settle() == []


def test_a_hold_is_not_taken_on_a_node_that_will_be_others() -> None:
    world = World()
    world.node("n1", cpu=4)
    world.node("n2", cpu=4)
    world.submit(count=8)
    world.settle()
    reserve(world, "n1")
    head = world.submit(cpu=4)
    world.settle()
    assert world.planner.held_nodes == {"n2": head.id}


def test_a_window_elsewhere_is_no_reason() -> None:
    world = World()
    world.node("n1")
    reserve(world, "n2")
    job = world.submit(cpu=64_000)
    assert world.settle() == []
    why = explain_waiting(world.state, job)
    codes = [each.code for view in why.classes for each in view.blockers]
    assert codes == ["insufficient_cpu"] and [each.code for each in why.blockers] == ["unsatisfiable"]
