"""Tasks that stand in relations hold nodes like others, where their rules let them start, and drive others out only there."""

from __future__ import annotations

from hasched.model.spec import JobAffinity, JobSelector, PlacementRules, Spread
from hasched.statemachine.commands import CancelJob
from tests.scheduler.places import ONE_CORE, Places

DB = JobSelector("db")
TWO_CORES = type(ONE_CORE)(cpu_milli=2000)
NEAR_DB = PlacementRules(near=(JobAffinity(DB, "rack"),))
APART_FROM_DB = PlacementRules(apart=(JobAffinity(DB, "rack"),))


def full(nodes: int = 4, db_on: str = "") -> Places:
    """Nodes of two cores, a rack each; two tasks of job 1 on each but for what a database has."""
    world = Places()
    for number in range(nodes):
        world.place(f"n{number}", 2, rack=f"r{number}")
    if db_on:
        world.ask(1, PlacementRules(constraints=(f"node == {db_on}",)), name="db", priority_class="low")
        world.settle()
    world.ask(2 * nodes - bool(db_on), name="small")
    world.settle()
    return world


def test_small_tasks_do_not_pass_it_for_ever() -> None:
    world = full()
    waiting = world.ask(1, APART_FROM_DB, resources=TWO_CORES)
    stream = world.ask(1000, name="small")
    world.settle()
    (held,) = world.planner.held_nodes
    for job_id, index in list(world.state.nodes[held].attempts):
        world.end(job_id, index)
        world.settle()
    assert world.nodes_of(waiting) == [held] and stream.active == 0


def test_the_node_that_is_held_is_one_where_it_may_start() -> None:
    world = full(db_on="n2")
    near = world.ask(1, NEAR_DB, resources=TWO_CORES)
    world.settle()
    assert world.planner.held_nodes == {"n2": near.id}


def test_it_is_another_once_rules_exclude_it() -> None:
    world = Places()
    for number in range(4):
        world.place(f"n{number}", 2, rack=f"r{number // 2}")
    small = world.ask(7, name="small")
    world.settle()
    waiting = world.ask(1, APART_FROM_DB, resources=TWO_CORES)
    world.settle()
    (held,) = world.planner.held_nodes
    (other,) = [f"n{number}" for number in range(4) if number // 2 == int(held[1]) // 2 and f"n{number}" != held]
    on_other = [index for index, active in (small.active_attempts or {}).items() if active.node_id == other]
    db = world.ask(1, PlacementRules(constraints=(f"node == {other}",)), name="db")
    world.end(small.id, on_other[0])
    world.settle()
    assert world.nodes_of(db) == [other]
    (now,) = world.planner.held_nodes
    assert int(now[1]) // 2 != int(held[1]) // 2 and world.planner.held_nodes[now] == waiting.id


def test_others_are_driven_out_only_where_it_may_start() -> None:
    world = full(db_on="n2")
    world.ask(1, APART_FROM_DB, priority_class="high")
    world.settle()
    ((victim,),) = world.preempted
    active = world.state.jobs[int(victim.split(".")[0])].attempt_of(int(victim.split(".")[1]))
    assert active is not None and active.node_id != "n2"


def test_nobody_is_driven_out_whom_it_has_to_be_near() -> None:
    world = full(db_on="n2")
    near = world.ask(1, NEAR_DB, priority_class="high", resources=TWO_CORES)
    world.settle()
    assert world.preempted == [] and not near.active
    world.do(CancelJob(job_id=near.id, actor="ada"))
    world.ask(1, NEAR_DB, priority_class="high")
    world.settle()
    assert len(world.preempted) == 1 and not world.preempted[0][0].startswith("1.")


def test_a_spread_makes_room_for_one_task_after_the_other() -> None:
    world = full()
    spread = world.ask(4, PlacementRules(spread=(Spread("rack"),)), priority_class="high")
    for started in range(4):
        world.settle()
        assert (len(world.preempted), spread.active) == (started + 1, started)
        job_id, index = map(int, world.preempted[-1][0].split("."))
        world.end(job_id, index, code=1)
    world.settle()
    assert world.nodes_of(spread) == ["n0", "n1", "n2", "n3"]


def test_the_node_to_hold_is_looked_for_in_steps_among_many_places() -> None:
    world = full(nodes=400, db_on="n399")
    near = world.ask(1, NEAR_DB, resources=TWO_CORES)
    planner, slices = world.planner, 0
    while planner.ready:
        assert world.plan(budget=10) is None
        slices += bool(planner._line.aside) and not planner.held_nodes
    assert planner.held_nodes == {"n399": near.id}
    assert slices >= 1, "so many places are looked at in more than one slice"


def test_who_could_start_nowhere_holds_a_node_once_rules_let_it() -> None:
    world = full()
    near = world.ask(1, NEAR_DB, resources=TWO_CORES)
    world.settle()
    assert world.planner.held_nodes == {}, "there is no database to be near to"
    db = world.ask(1, PlacementRules(constraints=("node == n2",)), name="db", priority=5)
    job_id, index = next(iter(world.state.nodes["n2"].attempts))
    world.end(job_id, index)
    world.settle()
    assert world.nodes_of(db) == ["n2"]
    assert world.planner.held_nodes == {"n2": near.id}
