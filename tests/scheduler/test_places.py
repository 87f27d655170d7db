"""Where tasks may run and where they had better: each rule on its own."""

from __future__ import annotations

import msgspec
import pytest

from hasched.model.policy import Namespace, PolicyKind
from hasched.model.spec import (
    JobAffinity,
    JobSelector,
    NodePreference,
    PlacementRules,
    Resources,
    Spread,
    Toleration,
)
from hasched.model.states import GpuLocality, PlacementPolicy
from hasched.scheduler.slots import Slot
from hasched.statemachine.commands import Placement, PlacePlan, PutPolicy
from hasched.statemachine.invariants import check, check_capacity
from hasched.statemachine.outcomes import PlanTaken
from hasched.statemachine.snapshot import records, restore
from tests.scheduler.places import GIB, Places, gpu

DB = JobSelector("db")
SELF = JobSelector()


def test_a_job_stays_in_its_pool_and_away_from_taints() -> None:
    world = Places()
    world.place("n1", pool="batch")
    world.place("n2", taints=["dedicated=ml"])
    plain = world.ask()
    batch = world.ask(rules=PlacementRules(pools=("batch",)))
    tolerant = world.ask(rules=PlacementRules(tolerations=(Toleration("dedicated", "ml"),)))
    other = world.ask(rules=PlacementRules(tolerations=(Toleration("dedicated", "web"),)))
    world.settle()
    assert [world.nodes_of(job) for job in (plain, batch, tolerant, other)] == [[], ["n1"], ["n2"], []]
    world.place("n2")
    world.settle()
    assert [world.nodes_of(job) for job in (plain, other)] == [["n2"], ["n2"]]


def test_a_constraint_must_hold() -> None:
    world = Places()
    world.place("n1", attributes={"kernel": "5.4"}, rack="r1")
    world.place("n2", attributes={"kernel": "5.15"}, rack="r2")
    job = world.ask(9, PlacementRules(constraints=("kernel >= 5.10", "label.rack matches r*")))
    world.settle()
    assert world.nodes_of(job) == ["n2"] * 4


def test_a_plan_that_breaks_a_hard_rule_is_refused() -> None:
    world = Places()
    world.place("n1", pool="batch")
    world.place("n2", gpus=[gpu("T4")])
    pooled, modelled, plain = (
        world.ask(),
        world.ask(resources=Resources(gpus=1, gpu_models=("A100",))),
        world.ask(rules=PlacementRules(pools=("batch",))),
    )
    plan = PlacePlan(
        placements=(
            Placement(pooled.id, "n1", (0,)),
            Placement(modelled.id, "n2", (0,)),
            Placement(plain.id, "n1", (0,), choice=1),
            Placement(plain.id, "n2", (0,)),
        )
    )
    assert world.do(plan) == PlanTaken(scheduled=0, refused=4)


def test_avoided_nodes_are_the_last_resort() -> None:
    world = Places()
    world.place("n1", 2, taints=["old:avoid"])
    world.place("n2", 2)
    job = world.ask(3)
    assert [place.partition("@")[2] for place in world.settle()] == ["n2", "n2", "n1"]
    assert world.nodes_of(job) == ["n1", "n2", "n2"]


def test_wishes_about_nodes_decide_between_those_that_will_do() -> None:
    world = Places()
    world.place("n1", 8)
    world.place("n2", 8, ssd="yes")
    world.place("n3", 8, ssd="yes", old="yes")
    rules = PlacementRules(prefer=(NodePreference("has label.ssd", 100), NodePreference("has label.old", -50)))
    job = world.ask(20, rules)
    world.settle()
    assert world.nodes_of(job) == ["n1"] * 4 + ["n2"] * 8 + ["n3"] * 8


def test_gpus_of_several_models_are_counted_apart() -> None:
    world = Places()
    world.place("n1", 16, gpus=[gpu("T4"), gpu("NVIDIA A100", 40), gpu("T4"), gpu("NVIDIA A100", 40)])
    large = world.ask(3, resources=Resources(gpus=1, gpu_models=("A100",)))
    roomy = world.ask(3, resources=Resources(gpus=1, gpu_memory_bytes=20 * GIB))
    small = world.ask(3, resources=Resources(gpus=1, gpu_models=("T4",)))
    world.settle()
    assert [job.active for job in (large, roomy, small)] == [2, 0, 2]
    assert check(world.state) == [] == check_capacity(world.state)
    world.end(large.id, 0)
    world.settle()
    assert [job.active for job in (large, roomy)] == [2, 0]
    assert check(restore(records(world.state))) == []
    for index in (1, 2):
        world.end(large.id, index)
    world.settle()
    assert roomy.active == 2
    assert check(world.state) == []


