"""Gangs and elastic jobs that stand in relations: to others, and all of their tasks to each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasched.model.spec import JobAffinity, JobSelector, PlacementRules, Resources, Spread, TaskGroup
from hasched.scheduler.explain import explain_waiting, pending_reason
from hasched.statemachine.commands import PlaceGang, Placement
from hasched.statemachine.invariants import check
from hasched.statemachine.job import Job
from hasched.statemachine.outcomes import PlanTaken, Rejected
from tests.scheduler.places import Places

DB = JobSelector("db")
NEAR_DB = PlacementRules(near=(JobAffinity(DB, "rack"),))
APART_FROM_DB = PlacementRules(apart=(JobAffinity(DB, "rack"),))


def racks(nodes: int = 6, cpu: int = 4, per_rack: int = 2) -> Places:
    world = Places()
    for number in range(nodes):
        world.place(f"n{number}", cpu, rack=f"r{number // per_rack}")
    return world


def rack_counts(world: Places, job: Job) -> Counter[str]:
    return Counter(world.state.nodes[node_id].info.labels["rack"] for node_id in world.nodes_of(job))


class TestPlanned:
    def test_a_gang_goes_where_those_are_that_it_has_to_be_near(self) -> None:
        world = racks()
        world.ask(1, PlacementRules(constraints=("node == n2",)), name="db")
        world.settle()
        gang = world.ask(6, NEAR_DB, gang=True)
        world.settle()
        assert set(rack_counts(world, gang)) == {"r1"}

    def test_it_waits_for_them_and_starts_once_they_run(self) -> None:
        world = racks()
        gang = world.ask(6, NEAR_DB, gang=True)
        world.settle()
        assert not gang.active
        world.ask(1, name="db")
        world.settle()
        assert gang.active == 6

    def test_a_gang_keeps_apart_from_others_until_they_have_gone(self) -> None:
        world = racks(nodes=2, per_rack=1)
        db = world.ask(2, PlacementRules(spread=(Spread("rack"),)), name="db")
        world.settle()
        gang = world.ask(4, APART_FROM_DB, gang=True)
        world.settle()
        assert not gang.active
        world.end(db.id, 0)
        world.settle()
        assert len(set(world.nodes_of(gang))) == 1

    @pytest.mark.parametrize("gang", [True, False])
    def test_a_spread_is_even_at_the_start(self, gang: bool) -> None:
        world = racks()
        terms = {"gang": True} if gang else {"min_count": 9}
        job = world.ask(9, PlacementRules(spread=(Spread("rack"),)), **terms)
        world.settle()
        assert rack_counts(world, job) == {"r0": 3, "r1": 3, "r2": 3}

    def test_a_spread_over_nodes(self) -> None:
        world = racks()
        job = world.ask(12, PlacementRules(spread=(Spread(""),)), gang=True)
        world.settle()
        assert set(Counter(world.nodes_of(job)).values()) == {2}

    def test_a_task_in_each_rack(self) -> None:
        world = racks()
        rules = PlacementRules(apart=(JobAffinity(JobSelector(), "rack"),))
        three, four = world.ask(3, rules, gang=True), world.ask(4, rules, gang=True)
        world.settle()
        assert (three.active, four.active) == (3, 0)
        assert len(rack_counts(world, three)) == 3

    def test_all_on_one_node(self) -> None:
        world = racks()
        rules = PlacementRules(near=(JobAffinity(),))
        four, five = world.ask(4, rules, gang=True), world.ask(5, rules, gang=True)
        world.settle()
        assert len(set(world.nodes_of(four))) == 1 and not five.active

    def test_a_wish_decides_where_it_can_and_holds_up_nobody(self) -> None:
        world = racks()
        world.ask(1, PlacementRules(constraints=("node == n4",)), name="db")
        world.settle()
        wish = PlacementRules(near=(JobAffinity(DB, "rack", weight=100),))
        near, elsewhere = world.ask(6, wish, gang=True), world.ask(12, wish, gang=True)
        world.settle()
        assert set(rack_counts(world, near)) == {"r2"} and elsewhere.active == 12

    def test_groups_are_laid_by_the_same_rules(self) -> None:
        world = racks()
        groups = (
            TaskGroup("driver", 1, Resources(cpu_milli=3000)),
            TaskGroup("worker", 5, Resources(cpu_milli=1000)),
        )
        gang = world.ask(6, PlacementRules(spread=(Spread("rack"),)), gang=True, groups=groups)
        world.settle()
        assert rack_counts(world, gang) == {"r0": 2, "r1": 2, "r2": 2}

    def test_one_that_may_be_smaller_becomes_as_large_as_its_rules_allow(self) -> None:
        world = racks()
        gang = world.ask(6, PlacementRules(apart=(JobAffinity(JobSelector(), "rack"),)), gang=True, min_count=2)
        world.settle()
        assert gang.active == 3 and gang.gang_run is not None and gang.gang_run.size == 3

    def test_an_elastic_job_grows_by_its_rules(self) -> None:
        world = racks()
        job = world.ask(9, PlacementRules(spread=(Spread("rack"),)), min_count=3)
        world.settle()
        assert rack_counts(world, job) == {"r0": 3, "r1": 3, "r2": 3}

    def test_nodes_are_kept_for_one_that_waits(self) -> None:
        world = racks(nodes=4, cpu=2, per_rack=1)
        small = world.ask(8)
        world.settle()
        gang = world.ask(4, PlacementRules(spread=(Spread("rack"),)), gang=True)
        behind = world.ask(8)
        world.settle()
        assert set(world.planner.held_nodes) == {"n0", "n1", "n2", "n3"}
        for index in range(8):
            world.end(small.id, index)
            world.settle()
        assert set(rack_counts(world, gang).values()) == {1} and behind.active == 4

    def test_nodes_that_its_rules_exclude_by_now_are_let_go(self) -> None:
        world = racks(nodes=6, cpu=2, per_rack=3)
        small = world.ask(12)
        world.settle()
        rules = PlacementRules(apart=(JobAffinity(DB, "rack"),), near=(JobAffinity(within="rack"),))
        gang = world.ask(4, rules, gang=True)
        world.settle()
        before = sorted(world.planner.held_nodes)
        rack = [f"n{number}" for number in range(6) if number // 3 == int(before[0][1]) // 3]
        (other,) = [node_id for node_id in rack if node_id not in before]
        beside = [index for index, active in (small.active_attempts or {}).items() if active.node_id == other]
        db = world.ask(1, PlacementRules(constraints=(f"node == {other}",)), name="db")
        world.end(small.id, beside[0])
        world.settle()
        assert world.nodes_of(db) == [other]
        after = world.planner.held_nodes
        assert len(after) == 2 and set(after.values()) == {gang.id} and not {*after} & {*rack}

    def test_one_that_may_drives_others_out(self) -> None:
        world = racks(nodes=4, cpu=2, per_rack=1)
        low = world.ask(8)
        world.settle()
        world.ask(4, PlacementRules(spread=(Spread("rack"),)), gang=True, priority_class="high")
        world.settle()
        nodes = Counter(active.node_id for index, active in (low.active_attempts or {}).items() if low.yield_of(index))
        assert set(nodes.values()) == {1} and len(nodes) == 4


@pytest.mark.parametrize(
    ("rules", "tasks", "code", "said"),
    [
        (NEAR_DB, 2, "affinity", "placement.affinity by label rack leaves room for 0 now"),
        (PlacementRules(apart=(JobAffinity(JobSelector(), "rack"),)), 4, "anti_affinity", "room for 3 now"),
        (PlacementRules(spread=(Spread("rack"),)), 6, "spread", "placement.spread by label rack leaves room for 5 now"),
        (PlacementRules(near=(JobAffinity(),)), 5, "affinity", "placement.affinity by node leaves room for 4 now"),
    ],
)
def test_why_says_which_rule_leaves_too_little_room(rules: PlacementRules, tasks: int, code: str, said: str) -> None:
    world = racks()
    world.place("n0", 1, rack="r0")
    world.place("n1", 0, rack="r0")
    gang = world.ask(tasks, rules, gang=True)
    world.settle()
    assert not gang.active
    (found,) = [each for each in explain_waiting(world.state, gang).blockers if each.code == code]
    assert said in found.text
    assert "rules toward other tasks" in (pending_reason(world.state, gang) or found).text


RULES = st.builds(
    PlacementRules,
    near=st.lists(
        st.builds(JobAffinity, st.sampled_from([JobSelector(), DB]), st.sampled_from(["", "rack"])), max_size=1
    ).map(tuple),
    apart=st.lists(
        st.builds(JobAffinity, st.sampled_from([JobSelector(), DB]), st.sampled_from(["", "rack"])), max_size=1
    ).map(tuple),
    spread=st.lists(st.builds(Spread, st.sampled_from(["", "rack"]), st.integers(1, 2)), max_size=1).map(tuple),
)
NODES = ("n0", "n1", "n2", "n3")


def place_of(world: Places, node_id: str, label: str) -> str | None:
    return world.state.nodes[node_id].info.labels.get(label) if label else node_id


def may_follow(world: Places, job: Job, before: list[str], node_id: str) -> bool:
    """Whether one more task of the job may start there, after those; counted from nothing."""
    rules = job.placement or PlacementRules()
    for relations, wanted in ((rules.near, True), (rules.apart, False)):
        for each in relations:
            itself = each.jobs.means_itself or each.jobs.selects(job.name, job.labels)
            if each.jobs.means_itself and job.count == 1:
                continue
            running = [] if each.jobs.means_itself else [*others(world, job, each.jobs)]
            running += before if itself else []
            place = place_of(world, node_id, each.within)
            there = place is not None and any(place == place_of(world, other, each.within) for other in running)
            if wanted and not there and not (itself and not running and place is not None):
                return False
            if not wanted and there:
                return False
    for spread in rules.spread if job.count > 1 else ():
        places = {place_of(world, each, spread.label): 0 for each in world.state.nodes}
        places.pop(None, None)
        for other in before:
            here = place_of(world, other, spread.label)
            if here is not None:
                places[here] += 1
        mine = place_of(world, node_id, spread.label)
        if mine is None or places[mine] + 1 - min(places.values()) > spread.max_skew:
            return False
    return True


def others(world: Places, job: Job, selector: JobSelector) -> Iterator[str]:
    for other in world.state.jobs.values():
        if other.id != job.id and selector.selects(other.name, other.labels):
            yield from (active.node_id for active in (other.active_attempts or {}).values())


def in_some_order(world: Places, job: Job, nodes: list[str]) -> bool:
    return any(
        all(may_follow(world, job, list(order[:number]), node) for number, node in enumerate(order))
        for order in dict.fromkeys(permutations(nodes))
    )


@settings(max_examples=150, deadline=None)
@given(
    labels=st.lists(st.sampled_from(["a", "b", ""]), min_size=4, max_size=4),
    databases=st.lists(st.sampled_from(NODES), max_size=2),
    rules=RULES,
    name=st.sampled_from(["db", "web"]),
    tasks=st.lists(st.sampled_from(NODES), min_size=1, max_size=4),
    whole=st.booleans(),
)
def test_a_gang_starts_where_its_tasks_could_one_after_the_other_and_nowhere_else(
    labels: list[str], databases: list[str], rules: PlacementRules, name: str, tasks: list[str], whole: bool
) -> None:
    world = Places()
    for node_id, rack in zip(NODES, labels, strict=True):
        world.place(node_id, 16, **({"rack": rack} if rack else {}))
    for node_id in databases:
        world.ask(1, PlacementRules(constraints=(f"node == {node_id}",)), name="db")
        world.settle()
    terms = {"gang": True} if whole else {"min_count": len(tasks)}
    job = world.ask(len(tasks), rules, name=name, **terms)
    nodes: dict[str, list[int]] = {}
    for index, node_id in enumerate(sorted(tasks)):
        nodes.setdefault(node_id, []).append(index)
    placements = tuple(Placement(job.id, node_id, tuple(indices)) for node_id, indices in nodes.items())
    may = in_some_order(world, job, tasks)
    outcome = world.do(PlaceGang(job_id=job.id, placements=placements, port=29_500 if whole else 0))
    assert isinstance(outcome, PlanTaken if may else Rejected), outcome
    if not may:
        world.settle()  # asserts that nothing of what is planned is refused
        if job.active:
            at = [active.node_id for _, active in sorted((job.active_attempts or {}).items())]
            assert in_some_order(world, job, at[: len(tasks)])
    assert check(world.state) == []
