"""Relations are held when a plan is applied: what runs is counted once and kept current, whatever happens to tasks and nodes."""

from __future__ import annotations

from hasched.model.spec import JobAffinity, JobSelector, PlacementRules, Spread
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import Batch, Placement, PlacePlan, RemoveNode
from hasched.statemachine.job import Job
from hasched.statemachine.neighbours import FEW, LOOKS_AT_ONCE, MOST_CENSUSES, RELATIONS_HELD_SINCE, Neighbours
from hasched.statemachine.outcomes import PlanTaken
from hasched.statemachine.relations import relations_of
from tests.scheduler.places import Places

ALONE = PlacementRules(apart=(JobAffinity(),))
EVEN = PlacementRules(spread=(Spread("rack"),))


def racks() -> Places:
    world = Places()
    for number in range(4):
        world.place(f"n{number}", 8, rack="ab"[number // 2])
    return world


def put(world: Places, job: Job, node_id: str, *indices: int) -> int:
    """How many of these tasks were let start there."""
    outcome = world.do(PlacePlan(placements=(Placement(job.id, node_id, indices),)))
    assert isinstance(outcome, PlanTaken)
    return outcome.scheduled


def test_of_several_tasks_on_one_node_as_many_start_as_may() -> None:
    world = racks()
    assert put(world, world.ask(4, ALONE), "n0", 0, 1, 2) == 1
    assert put(world, world.ask(4, PlacementRules(spread=(Spread("", max_skew=2),))), "n0", 0, 1, 2) == 2


def test_what_ends_makes_room_for_the_next() -> None:
    world = racks()
    job = world.ask(4, ALONE)
    assert put(world, job, "n0", 0) == 1 and put(world, job, "n0", 1) == 0
    world.end(job.id, 0)
    assert put(world, job, "n0", 1) == 1


def test_the_lowest_place_of_a_spread_falls_and_rises() -> None:
    world = racks()
    job = world.ask(9, EVEN)
    assert [put(world, job, node, index) for index, node in enumerate(("n0", "n2", "n1", "n3"))] == [1, 1, 1, 1]
    world.end(job.id, 1)
    assert put(world, job, "n0", 4) == 0, "at the other rack is one"
    assert put(world, job, "n3", 4) == 1 and put(world, job, "n0", 5) == 1


def test_one_of_several_lowest_places_falls() -> None:
    world = racks()
    world.place("n2", 8, rack="c")
    world.place("n9", 8)
    job = world.ask(9, EVEN)
    assert [put(world, job, node, index) for index, node in enumerate(("n0", "n2", "n3"))] == [1, 1, 1]
    assert put(world, job, "n9", 3) == 0, "it has no rack"
    world.end(job.id, 2)
    assert put(world, job, "n0", 3) == 0


def test_a_node_with_another_label_is_counted_there_and_one_that_is_lost_is_no_place() -> None:
    world = racks()
    job = world.ask(9, EVEN)
    assert put(world, job, "n0", 0) == 1 and put(world, job, "n1", 1) == 0
    world.place("n0", 8, rack="b")
    assert put(world, job, "n2", 1) == 0, "it is at b by now"
    world.place("n0", 8, rack="a")
    world.place("n1", 8, rack="c")
    assert put(world, job, "n1", 1) == 1
    world.place("n0", 8, rack="c")
    assert put(world, job, "n1", 2) == 0, "two are at c now, and none at b"
    for node_id in ("n2", "n3"):
        world.lose(node_id)
    assert put(world, job, "n1", 2) == 1, "c is the only place"


def test_however_many_ask_for_others_each_is_judged_right() -> None:
    world = racks()
    db = world.ask(1, name="db", labels={"app": "x"})
    assert put(world, db, "n0", 0) == 1
    for number in range(MOST_CENSUSES + 5):
        selector = JobSelector("" if number % 2 else f"db{number}", (("app", "x" if number % 3 else "y"),))
        near = world.ask(1, PlacementRules(near=(JobAffinity(selector, "rack"),)))
        meant = selector.selects("db", {"app": "x"})
        assert put(world, near, "n1", 0) == int(meant)
        if meant:
            world.end(near.id, 0)


def busy() -> tuple[Places, Job]:
    """Two racks of four nodes, on which more tasks run than are counted in one go."""
    world = Places()
    for number in range(8):
        world.place(f"n{number}", 1_000, rack="ab"[number // 4])
    web = world.ask(2 * LOOKS_AT_ONCE, name="web")
    for number in range(4):
        indices = range(number * LOOKS_AT_ONCE // 4, (number + 1) * LOOKS_AT_ONCE // 4)
        assert put(world, web, f"n{number}", *indices) == LOOKS_AT_ONCE // 4
    other = world.ask(FEW, name="other")
    assert put(world, other, "n1", *range(FEW)) == FEW
    return world, web


def test_others_are_counted_bit_by_bit_from_the_submission_on_and_what_happens_meanwhile_is_seen() -> None:
    world, web = busy()
    neighbours = world.state.neighbours
    assert not neighbours.behind
    near = world.ask(1, PlacementRules(near=(JobAffinity(JobSelector("web"), "rack"),)), name="near")
    assert neighbours.behind, "nothing is counted by the entry itself"
    neighbours.go_on(world.state)
    (relation,) = relations_of(near)
    census = neighbours.begin_census(world.state, relation)
    assert census.missing and census.total
    world.end(web.id, 0)
    world.end(web.id, LOOKS_AT_ONCE - 1)
    assert put(world, web, "n7", LOOKS_AT_ONCE) == 1
    world.place("n1", 1_000, rack="b")
    world.place("n3", 1_000, rack="b")
    for _ in range(3):
        neighbours.go_on(world.state)
    assert not neighbours.behind and not census.missing
    fresh = Neighbours().census(world.state, relation)
    assert (census.total, census.by_label) == (fresh.total, fresh.by_label)
    assert census.total == LOOKS_AT_ONCE - 1 and census.at("rack", "b") == LOOKS_AT_ONCE // 2


def test_what_is_asked_for_before_all_is_counted_is_judged_right() -> None:
    world, _ = busy()
    apart = world.ask(1, PlacementRules(apart=(JobAffinity(JobSelector("web"), "rack"),)), name="apart")
    assert put(world, apart, "n0", 0) == 0 and put(world, apart, "n4", 0) == 1


def test_a_node_that_goes_while_others_are_counted_is_no_matter() -> None:
    world, web = busy()
    world.ask(1, PlacementRules(near=(JobAffinity(JobSelector("web")),)), name="near")
    world.lose("n6")
    world.do(RemoveNode(node_id="n6", actor="ada"))
    while world.state.neighbours.behind:
        world.state.neighbours.go_on(world.state)
    assert "n6" not in world.state.nodes and web.active == LOOKS_AT_ONCE


def test_who_asks_has_everything_counted_bit_by_bit_and_what_happens_meanwhile_is_seen() -> None:
    world, web = busy()
    rules = PlacementRules(near=(JobAffinity(JobSelector("web"), "rack"),), spread=(Spread("rack"), Spread("")))
    asking = world.ask(2, rules, name="asking")
    neighbours, state = world.state.neighbours, world.state
    steps = neighbours.prepare(state, asking)
    next(steps)
    near, *_ = relations_of(asking)
    assert neighbours.begin_census(state, near).missing, "a step is short"
    world.end(web.id, 0)
    world.lose("n6")
    world.do(RemoveNode(node_id="n6", actor="ada"))
    for _ in steps:
        pass
    census, fresh = neighbours.begin_census(state, near), Neighbours().census(state, near)
    assert not census.missing and (census.total, census.by_label) == (fresh.total, fresh.by_label)
    for place in ("rack", ""):
        assert not neighbours.begin_sites(state, rules, place).missing
    assert list(neighbours.begin_sites(state, rules, "").nodes) == list(state.nodes)[::-1]
    assert list(neighbours.prepare(state, asking)) == [], "all is known"


def test_entries_of_before_were_decided_without() -> None:
    world = racks()
    job = world.ask(2, ALONE)
    plan = PlacePlan(placements=(Placement(job.id, "n0", (0, 1)),))
    applied = apply(world.state, world.state.index + 1, Batch(RELATIONS_HELD_SINCE - 1, world.now_ms, [plan]))
    assert applied.outcomes == [PlanTaken(2, 0)]
