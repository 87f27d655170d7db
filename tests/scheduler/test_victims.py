"""Whom a job drives out that may: the cheapest, never an equal, and the room is then its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded, AttemptStarted
from hasched.scheduler.preemption import Ousting
from hasched.scheduler.slots import Slot
from hasched.statemachine.commands import CancelJob, ReportAttempts
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


class TestManyAtOnce:
    """One pass tells everybody who has to go, so an urgent array waits for one grace, not for one a task."""

    def world(self, nodes: int = 10, cpu: int = 2) -> tuple[World, Job]:
        world = World()
        for number in range(nodes):
            world.node(f"n{number}", cpu=cpu)
        low = world.submit(count=nodes * cpu)
        world.settle()
        return world, low

    def make_way(self, world: World) -> None:
        for task in [task for tasks in world.preempted for task in tasks]:
            job_id, index = map(int, task.split("."))
            if world.state.jobs[job_id].attempt_of(index) is not None:
                stop(world, world.state.jobs[job_id], index)

    def test_as_many_go_as_the_array_has_tasks(self) -> None:
        world, low = self.world(nodes=60)
        high = urgent(world, count=100)
        world.settle()
        assert len(low.yields or {}) == 100
        assert len(world.preempted) > 1, "some at a time, so that no slice is long"
        behind = world.submit(count=100)
        self.make_way(world)
        world.settle()
        assert (high.active, low.active, behind.active) == (100, 20, 0)
        assert high.id not in world.planner.held_nodes.values()

    def test_room_that_comes_late_stays_the_arrays(self) -> None:
        world, low = self.world(nodes=2, cpu=4)
        high = urgent(world, count=8)
        world.settle()
        for index in range(8):
            assert world.planner.held_nodes, "until the last has started"
            stop(world, low, index)
            world.settle()
            assert (high.active, low.active) == (index + 1, 7 - index)

    def test_no_more_go_than_its_limits_let_start(self) -> None:
        world, low = self.world()
        urgent(world, count=100, max_running=7)
        world.settle()
        assert len(low.yields or {}) == 7

    def test_single_jobs_of_one_shape_are_served_together(self) -> None:
        world, low = self.world()
        jobs = [urgent(world) for _ in range(5)]
        world.settle()
        assert len(low.yields or {}) == 5
        self.make_way(world)
        world.settle()
        assert all(job.active for job in jobs)

    def test_nobody_goes_for_what_is_cancelled_meanwhile(self) -> None:
        world, low = self.world(nodes=4)
        high = urgent(world, count=4)
        world.settle()
        assert len(world.planner.held_nodes) >= 2
        world.do(CancelJob(job_id=high.id, actor="ada"))
        world.settle()
        assert world.planner.held_nodes == {}
        self.make_way(world)
        world.settle()
        assert low.active == 8

    def test_the_least_work_of_the_whole_cluster_is_lost(self) -> None:
        world, low = self.world(nodes=150, cpu=1)
        for index in range(150):
            start(world, low, index)
            world.now_ms += 1000
        urgent(world, count=3)
        world.settle()
        assert sorted(low.yields or {}) == [147, 148, 149], "the youngest, on the nodes that are looked at last"

    def test_the_second_task_goes_where_it_costs_less_than_beside_the_first(self) -> None:
        world = World()
        for node in ("n1", "n2"):
            world.node(node, cpu=2)
        low = world.submit(count=4)
        world.settle()
        where = {index: active.node_id for index, active in (low.active_attempts or {}).items()}
        young = [next(index for index, node in where.items() if node == name) for name in ("n1", "n2")]
        for index in [index for index in where if index not in young] + young:
            start(world, low, index)
            world.now_ms += MINUTE
        urgent(world, count=2)
        world.settle()
        assert sorted(low.yields or {}) == sorted(young)

    def test_room_that_is_not_needed_any_more_is_let_go(self) -> None:
        world, _ = self.world(nodes=4, cpu=1)
        high = urgent(world, count=4)
        world.settle()
        assert len(world.planner.held_nodes) == 4
        world.node("n9", cpu=2)
        world.settle()
        assert high.active == 2
        assert list(world.planner.held_nodes.values()).count(high.id) == 2


class TestGangsGiveWay:
    """A gang goes whole or stays, an elastic job shrinks before it goes."""

    def test_all_of_a_gang_goes_where_nothing_else_does(self) -> None:
        world = World()
        for number in range(4):
            world.node(f"n{number}", cpu=2)
        gang = world.submit(8, gang=True)
        world.settle()
        high = urgent(world, count=3)
        world.settle()
        assert len(gang.yields or {}) == 8
        for index in range(8):
            stop(world, gang, index)
        world.settle()
        assert (high.active, gang.active, gang.state.final) == (3, 0, False)
        for index in range(3):
            world.end(high.id, index)
        world.settle()
        assert gang.active == 8, "and starts again, with no retry used"

    def test_a_gang_is_dearer_than_a_task_that_has_run_longer(self) -> None:
        world = World()
        world.node("n1", cpu=1)
        world.node("n2", cpu=2)
        old = world.submit()
        world.settle()
        start(world, old)
        world.now_ms += MINUTE
        gang = world.submit(2, gang=True)
        world.settle()
        urgent(world)
        world.settle()
        assert world.preempted == [[f"{old.id}.0"]] and not gang.yields

    def test_what_a_gang_leaves_on_other_nodes_is_used_before_anybody_else_goes(self) -> None:
        world = World()
        world.node("n0", cpu=2)
        small = world.submit(2)
        world.settle()
        for index in range(2):
            start(world, small, index)
        world.now_ms += MINUTE
        world.node("n1", cpu=2)
        world.node("n2", cpu=2)
        gang = world.submit(2, cpu=2, gang=True)
        world.settle()
        assert (small.active, gang.active) == (2, 2)
        urgent(world, count=2, cpu=2)
        world.settle()
        assert len(gang.yields or {}) == 2 and not small.yields

    def test_a_gang_of_equal_priority_stays(self) -> None:
        world = World()
        world.node("n1", cpu=2)
        gang = urgent(world, count=2, gang=True)
        world.settle()
        urgent(world)
        world.settle()
        assert world.preempted == [] and gang.active == 2

    def test_an_elastic_job_shrinks_to_its_least_and_goes_on(self) -> None:
        world = World()
        for number in range(3):
            world.node(f"n{number}", cpu=2)
        elastic = world.submit(6, min_count=2)
        world.settle()
        assert elastic.active == 6
        urgent(world, count=4)
        world.settle()
        assert len(elastic.yields or {}) == 4

    @pytest.mark.parametrize(("least", "goes"), [(1, "elastic"), (2, "old")])
    def test_an_elastic_job_gives_what_it_can_spare_before_others_lose_more(self, least: int, goes: str) -> None:
        world = World()
        world.node("n1", cpu=1)
        old = world.submit()
        world.settle()
        start(world, old)
        world.now_ms += MINUTE
        world.node("n2", cpu=2)
        elastic = world.submit(2, min_count=least)
        world.settle()
        urgent(world)
        world.settle()
        assert (bool(old.yields), len(elastic.yields or {})) == (goes == "old", int(goes == "elastic"))

    def test_an_elastic_job_that_can_spare_no_more_goes_whole(self) -> None:
        world = World()
        for number in range(3):
            world.node(f"n{number}", cpu=2)
        elastic = world.submit(6, min_count=2)
        world.settle()
        urgent(world, count=5)
        world.settle()
        assert len(elastic.yields or {}) == 6

    def test_a_gang_that_waits_drives_out_another_over_several_nodes(self) -> None:
        world = World()
        for number in range(4):
            world.node(f"n{number}", cpu=2)
        low = world.submit(8, gang=True)
        world.settle()
        high = urgent(world, count=6, gang=True)
        world.settle()
        assert len(low.yields or {}) == 8
        for index in range(8):
            stop(world, low, index)
        world.settle()
        assert (high.active, low.active) == (6, 0)

    def test_a_gang_drives_out_those_who_lose_the_least(self) -> None:
        world = World()
        jobs = []
        for number in range(6):
            world.node(f"n{number}", cpu=2)
            jobs.append(world.submit(cpu=2))
            world.settle()
            start(world, jobs[-1])
            world.now_ms += MINUTE
        urgent(world, count=4, gang=True)
        world.settle()
        assert [bool(job.yields) for job in jobs] == [False] * 4 + [True] * 2


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
    victims = Ousting(world.state, winner).on(slot, ((winner.resources, 1),))
    jobs = [job for job in world.state.jobs.values() if job.active]
    free = 8 - sum(job.resources.cpu_milli for job in jobs) // 1000
    weaker = [job for job in jobs if job.priority < 900]
    if victims is None:
        assert free + sum(job.resources.cpu_milli for job in weaker) // 1000 < wanted
        return
    chosen = [world.state.jobs[loss.job_id] for loss in victims.losses]
    assert all(job in weaker for job in chosen)
    made = free + sum(job.resources.cpu_milli for job in chosen) // 1000
    assert made >= wanted
    assert all(made - job.resources.cpu_milli // 1000 < wanted for job in chosen)
