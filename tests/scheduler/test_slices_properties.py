"""A plan that is made in slices of any size is the plan that would be made in one; and what happens between them is seen."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from hasched.model.spec import JobAffinity, JobSelector, PlacementRules, Resources, Spread, TaskGroup
from hasched.statemachine.commands import CancelJob, PlaceGang, RemoveNode, UpdateJob
from hasched.statemachine.invariants import check, check_capacity
from tests.scheduler.places import Places
from tests.scheduler.world import World

NODES = 150  # more than are looked through in one step
RELATED = (
    PlacementRules(spread=(Spread("rack"),)),
    PlacementRules(spread=(Spread(),)),
    PlacementRules(apart=(JobAffinity(within="rack"),)),
    PlacementRules(apart=(JobAffinity(weight=50), JobAffinity(within="rack", weight=20))),
    PlacementRules(near=(JobAffinity(within="rack"),)),
    PlacementRules(near=(JobAffinity(JobSelector("base"), "rack", 70),)),
)
GROUPS = (TaskGroup("driver", 1, Resources(cpu_milli=3000)), TaskGroup("worker", 40, Resources(cpu_milli=2000)))
JOB = st.one_of(
    st.tuples(st.just("gang"), st.integers(1, 400)),
    st.tuples(st.just("elastic"), st.integers(1, 300)),
    st.tuples(st.just("groups"), st.just(41)),
    st.tuples(st.integers(0, len(RELATED) - 1), st.integers(1, 40)),
)


def world_with(jobs: list[tuple[str | int, int]]) -> Places:
    world = Places()
    for number in range(NODES):
        world.place(f"n{number}", 2 + number % 3, rack=f"r{number // 10}")
    world.ask(7, name="base")
    world.settle()
    for kind, count in jobs:
        if isinstance(kind, int):
            world.ask(count, RELATED[kind])
        elif kind == "groups":
            world.ask(41, gang=True, groups=GROUPS, resources=GROUPS[0].resources)
        else:
            world.ask(count, gang=kind == "gang", min_count=0 if kind == "gang" else -(-count // 2))
    return world


@given(jobs=st.lists(JOB, min_size=1, max_size=4), budget=st.sampled_from([2, 9, 40]))
@example(jobs=[("groups", 41), ("gang", 365), (2, 5), (1, 15)], budget=9)
@example(jobs=[("gang", 44), ("gang", 400), ("groups", 41)], budget=2)
@settings(max_examples=10, deadline=None)
def test_a_plan_in_slices_is_the_plan_in_one(jobs: list[tuple[str | int, int]], budget: int) -> None:
    """For everybody up to the first for whom nodes are kept. Those nodes are looked for in steps, at the ends of slices, while
    others go on (ADR 0025): so how many of the tasks behind are placed before they are kept is a matter of slices. It is the
    same job for which they are kept, however."""
    whole, sliced = world_with(jobs), world_with(jobs)
    at_once, in_slices = whole.settle(budget=1_000_000), sliced.settle(budget)
    last = first_held(whole)
    assert first_held(sliced) == last
    assert placed_up_to(last, in_slices) == placed_up_to(last, at_once)
    assert check(sliced.state) == check_capacity(sliced.state) == []


def first_held(world: World) -> int:
    """The first job for which a node is kept; if there is none, one behind all."""
    return min(world.planner.held_nodes.values(), default=world.submitted + 1)


def placed_up_to(last: int, placed: list[str]) -> list[str]:
    return sorted(each for each in placed if int(each.partition(".")[0]) <= last)


@given(after=st.integers(0, 25), what=st.sampled_from(["gone", "smaller", "cancelled", "less urgent", "another"]))
@settings(max_examples=15, deadline=None)
def test_what_happens_in_the_middle_of_a_search_is_seen(after: int, what: str) -> None:
    world = world_with([("gang", 300)])
    gang = world.state.jobs[2]
    plan = None
    for _ in range(after):
        plan = plan or world.plan(budget=1)
    match what:
        case "gone":
            world.do(RemoveNode(node_id="n149", actor="ada"))
        case "smaller":
            world.place("n149", 1, rack="r14")
        case "cancelled":
            world.do(CancelJob(job_id=gang.id, actor="ada"))
        case "less urgent":
            world.do(UpdateJob(job_id=gang.id, actor="ada", priority=-5))
        case _:
            world.ask(3, gang=True, priority=9)
    if isinstance(plan, PlaceGang):
        world.do(plan)
        world.planner.settle(world.state, plan)
    world.settle(budget=1)
    assert gang.active == (0 if what == "cancelled" else 300)
    later = world.ask(200, resources=Resources(cpu_milli=1))
    world.settle()
    assert later.active == 200
    assert check(world.state) == check_capacity(world.state) == []
    for slot_free, node in ((world.planner._slots[node.id].cpu_milli, node) for node in world.state.nodes.values()):
        assert slot_free == node.total.cpu_milli - node.allocated_cpu_milli, "nothing is left reserved"


def test_many_nodes_that_are_held_for_a_gang_are_used_until_it_can_start() -> None:
    world = World()
    for number in range(NODES):
        world.node(f"n{number}", cpu=3)
    world.submit(NODES, cpu=2, limit_ms=10_000)
    world.settle()
    gang = world.submit(NODES, cpu=3, gang=True)
    world.settle(budget=3)
    assert len(world.planner.held_nodes) == NODES
    short, long = world.submit(NODES, cpu=1, limit_ms=500), world.submit(3, cpu=1, limit_ms=50_000)
    world.settle(budget=3)
    assert (gang.active, short.active, long.active) == (0, NODES, 0)