def test_gpus_that_change_while_they_are_held_are_counted_anew() -> None:
    world = Places()
    world.place("n1", 16, gpus=[gpu("T4"), gpu("T4"), gpu("A100", 40)])
    job = world.ask(2, resources=Resources(gpus=1, gpu_models=("T4",)))
    world.settle()
    world.place("n1", 16, gpus=[gpu("T4"), gpu("H100", 80), gpu("A100", 40)])
    assert check(world.state) == []
    world.end(job.id, 0)
    world.end(job.id, 1)
    assert check(world.state) == []
    assert world.state.nodes["n1"].allocated_gpu_kinds == {}


def test_disk_is_counted() -> None:
    world = Places()
    world.place("n1", 16, disk_bytes=10 * GIB)
    job = world.ask(3, resources=Resources(disk_bytes=4 * GIB))
    world.settle()
    assert job.active == 2
    world.end(job.id, 0)
    world.settle()
    assert job.active == 2


def test_the_preferred_alternative_is_taken_while_there_is_room_for_it() -> None:
    world = Places()
    world.place("n1", 16, gpus=[gpu("H100", 80)])
    world.place("n2", 16, gpus=[gpu("A100", 40)] * 5)
    first, second = Resources(gpus=1, gpu_models=("H100",)), Resources(gpus=2, gpu_models=("A100",))
    job = world.ask(5, PlacementRules(any_of=(first, second)))
    world.settle()
    assert world.nodes_of(job) == ["n1", "n2", "n2"]
    assert world.state.nodes["n2"].allocated_gpus == 4
    assert {index: job.request_of(index).gpus for index in range(3)} == {0: 1, 1: 2, 2: 2}
    again = restore(records(world.state))
    assert check(world.state) == [] == check(again)
    assert again.nodes["n2"].allocated_gpus == 4
    world.end(job.id, 0)
    world.end(job.id, 2)
    world.settle()
    assert world.nodes_of(job) == ["n1", "n2", "n2"]
    assert check(world.state) == []


def test_apart_from_others_and_from_itself() -> None:
    world = Places()
    for number in range(3):
        world.place(f"n{number}", rack=f"r{number % 2}")
    db = world.ask(name="db")
    world.settle()
    (where,) = world.nodes_of(db)
    rack = world.state.nodes[where].info.labels["rack"]
    elsewhere = world.ask(4, PlacementRules(apart=(JobAffinity(DB, "rack"),)))
    each = world.ask(5, PlacementRules(apart=(JobAffinity(SELF),)))
    world.settle()
    assert all(world.state.nodes[node].info.labels["rack"] != rack for node in world.nodes_of(elsewhere))
    assert elsewhere.active == 4
    assert len(world.nodes_of(each)) == len(set(world.nodes_of(each))) == 2
    world.end(elsewhere.id, 0)
    world.settle()
    assert world.nodes_of(each) == ["n0", "n1", "n2"]


def test_near_waits_for_what_it_wants_to_be_near_to() -> None:
    world = Places()
    for number in range(4):
        world.place(f"n{number}", 2, rack=f"r{number % 2}")
    near = world.ask(4, PlacementRules(near=(JobAffinity(DB, "rack"),)))
    assert world.settle() == []
    db = world.ask(name="db", rules=PlacementRules(constraints=("label.rack == r1",)))
    world.settle()
    assert world.nodes_of(db)[0] in ("n1", "n3")
    assert {world.state.nodes[node].info.labels["rack"] for node in world.nodes_of(near)} == {"r1"}
    assert near.active == 3


def test_the_first_of_those_that_want_to_be_near_each_other_starts_anywhere() -> None:
    world = Places(PlacementPolicy.SPREAD)
    for number in range(4):
        world.place(f"n{number}", 2, rack=f"r{number}")
    together = JobAffinity(JobSelector(labels=(("app", "web"),)), "rack")
    jobs = [world.ask(rules=PlacementRules(near=(together,)), labels={"app": "web"}) for _ in range(4)]
    world.settle()
    assert [len({*world.nodes_of(job)}) for job in jobs[:2]] == [1, 1]
    assert len({node for job in jobs for node in world.nodes_of(job)}) == 1
    assert sum(job.active for job in jobs) == 2


