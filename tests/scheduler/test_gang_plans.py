"""Gangs in the planner: all or nothing, near to each other, in their turn."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.spec import JobAffinity, JobSelector, PlacementRules, Resources, TaskGroup
from hasched.model.states import PlacementPolicy
from hasched.scheduler.explain import pending_reason
from hasched.scheduler.planner import Planner
from hasched.statemachine.commands import CancelJob, PlaceGang, PlacePlan, StepClock
from hasched.statemachine.invariants import check, check_capacity
from hasched.statemachine.job import Job
from tests.scheduler.world import World


def placed(job: Job) -> dict[str, list[int]]:
    """Which ranks run where."""
    found: dict[str, list[int]] = {}
    for index, active in sorted((job.active_attempts or {}).items()):
        found.setdefault(active.node_id, []).append(index)
    return found


def test_a_gang_starts_whole_or_not_at_all() -> None:
    world = World()
    world.node("n1", cpu=2)
    world.node("n2", cpu=1)
    gang = world.submit(4, gang=True)
    world.settle()
    assert not gang.active
    world.node("n3", cpu=1)
    world.settle()
    assert placed(gang) == {"n1": [0, 1], "n2": [2], "n3": [3]}
    assert gang.gang_run is not None and gang.gang_run.port
    assert check(world.state) == check_capacity(world.state) == []


def test_it_takes_the_fewest_nodes_and_spares_the_roomy_one_for_the_last_task() -> None:
    world = World()
    for name, cpu in (("small", 2), ("large", 8), ("medium", 5)):
        world.node(name, cpu=cpu)
    gang = world.submit(10, gang=True)
    world.settle()
    assert placed(gang) == {"large": list(range(8)), "small": [8, 9]}


@pytest.mark.parametrize(
    ("size", "racks"),
    [
        pytest.param(4, {"b"}, id="the rack with the least to spare"),
        pytest.param(7, {"a"}, id="the only rack that has the room"),
        pytest.param(10, {"a", "b"}, id="several if none has"),
    ],
)
def test_its_nodes_share_a_rack_if_they_can(size: int, racks: set[str]) -> None:
    world = World()
    for number in range(4):
        world.node(f"a{number}", cpu=2, labels={"rack": "a"})
    for number in range(2):
        world.node(f"b{number}", cpu=2, labels={"rack": "b"})
    gang = world.submit(size, gang=True)
    world.settle()
    assert gang.active == size and {node[0] for node in placed(gang)} == racks


def test_a_gang_that_must_stay_within_a_label_waits_for_it() -> None:
    world = World()
    for name in ("a1", "a2", "b1", "b2"):
        world.node(name, cpu=2, labels={"room": name[0]})
    rules = PlacementRules(near=(JobAffinity(jobs=JobSelector(), within="room"),))
    gang = world.submit(5, gang=True, placement=rules)
    world.settle()
    assert not gang.active
    world.node("b3", cpu=1, labels={"room": "b"})
    world.settle()
    assert set(placed(gang)) == {"b1", "b2", "b3"}


def test_ranks_that_must_be_apart_get_a_node_each() -> None:
    world = World()
    for name in ("n1", "n2", "n3"):
        world.node(name, cpu=8)
    rules = PlacementRules(apart=(JobAffinity(),))
    gang = world.submit(3, gang=True, placement=rules)
    too_many = world.submit(4, gang=True, placement=rules)
    world.settle()
    assert sorted(map(len, placed(gang).values())) == [1, 1, 1]
    assert not too_many.active


def test_groups_get_what_each_asks_for() -> None:
    world = World()
    world.node("plain", cpu=4)
    world.node("fast", cpu=4, gpus=4)
    groups = (
        TaskGroup("driver", 1, Resources(cpu_milli=3000)),
        TaskGroup("worker", 4, Resources(cpu_milli=1000, gpus=1)),
    )
    gang = world.submit(5, gang=True, groups=groups)
    world.settle()
    assert placed(gang) == {"plain": [0], "fast": [1, 2, 3, 4]}
    other = world.submit(5, gang=True, groups=groups)
    world.settle()
    assert not other.active
    assert check_capacity(world.state) == []


def test_what_was_taken_in_vain_is_free_again() -> None:
    """By the sums there is room for each group, and not for both."""
    world = World()
    world.node("n1", cpu=4, gpus=1)
    groups = (
        TaskGroup("driver", 1, Resources(cpu_milli=3000)),
        TaskGroup("worker", 1, Resources(cpu_milli=2000, gpus=1)),
    )
    gang = world.submit(2, gang=True, groups=groups)
    world.settle()
    assert not gang.active
    single = world.submit(4, cpu=1)
    world.settle()
    assert single.active == 4


def test_two_gangs_that_would_each_fit_alone_do_not_share_the_room() -> None:
    world = World()
    world.node("n1", cpu=3)
    world.node("n2", cpu=3)
    first, second = world.submit(4, gang=True), world.submit(4, gang=True)
    plan = world.plan()
    assert isinstance(plan, PlaceGang) and plan.job_id == first.id
    assert world.plan() is None, "what is on its way is taken"
    world.decide(plan)
    world.settle()
    assert (first.active, second.active) == (4, 0)


def test_a_refused_gang_is_planned_again() -> None:
    world = World()
    world.node("n1", cpu=4)
    gang = world.submit(4, gang=True)
    plan = world.plan()
    assert isinstance(plan, PlaceGang)
    world.planner.settle(world.state, plan)
    world.settle()
    assert gang.active == 4


def test_a_gang_and_others_start_in_the_order_of_their_turns() -> None:
    world = World()
    world.node("n1", cpu=4)
    late = world.submit(4)
    gang = world.submit(3, gang=True, priority=1)
    first = world.submit(1, priority=2)
    world.settle()
    assert (first.active, gang.active, late.active) == (1, 3, 0)


def test_a_gang_that_waits_says_for_how_much() -> None:
    world = World()
    world.node("n1", cpu=4)
    world.submit(2)
    world.settle()
    gang, elastic = world.submit(4, gang=True), world.submit(9, min_count=5)
    one = world.submit(1, gang=True, cpu=3)
    world.settle()

    def why(job: Job) -> tuple[str, str]:
        reason = pending_reason(world.state, job)
        assert reason is not None
        return reason.code, reason.text

    assert why(gang) == ("gang", "its 4 tasks start together, and there is room for 2 now")
    assert why(elastic) == (
        "gang",
        "its first 5 tasks start together, and there is room for 2 now, and for 4 on empty nodes",
    )
    assert why(one)[0] == "insufficient_resources"
    world.node("n2", cpu=2)
    world.settle()
    world.end(gang.id, 0, code=1)
    assert gang.active and why(elastic)[0] == "gang"


def test_gangs_on_one_node_have_ports_of_their_own() -> None:
    world = World()
    world.node("n1", cpu=8)
    gangs = [world.submit(2, gang=True) for _ in range(4)]
    world.settle()
    assert len({gang.gang_run.port for gang in gangs if gang.gang_run is not None}) == 4


def test_a_gang_starts_again_when_its_last_rank_has_ended_well() -> None:
    """The end of the last one is a success, and still all of them wait again."""
    world = World()
    world.node("n1", cpu=4)
    gang = world.submit(3, gang=True, retries=1)
    world.settle()
    world.end(gang.id, 1, code=1)
    world.end(gang.id, 0, code=1)
    world.end(gang.id, 2)
    world.settle()
    assert [gang.attempts_made(index) for index in range(3)] == [2, 2, 2]


class TestElastic:
    def sizes(self, free: int, **fields: Any) -> int:
        world = World()
        world.node("n1", cpu=free)
        job = world.submit(8, min_count=4, **fields)
        world.settle()
        return job.active

    @pytest.mark.parametrize(("free", "size"), [(3, 0), (4, 4), (6, 6), (9, 8)])
    @pytest.mark.parametrize("gang", [True, False])
    def test_it_takes_what_there_is(self, gang: bool, free: int, size: int) -> None:
        assert self.sizes(free, gang=gang) == size

    def test_an_elastic_job_grows_and_a_gang_does_not(self) -> None:
        world = World()
        world.node("n1", cpu=8)
        loose, gang = world.submit(8, min_count=4), world.submit(8, min_count=4, gang=True)
        world.settle()
        assert (loose.active, gang.active) == (8, 0)
        world.node("n2", cpu=5)
        world.settle()
        assert gang.active == 5
        world.node("n3", cpu=5)
        world.settle()
        assert gang.active == 5
        world.do(CancelJob(job_id=loose.id, actor="ada"))
        assert check(world.state) == []

    def test_its_other_tasks_and_its_retries_start_one_by_one(self) -> None:
        world = World()
        world.node("n1", cpu=4)
        job = world.submit(6, min_count=3, retries=1)
        world.settle()
        assert job.active == 4
        world.end(job.id, 0, code=1)
        plan = world.plan()
        assert isinstance(plan, PlacePlan)
        world.decide(plan)
        assert job.active == 4

    def test_what_is_in_backoff_is_not_counted(self) -> None:
        world = World()
        world.node("n1", cpu=8)
        job = world.submit(4, min_count=2, retries=1, backoff_ms=1000)
        world.settle()
        for index in range(4):
            world.end(job.id, index, code=int(index > 0))
        world.settle()
        assert (job.active, job.in_backoff) == (0, 3)
        world.now_ms += 1000
        world.do(StepClock())
        world.settle()
        assert job.active == 3

    def test_one_that_shrinks_while_it_waits_is_looked_at_anew(self) -> None:
        world = World()
        job = world.submit(6, min_count=4)
        world.settle()
        world.do(CancelJob(job_id=job.id, actor="ada", indices=(0, 1, 2)))
        world.node("n1", cpu=8)
        world.settle()
        assert job.active == 3

    def test_more_tasks_than_start_at_once(self) -> None:
        world = World()
        world.node("n1", cpu=1000)
        job = world.submit(900, min_count=3)
        world.settle()
        assert job.active == 900


def test_gangs_get_their_ports_of_the_range_that_is_configured() -> None:
    world = World()
    world.planner = Planner(PlacementPolicy.BIN_PACK, world.reachable, gang_ports=range(5000, 5002))
    world.node("n1", cpu=8)
    gangs = [world.submit(2, gang=True) for _ in range(3)]
    world.settle()
    assert sorted(gang.gang_run.port for gang in gangs if gang.gang_run) == [5000, 5001]
    world.end(gangs[0].id, 0)
    world.end(gangs[0].id, 1)
    world.settle()
    assert gangs[2].active == 2, "once one of them has ended"


def test_a_quota_of_running_tasks_holds_for_an_elastic_job() -> None:
    world = World()
    world.node("n1", cpu=16)
    job = world.submit(8, min_count=2, max_running=3)
    world.settle()
    assert job.active == 3


class TestReserves:
    """A gang that fits nowhere is not passed for ever."""

    def world(self, nodes: int = 4, cpu: int = 2) -> World:
        world = World()
        for number in range(nodes):
            world.node(f"n{number}", cpu=cpu)
        return world

    @pytest.mark.parametrize("timeout_ms", [0, 60_000])
    def test_a_stream_of_small_tasks_does_not_starve_it(self, timeout_ms: int) -> None:
        world = self.world()
        stream = world.submit(4000, limit_ms=timeout_ms)
        world.settle()
        gang = world.submit(6, gang=True)
        behind = world.submit(4000, limit_ms=timeout_ms)
        rounds = 0
        while not gang.active:
            world.do(CancelJob(job_id=stream.id, actor="ada")) if rounds == 0 else None
            job_id, index, _ = world.active()[rounds % len(world.active())]
            world.end(job_id, index)
            world.settle(budget=20)
            rounds += 1
            assert rounds < 40, "every task of the nodes that are kept ends once"
        assert gang.active == 6
        world.settle()
        assert behind.active == 2, "what is left is somebody's again"

    def test_the_nodes_that_are_kept_are_those_that_are_free_first(self) -> None:
        world = self.world(nodes=3)
        ages = [world.submit(2, limit_ms=timeout_ms) for timeout_ms in (90_000, 10_000, 20_000)]
        world.settle()
        assert [set(placed(job)) for job in ages] == [{"n0"}, {"n1"}, {"n2"}]
        gang = world.submit(4, gang=True)
        world.settle()
        assert world.planner.held_nodes == {"n1": gang.id, "n2": gang.id}
        estimate = world.planner.estimate(world.state, gang.id)
        assert estimate is not None and 19_000 < estimate - world.now_ms < 30_000

    def test_others_get_what_ends_in_time_or_fits_beside(self) -> None:
        world = self.world(nodes=2, cpu=4)
        long = world.submit(3, limit_ms=100_000, cpu=1)
        world.settle()
        gang = world.submit(7, gang=True, cpu=1)
        too_long, short = world.submit(1, cpu=1, limit_ms=500_000), world.submit(1, cpu=1, limit_ms=20_000)
        world.settle()
        assert (long.active, gang.active) == (3, 0)
        assert (too_long.active, short.active) == (1, 1), "of eight cores the gang wants seven"
        another = world.submit(1, cpu=1, limit_ms=500_000)
        world.settle()
        assert not another.active

    def test_who_stands_before_it_may_use_its_nodes(self) -> None:
        world = self.world()
        small = world.submit(5, limit_ms=60_000)
        world.settle()
        gang = world.submit(8, gang=True)
        world.settle()
        assert set(world.planner.held_nodes.values()) == {gang.id}
        urgent = world.submit(3, priority=5)
        world.settle()
        assert urgent.active == 3
        for index in range(5):
            world.end(small.id, index)
        for index in range(3):
            world.end(urgent.id, index)
        world.settle()
        assert gang.active == 8 and not world.planner.held_nodes

    def test_a_gang_that_no_nodes_could_hold_keeps_none(self) -> None:
        world = self.world()
        gang = world.submit(9, gang=True)
        behind = world.submit(8)
        world.settle()
        assert not world.planner.held_nodes and behind.active == 8
        world.node("n9", cpu=1)
        world.settle()
        assert set(world.planner.held_nodes.values()) == {gang.id}

    def test_a_gang_that_needs_a_node_which_somebody_before_it_holds_has_its_turn_later(self) -> None:
        world = self.world(nodes=2)
        busy = world.submit(2, cpu=2, limit_ms=60_000)
        world.settle()
        before = world.submit(1, cpu=2, limit_ms=60_000)
        gang = world.submit(2, cpu=2, gang=True)
        world.settle()
        assert set(world.planner.held_nodes.values()) == {before.id}
        world.end(busy.id, 0)
        world.settle()
        assert before.active == 1
        assert list(world.planner.held_nodes.values()) == [gang.id, gang.id]

    def test_a_gang_that_gives_up_lets_its_nodes_go(self) -> None:
        world = self.world()
        world.submit(1, cpu=2)
        world.settle()
        gang = world.submit(8, gang=True)
        world.settle()
        later = world.submit(6)
        world.settle()
        assert not later.active
        world.do(CancelJob(job_id=gang.id, actor="ada"))
        world.settle()
        assert later.active == 6 and not world.planner.held_nodes

    def test_groups_are_kept_room_for_what_each_asks_for(self) -> None:
        world = World()
        world.node("n1", cpu=4, gpus=2)
        world.node("n2", cpu=4)
        busy = world.submit(2, cpu=3, limit_ms=60_000)
        world.settle()
        groups = (
            TaskGroup("driver", 1, Resources(cpu_milli=3000)),
            TaskGroup("worker", 2, Resources(cpu_milli=1000, gpus=1)),
        )
        gang = world.submit(3, gang=True, groups=groups)
        world.settle()
        assert gang.id in world.planner.held_nodes.values()
        later = world.submit(4)
        for index in range(2):
            world.end(busy.id, index)
            world.settle()
        assert gang.active == 3 and later.active == 3

    def test_one_that_may_drives_others_out_of_its_nodes(self) -> None:
        world = self.world(nodes=4, cpu=2)
        equals = world.submit(3, priority_class="high")
        world.settle()
        lower = world.submit(5)
        world.settle()
        gang = world.submit(4, gang=True, priority_class="high")
        world.settle()
        (driven,) = world.preempted
        assert len(driven) == 4 and all(task.startswith(f"{lower.id}.") for task in driven)
        for index in sorted(lower.yields or {}):
            assert not gang.active
            world.end(lower.id, index, code=1)
            world.settle()
        assert (gang.active, equals.active) == (4, 3)
        assert lower.active == 1

    def test_nobody_is_driven_out_in_vain(self) -> None:
        world = self.world(nodes=2, cpu=2)
        world.submit(3, priority_class="high")
        world.settle()
        lower = world.submit(1)
        world.settle()
        world.submit(2, gang=True, priority_class="high")
        world.settle()
        assert lower.active == 1 and not lower.yields


@pytest.mark.parametrize("budget", [2, 1000])
def test_nodes_are_kept_for_a_gang_also_where_another_gang_was_the_last_to_be_planned(budget: int) -> None:
    world = World()
    for number in range(4):
        world.node(f"n{number}", cpu=4)
    world.submit(2, cpu=1)
    world.settle()
    large, small = world.submit(16, gang=True), world.submit(3, gang=True)
    world.settle(budget)
    assert (large.active, small.active) == (0, 3)
    assert set(world.planner.held_nodes.values()) == {large.id}


def test_a_gang_has_the_node_that_a_job_behind_it_holds() -> None:
    world = World()
    for name in ("n1", "n2"):
        world.node(name, cpu=4)
    tasks = [world.submit(cpu=cpu) for cpu in (2, 2, 2, 2)]
    world.settle()
    gang = world.submit(4, gang=True)
    single = world.submit(cpu=4)
    world.settle()
    held = world.planner.held_nodes
    assert sorted(held.values()) == [gang.id, single.id]
    for node in held:
        job = next(job for job in tasks if (active := job.attempt_of(0)) is not None and active.node_id == node)
        world.end(job.id, 0)
        world.settle()
    assert placed(gang) == {"n1": [0, 1], "n2": [2, 3]} or placed(gang) == {"n2": [0, 1], "n1": [2, 3]}
    world.settle()
    assert list(world.planner.held_nodes.values()) == [
        single.id
    ]  # it holds a node again, and starts when that is empty


@pytest.mark.parametrize("steps", range(8))
def test_an_elastic_job_starts_smaller_if_nodes_shrink_while_room_is_looked_for(steps: int) -> None:
    world = World()
    for number in range(100):
        world.node(f"n{number}", cpu=1)
    job = world.submit(90, min_count=60)
    plans = [plan for _ in range(steps) if (plan := world.plan(budget=4)) is not None]
    for number in range(30):
        world.node(f"n{number}", cpu=0)
    for plan in plans:
        world.decide(plan)
    world.settle(budget=4)
    assert 60 <= job.active <= 90
