"""Placement rules in the replicated state: what is taken in, what is checked when a plan is applied, what is kept."""

from __future__ import annotations

import msgspec
import pytest

from hasched.model.policy import PolicyKind, ResourceClass
from hasched.model.spec import (
    JobAffinity,
    JobSelector,
    JobSpec,
    NodePreference,
    PlacementRules,
    Resources,
    Spread,
    Toleration,
)
from hasched.model.taints import Taint
from hasched.model.wire import GpuDevice, NodeInfo
from hasched.statemachine import queries
from hasched.statemachine.commands import Placement, PlacePlan, PutPolicy, RegisterNode, SubmitJob
from hasched.statemachine.outcomes import JobAccepted, PlanTaken, Rejected
from tests.statemachine.machine import GIB, Machine

ONE_CORE = Resources(cpu_milli=1000)
INFO = NodeInfo(hostname="n1", agent_version="1", resources=Resources(cpu_milli=4000, gpus=2, disk_bytes=10 * GIB))


def submit(machine: Machine, rules: PlacementRules, resources: Resources = ONE_CORE, count: int = 1) -> object:
    spec = JobSpec(name="job", command=("true",), resources=resources, placement=rules, count=count)
    return machine.outcome(SubmitJob(submission_id=f"s{len(machine.log)}", actor="ada", spec=spec))


@pytest.mark.parametrize(
    "rules",
    [
        PlacementRules(pools=()),
        PlacementRules(constraints=("kernle > 5",)),
        PlacementRules(constraints=("has label.a",) * 33),
        PlacementRules(prefer=(NodePreference("arch ==", 5),)),
        PlacementRules(prefer=(NodePreference("has label.a", -1001),)),
        PlacementRules(near=(JobAffinity(weight=-1),)),
        PlacementRules(apart=(JobAffinity(JobSelector("x" * 300)),)),
        PlacementRules(spread=(Spread("rack", max_skew=0),)),
        PlacementRules(tolerations=(Toleration("x" * 300),)),
        PlacementRules(any_of=(Resources(cpu_milli=2000),)),
        PlacementRules(any_of=(Resources(cpu_milli=1000), Resources(gpus=-1))),
        PlacementRules(any_of=(Resources(cpu_milli=1000),), resource_class="large"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(rules: PlacementRules) -> None:
    outcome = submit(Machine(), rules)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "invalid_spec"


def test_a_resource_class_is_looked_up_once() -> None:
    machine = Machine()
    outcome = submit(machine, PlacementRules(resource_class="large"))
    assert isinstance(outcome, JobAccepted)
    job = machine.state.jobs[outcome.job_id]
    assert job.resources == job.spec.resources == Resources(cpu_milli=4000, memory_bytes=8 * GIB)
    body = ResourceClass(resources=Resources(cpu_milli=1))
    machine.outcome(PutPolicy(kind=PolicyKind.RESOURCE_CLASS, name="large", body=body, actor="ada"))
    assert job.resources.cpu_milli == 4000
    refused = submit(machine, PlacementRules(resource_class="huge"))
    assert isinstance(refused, Rejected)
    assert (refused.code, refused.hint) == ("no_such_resource_class", "known are large, standard")


@pytest.mark.parametrize(
    "change",
    [
        {"pool": "a b"},
        {"taints": (Taint("a b"),)},
        {"taints": (Taint("x"),) * 33},
        {"attributes": {"a": "x" * 513}},
        {"attributes": {f"a{number}": "x" for number in range(65)}},
        {"resources": Resources(disk_bytes=-1)},
    ],
)
def test_a_node_that_says_what_cannot_be_is_refused(change: dict[str, object]) -> None:
    outcome = Machine().outcome(RegisterNode(node_id="n1", info=msgspec.structs.replace(INFO, **change)))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "invalid_node"


def test_a_verdict_lasts_as_long_as_the_inventory() -> None:
    machine = Machine()
    machine.outcome(RegisterNode(node_id="n1", info=INFO))
    outcome = submit(machine, PlacementRules(constraints=("label.rack == r1",)), count=2)
    assert isinstance(outcome, JobAccepted)
    plan = PlacePlan(placements=(Placement(outcome.job_id, "n1", (0,)),))
    assert machine.outcome(plan) == PlanTaken(scheduled=0, refused=1)
    machine.outcome(RegisterNode(node_id="n1", info=msgspec.structs.replace(INFO, labels={"rack": "r1"})))
    assert machine.outcome(plan) == PlanTaken(scheduled=1, refused=0)
    machine.outcome(
        RegisterNode(node_id="n1", info=msgspec.structs.replace(INFO, labels={"rack": "r1"}, taints=(Taint("x"),)))
    )
    assert machine.outcome(PlacePlan(placements=(Placement(outcome.job_id, "n1", (1,)),))) == PlanTaken(
        scheduled=0, refused=1
    )


def test_a_task_holds_the_alternative_that_it_was_placed_with() -> None:
    machine = Machine()
    gpus = (GpuDevice("a", "H100", 80 * GIB), GpuDevice("b", "T4", 16 * GIB))
    machine.outcome(RegisterNode(node_id="n1", info=msgspec.structs.replace(INFO, gpus=gpus)))
    first, second = Resources(gpus=1, gpu_models=("H100",)), Resources(cpu_milli=500, disk_bytes=4 * GIB)
    outcome = submit(machine, PlacementRules(any_of=(first, second)), first, count=4)
    assert isinstance(outcome, JobAccepted)
    job_id = outcome.job_id
    taken = machine.outcome(
        PlacePlan(
            placements=(
                Placement(job_id, "n1", (0, 1)),
                Placement(job_id, "n1", (2, 3), 1),
                Placement(job_id, "n1", (1,), 2),
            )
        )
    )
    assert taken == PlanTaken(scheduled=3, refused=2)
    node, job = machine.state.nodes["n1"], machine.state.jobs[job_id]
    assert node.allocated == Resources(cpu_milli=1000, gpus=1, disk_bytes=8 * GIB)
    assert job.choices == {2: 1, 3: 1}
    held = [queries.show_task(machine.state, job, index, False).holds for index in range(4)]
    assert held == [first, None, second, second]
    machine.end(job, 2)
    assert (job.choices, node.allocated_disk_bytes) == ({3: 1}, 4 * GIB)
    machine.end(job, 3)
    assert (job.choices, node.allocated_disk_bytes) == (None, 0)
