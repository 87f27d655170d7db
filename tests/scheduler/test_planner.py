"""What a plan holds: order, fit, caps, and no double booking."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.states import NodeState, PlacementPolicy
from hasched.statemachine.commands import (
    CancelJob,
    RemoveNode,
    ResumeJob,
    SetNodeState,
    StepClock,
    SuspendJob,
    UpdateJob,
)
from tests.scheduler.world import World


def test_higher_priority_starts_first_then_the_older_job() -> None:
    world = World()
    old, young, urgent = world.submit(), world.submit(), world.submit(priority=5)
    world.node("n1", cpu=2)
    assert world.settle() == [f"{urgent.id}.0@n1", f"{old.id}.0@n1"]
    world.end(urgent.id, 0)
    assert world.settle() == [f"{young.id}.0@n1"]


def test_jobs_of_different_sizes_keep_their_order() -> None:
    world = World()
    jobs = [world.submit(cpu=1 + number % 2) for number in range(6)]
    world.node("n1", cpu=9)
    assert world.settle() == [f"{job.id}.0@n1" for job in jobs]


def test_a_task_that_does_not_fit_is_passed_by_one_that_does() -> None:
    world = World()
    world.node("n1", cpu=2)
    world.submit(cpu=3)
    small = world.submit(cpu=1)
    assert world.settle() == [f"{small.id}.0@n1"]


def test_an_array_starts_in_order_and_goes_on_as_tasks_end() -> None:
    world = World()
    world.node("n1", cpu=2)
    world.submit(count=5)
    assert world.settle() == ["1.0@n1", "1.1@n1"]
    world.end(1, 1)
    assert world.settle() == ["1.2@n1"]
    world.end(1, 0)
    world.end(1, 2)
    assert world.settle() == ["1.3@n1", "1.4@n1"]


def test_no_more_than_max_running_run_at_once() -> None:
    world = World()
    world.node("n1", cpu=8)
    world.submit(count=5, max_running=2)
    other = world.submit()
    assert world.settle() == ["1.0@n1", "1.1@n1", f"{other.id}.0@n1"]
    world.end(1, 0)
    assert world.settle() == ["1.2@n1"]


def test_max_running_counts_what_is_on_its_way() -> None:
    world = World()
    world.node("n1", cpu=8)
    world.submit(count=5, max_running=3)
    first = world.plan(budget=2)
    second = world.plan()
    assert first is not None and second is not None
    assert [plan.placements[0].indices for plan in (first, second)] == [(0,), (1, 2)]
    assert world.decide(first).refused == 0
    assert world.decide(second).refused == 0


def test_plans_on_their_way_use_nothing_twice() -> None:
    world = World()
    world.node("n1", cpu=4)
    world.submit(count=10)
    plans = [plan for plan in (world.plan(budget=2) for _ in range(8)) if plan is not None]
    assert sum(len(placement.indices) for plan in plans for placement in plan.placements) == 4
    assert [world.decide(plan).refused for plan in plans] == [0] * len(plans)
    assert not world.planner.ready, "what the plans took is not free again because they were applied"


def test_a_plan_that_was_lost_is_made_again() -> None:
    world = World()
    world.node("n1", cpu=1)
    world.submit()
    lost = world.plan()
    assert lost is not None
    assert not world.planner.ready
    world.planner.settle(world.state, lost)
    assert world.settle() == ["1.0@n1"]


def test_a_lost_plan_that_was_committed_after_all_does_no_harm() -> None:
    world = World()
    world.node("n1", cpu=1)
    world.submit(count=2)
    late = world.plan()
    assert late is not None
    world.planner.settle(world.state, late)
    again = world.plan()
    assert again is not None
    world.do(late)
    assert world.decide(again).scheduled == 0
    assert world.settle() == []
    world.end(1, 0)
    assert world.settle() == ["1.1@n1"]


def test_what_was_refused_is_tried_again() -> None:
    world = World()
    world.node("n1", cpu=4)
    world.submit(count=2)
    plan = world.plan()
    assert plan is not None
    world.do(SuspendJob(job_id=1, actor="ada"))
    assert world.decide(plan).refused == 2
    assert world.settle() == []
    world.do(ResumeJob(job_id=1, actor="ada"))
    assert world.settle() == ["1.0@n1", "1.1@n1"]


def test_nothing_of_a_cancelled_job_starts() -> None:
    world = World()
    world.node("n1", cpu=1)
    world.submit(count=3)
    assert world.settle() == ["1.0@n1"]
    world.do(CancelJob(job_id=1, actor="ada"))
    world.end(1, 0, code=1)
    assert world.settle() == []


def test_a_failed_task_starts_again_when_its_backoff_is_over() -> None:
    world = World()
    world.node("n1", cpu=1)
    world.submit(retries=1, backoff_ms=5000)
    world.settle()
    world.end(1, 0, code=1)
    assert world.settle() == []
    world.now_ms += 5000
    world.do(StepClock())
    assert world.settle() == ["1.0@n1"]


def test_the_tasks_of_a_lost_node_start_elsewhere() -> None:
    world = World()
    world.node("n1", cpu=2)
    world.submit(count=2)
    assert world.settle() == ["1.0@n1", "1.1@n1"]
    world.node("n2", cpu=2)
    world.lose("n1")
    assert world.settle() == ["1.0@n2", "1.1@n2"]


def test_a_task_requeued_while_later_ones_are_on_their_way_is_not_forgotten() -> None:
    world = World()
    world.node("n1", cpu=1)
    world.submit(count=2, retries=1)
    world.settle()
    world.node("n2", cpu=1)
    on_its_way = world.plan()
    assert on_its_way is not None
    world.end(1, 0, code=1)
    assert world.plan() is None
    assert world.decide(on_its_way).scheduled == 1
    assert world.settle() == ["1.0@n1"]


@pytest.mark.parametrize("state", [NodeState.UNHEALTHY, NodeState.DISCONNECTED])
def test_a_node_that_is_not_healthy_gets_nothing(state: NodeState) -> None:
    world = World()
    world.node("n1")
    world.do(SetNodeState(node_id="n1", state=state, reason="silent"))
    world.submit()
    assert world.settle() == []
    world.node("n1")
    assert world.settle() == ["1.0@n1"]


def test_a_node_without_a_stream_gets_nothing() -> None:
    world = World()
    world.node("n1")
    del world.reachable["n1"]
    world.planner.node_came_or_went(world.state, "n1")
    world.submit()
    assert world.settle() == []
    world.reachable["n1"] = None
    world.planner.node_came_or_went(world.state, "n1")
    assert world.settle() == ["1.0@n1"]


def test_a_node_that_was_removed_gets_nothing_even_if_a_plan_was_on_its_way() -> None:
    world = World()
    world.node("n1")
    world.submit()
    plan = world.plan()
    assert plan is not None
    world.lose("n1")
    world.do(RemoveNode(node_id="n1", actor="ada"))
    assert world.decide(plan).refused == 1
    assert world.settle() == []
    world.node("n2")
    assert world.settle() == ["1.0@n2"]


def test_a_larger_inventory_is_used() -> None:
    world = World()
    world.node("n1", cpu=1)
    world.submit(cpu=2)
    assert world.settle() == []
    world.node("n1", cpu=2)
    assert world.settle() == ["1.0@n1"]


def test_gpus_and_countables_are_counted() -> None:
    world = World()
    world.node("n1", cpu=8, gpus=2, licence=1)
    world.submit(count=3, gpus=1)
    world.submit(count=2, countables=(("licence", 1),))
    world.submit(countables=(("unheard_of", 1),))
    assert world.settle() == ["1.0@n1", "1.1@n1", "2.0@n1"]
    world.end(2, 0)
    assert world.settle() == ["2.1@n1"]


def test_tasks_that_ask_for_nothing_are_still_bounded_per_node() -> None:
    world = World()
    world.node("n1", cpu=1)
    world.submit(count=5000, cpu=0)
    assert len(world.settle(budget=500)) == 4096
    world.end(1, 17)
    assert world.settle() == ["1.4096@n1"]


@pytest.mark.parametrize(
    ("policy", "nodes"),
    [
        pytest.param(PlacementPolicy.BIN_PACK, ["n1", "n1", "n1", "n1", "n2", "n2"], id="bin_pack fills a node"),
        pytest.param(PlacementPolicy.SPREAD, ["n2", "n1", "n2", "n1", "n2", "n2"], id="spread takes the emptiest"),
        pytest.param(PlacementPolicy.ROUND_ROBIN, ["n1", "n2", "n1", "n2", "n1", "n2"], id="round_robin takes turns"),
        pytest.param(PlacementPolicy.WEIGHTED, ["n1", "n1", "n1", "n1", "n2", "n2"], id="weighted fills a node"),
    ],
)
@pytest.mark.parametrize("budget", [1000, 2])
def test_policies(policy: PlacementPolicy, nodes: list[str], budget: int) -> None:
    world = World(policy)
    world.node("n1", cpu=4)
    world.node("n2", cpu=6)
    for _ in nodes:
        world.submit()
    assert sorted(placed.split("@")[1] for placed in world.settle(budget)) == sorted(nodes)


def test_work_without_gpus_stays_off_gpu_nodes_while_others_have_room() -> None:
    world = World()
    world.node("gpu", cpu=2, gpus=1)
    world.node("plain", cpu=16)
    world.submit(count=17)
    assert world.settle()[-1] == "1.16@gpu"


def test_best_fit_leaves_the_large_hole_for_the_large_task() -> None:
    world = World()
    world.node("large", cpu=8)
    world.node("small", cpu=2)
    small, large = world.submit(cpu=2), world.submit(cpu=8)
    assert world.settle() == [f"{small.id}.0@small", f"{large.id}.0@large"]


def test_a_pass_in_which_nothing_fits_costs_by_class_and_not_by_task() -> None:
    world = World()
    world.node("n1", cpu=1)
    world.submit()
    world.settle()
    for number in range(1000):
        world.submit(count=100, cpu=1 + number % 10)
    before = world.planner.units_spent
    assert world.settle() == []
    assert world.planner.units_spent - before < 100, "ten shapes are looked at, and not a thousand jobs"
    world.do(StepClock())
    assert not world.planner.ready, "what fits nowhere isn't looked at again before capacity grows"


def test_capacity_that_grows_is_looked_at_once_for_each_shape() -> None:
    world = World()
    world.node("n1", cpu=1)
    world.submit()
    world.settle()
    for number in range(1000):
        world.submit(count=10, cpu=2 + number % 100)
    world.settle()
    before = world.planner.units_spent
    world.end(1, 0)
    assert world.planner.ready
    assert world.settle() == []
    assert 0 < world.planner.units_spent - before <= 10, "a hundred looks at one node, whatever waits"
    assert not world.planner.ready


def test_only_the_node_that_grew_is_looked_at_again() -> None:
    world = World()
    for number in range(320):
        world.node(f"n{number}", cpu=1)
    world.submit(count=330)
    world.settle()
    before = world.planner.units_spent
    world.end(1, 17)
    assert len(world.settle()) == 1
    assert world.planner.units_spent - before < 10


def test_a_slice_is_bounded() -> None:
    world = World()
    world.node("n1", cpu=1000)
    world.submit(count=500)
    for _ in range(500):
        world.submit()
    plan = world.plan(budget=64)
    assert plan is not None
    assert world.decide(plan).scheduled == 63, "looking at the class is a unit too"
    assert len(world.settle(budget=64)) == 1000 - 63


def test_a_new_leader_plans_from_the_state_alone() -> None:
    world = World()
    world.node("n1", cpu=2)
    world.submit(count=3)
    world.settle()
    world.submit(priority=1)
    steps = world.planner.rebuild(world.state)
    next(steps)
    world.end(1, 0)
    for _ in steps:
        pass
    assert world.settle() == ["2.0@n1"]
    world.end(2, 0)
    assert world.settle() == ["1.2@n1"]


def test_a_job_that_is_updated_while_it_waits_has_its_new_place() -> None:
    world = World()
    first, second, third = world.submit(), world.submit(), world.submit(priority=3)
    world.do(UpdateJob(job_id=second.id, actor="ada", priority=5))
    world.do(UpdateJob(job_id=third.id, actor="ada", priority=0))
    started = []
    for number in range(3):
        world.node(f"n{number}", cpu=1)
        started += world.settle()
    assert started == [f"{job.id}.0@n{number}" for number, job in enumerate((second, first, third))]


@pytest.mark.parametrize("together", [{}, {"gang": True}])
def test_a_job_that_is_put_behind_others_holds_nothing_before_them(together: dict[str, Any]) -> None:
    world = World()
    world.node("n1", cpu=4)
    running = world.submit(cpu=3, limit_ms=3_600_000)
    assert world.settle() == [f"{running.id}.0@n1"]
    large = world.submit(cpu=4, **together)
    assert world.settle() == []
    small = world.submit()
    assert world.settle() == [], "the node is held for the large one"
    world.do(UpdateJob(job_id=large.id, actor="ada", priority=-1))
    assert world.settle() == [f"{small.id}.0@n1"]


@pytest.mark.parametrize("together", [{}, {"gang": True}, {"min_count": 1}])
def test_a_job_waits_for_its_time(together: dict[str, Any]) -> None:
    world = World()
    world.node("n1")
    job = world.submit(count=2, not_before_ms=1000, **together)
    assert world.settle() == []
    world.now_ms += 1000
    world.do(StepClock())
    assert world.settle() == [f"{job.id}.{index}@n1" for index in range(2)]


@pytest.mark.parametrize(
    ("policy", "node"),
    [(PlacementPolicy.BIN_PACK, "busy"), (PlacementPolicy.WEIGHTED, "held")],
)
def test_by_weight_half_the_gpus_of_a_node_count_more_than_most_of_its_cores(
    policy: PlacementPolicy, node: str
) -> None:
    world = World(policy)
    world.node("held", cpu=16, memory=16, gpus=2)
    world.submit(cpu=0, gpus=1)
    world.settle()
    world.node("busy", cpu=16, memory=16, gpus=2)
    world.do(SetNodeState(node_id="held", state=NodeState.UNHEALTHY, reason="late"))
    world.submit(cpu=12, memory=12)
    world.settle()
    world.do(SetNodeState(node_id="held", state=NodeState.HEALTHY, reason=""))
    world.submit(cpu=1)
    assert [placed.partition("@")[2] for placed in world.settle()] == [node]
