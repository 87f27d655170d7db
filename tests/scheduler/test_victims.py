"""Whom a job drives out that may: the cheapest, never an equal, and the room is then its own."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded, AttemptStarted
from hasched.scheduler.preemption import victims_on
from hasched.scheduler.slots import Slot
from hasched.statemachine.commands import ReportAttempts
from hasched.statemachine.job import Job
from tests.scheduler.world import World

MINUTE = 60_000


def urgent(world: World, cpu: int = 1, **fields: Any) -> Job:
    return world.submit(cpu=cpu, priority_class="high", **fields)


def start(world: World, job: Job, index: int = 0) -> None:
    active = job.attempt_of(index)
    assert active is not None
    started = AttemptStarted(job.id, index, active.attempt, world.now_ms)
    world.do(ReportAttempts(node_id=active.node_id, reports=(started,)))


def stop(world: World, job: Job, index: int = 0) -> None:
    """The agent has ended what was told to give way."""
    active = job.attempt_of(index)
    assert active is not None
    ended = AttemptEnded(job.id, index, active.attempt, world.now_ms, world.now_ms, EndKind.PREEMPTED, 15)
    world.do(ReportAttempts(node_id=active.node_id, reports=(ended,)))


def test_a_job_of_a_class_that_preempts_drives_out_as_few_as_it_needs_and_starts_in_their_place() -> None:
    world = World()
    world.node("n1", cpu=4)
    low = world.submit(count=4)
    world.settle()
    high = urgent(world, cpu=2)
    small = world.submit()
    assert world.settle() == []
    assert [len(tasks) for tasks in world.preempted] == [2]
    for task in world.preempted[0]:
        stop(world, low, int(task.split(".")[1]))
    assert world.settle() == [f"{high.id}.0@n1"], "neither who was driven out nor who came later takes the room"
    assert (low.eligible, small.eligible) == (2, 1)
    world.end(high.id, 0)
    assert len(world.settle()) == 2


def test_a_job_of_another_class_waits() -> None:
    world = World()
    world.node("n1", cpu=1)
    world.submit()
    world.settle()
    world.submit(priority=1000)
    world.submit(priority_class="medium")
    assert world.settle() == [] and world.preempted == []


def test_equals_are_left_alone() -> None:
    world = World()
    world.node("n1", cpu=2)
    urgent(world)
    world.submit(priority=900)
    world.settle()
    urgent(world)
    assert world.settle() == [] and world.preempted == []


def test_the_lowest_priority_goes_first_and_then_who_loses_the_least_work() -> None:
    world = World()
    world.node("n1", cpu=4)
    old, young, lowest, better = world.submit(), world.submit(), world.submit(priority=-1), world.submit(priority=5)
    world.settle()
    for job in (lowest, better, old):
        start(world, job)
        world.now_ms += MINUTE
    start(world, young)
    for _ in range(3):
        urgent(world)
        world.settle()
        (victim,) = world.preempted[-1]
        stop(world, world.state.jobs[int(victim.split(".")[0])])
        world.settle()
    assert world.preempted == [[f"{lowest.id}.0"], [f"{young.id}.0"], [f"{old.id}.0"]]


def test_the_cheapest_node_is_chosen() -> None:
    world = World()
    world.node("n1", cpu=2)
    world.submit(count=2)
    world.settle()
    world.node("n2", cpu=2)
    large = world.submit(cpu=2)
    world.settle()
    high = urgent(world, cpu=2)
    world.settle()
    assert world.preempted == [[f"{large.id}.0"]], "one on n2 rather than two on n1"
    assert world.planner.held_nodes == {"n2": high.id}


def test_one_large_task_is_driven_out_rather_than_the_small_ones_that_are_not_needed_with_it() -> None:
    world = World()
    world.node("n1", cpu=4)
    world.submit(priority=-1)
    large = world.submit(cpu=3)
    world.settle()
    urgent(world, cpu=3)
    world.settle()
    assert world.preempted == [[f"{large.id}.0"]]


def test_nobody_is_driven_out_twice_for_the_same() -> None:
    world = World()
    world.node("n1", cpu=2)
    world.submit(count=2)
    world.settle()
    urgent(world)
    world.settle()
    world.node("n2", cpu=0)
    world.settle()
    for _ in world.planner.rebuild(world.state):
        pass
    world.settle()
    assert len(world.preempted) == 1, "a new leader sees that room is on its way"


def test_all_nodes_are_looked_at_a_slice_at_a_time() -> None:
    world = World()
    for number in range(300):
        world.node(f"n{number}", cpu=1)
    world.submit(count=299, priority=950)
    world.settle()
    only = world.submit()
    world.settle()
    urgent(world)
    world.settle()
    assert world.preempted == [[f"{only.id}.0"]]


@settings(max_examples=60, deadline=None)
@given(
    running=st.lists(st.tuples(st.integers(1, 3), st.integers(-1, 1), st.integers(0, 5)), min_size=1, max_size=7),
    wanted=st.integers(1, 8),
)
def test_no_victim_could_be_spared_and_none_is_an_equal(running: list[tuple[int, int, int]], wanted: int) -> None:
    world = World()
    world.node("n1", cpu=8)
    for cpu, above, minutes in running:
        job = world.submit(cpu=cpu, priority=900 + above)
        world.settle()
        if job.active:
            start(world, job)
            world.now_ms += minutes * MINUTE
    winner = urgent(world, cpu=wanted)
    node = world.state.nodes["n1"]
    slot = Slot(node, 1)
    slot.refresh(node, usable=True)
    victims = victims_on(world.state, winner, winner.resources, slot)
    jobs = [job for job in world.state.jobs.values() if job.active]
    free = 8 - sum(job.resources.cpu_milli for job in jobs) // 1000
    weaker = [job for job in jobs if job.priority < 900]
    if victims is None:
        assert free + sum(job.resources.cpu_milli for job in weaker) // 1000 < wanted
        return
    chosen = [world.state.jobs[key.job_id] for key in victims.attempts]
    assert all(job in weaker for job in chosen)
    made = free + sum(job.resources.cpu_milli for job in chosen) // 1000
    assert made >= wanted
    assert all(made - job.resources.cpu_milli // 1000 < wanted for job in chosen)