def test_jobs_of_another_namespace_are_not_meant() -> None:
    world = Places()
    world.place("n1", 8)
    world.do(PutPolicy(kind=PolicyKind.NAMESPACE, name="red", body=Namespace(), actor="ada"))
    world.ask(name="db")
    apart = PlacementRules(apart=(JobAffinity(DB),))
    same, other = world.ask(rules=apart), world.ask(rules=apart, namespace="red")
    world.settle()
    assert (same.active, other.active) == (0, 1)


def test_tasks_are_spread_over_a_label() -> None:
    world = Places()
    for number, zone in enumerate(["a", "a", "a", "b", "c", "c"]):
        world.place(f"n{number}", 8, zone=zone)
    world.place("n6", 8)
    job = world.ask(30, PlacementRules(spread=(Spread("zone", max_skew=2),)))
    world.settle()
    zones = [world.state.nodes[node].info.labels.get("zone") for node in world.nodes_of(job)]
    assert [zones.count(zone) for zone in ("a", "b", "c", None)] == [10, 8, 10, 0]


def test_over_nodes_a_full_one_holds_the_others_back() -> None:
    world = Places()
    world.place("n1", 2)
    world.place("n2", 8)
    job = world.ask(9, PlacementRules(spread=(Spread(),)))
    world.settle()
    assert world.nodes_of(job) == ["n1"] * 2 + ["n2"] * 3
    world.place("n1", 3)
    world.settle()
    assert world.nodes_of(job) == ["n1"] * 3 + ["n2"] * 4


@pytest.mark.parametrize(
    "rules",
    [
        PlacementRules(spread=(Spread("zone", weight=100),)),
        PlacementRules(spread=(Spread(weight=100),)),
        PlacementRules(apart=(JobAffinity(SELF, "zone", weight=200),)),
        PlacementRules(apart=(JobAffinity(SELF, "", weight=200),)),
    ],
)
def test_a_wish_to_be_spread_yields_where_it_must(rules: PlacementRules) -> None:
    world = Places()
    world.place("n1", 2, zone="a")
    world.place("n2", 8, zone="b")
    job = world.ask(2, rules)
    world.settle()
    assert world.nodes_of(job) == ["n1", "n2"]
    more = world.ask(8, rules)
    world.settle()
    assert more.active == 8


def test_a_wish_to_be_near() -> None:
    world = Places(PlacementPolicy.SPREAD)
    world.place("n1", 2)
    world.place("n2", 8)
    world.ask(name="db", rules=PlacementRules(constraints=("node == n1",)))
    world.settle()
    job = world.ask(2, PlacementRules(near=(JobAffinity(DB, weight=500),)))
    world.settle()
    assert world.nodes_of(job) == ["n1", "n2"]


@pytest.mark.parametrize("locality", [GpuLocality.NVLINK, GpuLocality.SAME_NUMA])
def test_gpus_that_should_be_near_to_each_other(locality: GpuLocality) -> None:
    world = Places()
    world.place("n1", gpus=[gpu("X", numa_node=0), gpu("X", numa_node=1)])
    world.place("n2", gpus=[gpu("X", numa_node=0, nvlink_group=0), gpu("X", numa_node=0, nvlink_group=0), gpu("X")])
    job = world.ask(2, PlacementRules(gpu_locality=locality), resources=Resources(gpus=2))
    placed = world.settle()
    assert [place.partition("@")[2] for place in placed] == ["n2", "n1"]
    assert job.active == 2


def test_the_rules_of_a_job_are_one_object() -> None:
    world = Places()
    one, other = (world.ask(rules=PlacementRules(pools=("a",), spread=(Spread("zone"),))) for _ in range(2))
    assert one.placement is other.placement
    assert world.ask().placement is None
    again = restore(records(world.state))
    assert again.jobs[one.id].placement is again.jobs[other.id].placement
    assert msgspec.msgpack.encode(again.jobs[one.id]) == msgspec.msgpack.encode(one)


def test_gpus_of_a_node_that_had_several_models_are_counted_as_those_of_one_when_it_has_one() -> None:
    world, one = Places(), Resources(gpus=1, gpu_models=("A100",))
    world.place("n1", gpus=[gpu("A100"), gpu("T4")])
    slot = Slot(world.state.nodes["n1"], 0)
    slot.refresh(world.state.nodes["n1"], usable=True)
    assert slot.room(one, 9) == 1
    world.ask(1, PlacementRules(any_of=(one,)))
    assert world.settle() == ["1.0@n1"]
    world.place("n1", gpus=[gpu("A100")])
    slot.refresh(world.state.nodes["n1"], usable=True)
    assert slot.room(one, 9) == 0
