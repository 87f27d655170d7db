"""Free GPUs keep CPU and memory beside them, and tasks go where they leave the most to others."""

from __future__ import annotations

import random

import pytest

from hasched.model.policy import GpuRoom, PolicyKind
from hasched.model.reasons import ReasonCode
from hasched.model.states import PlacementPolicy
from hasched.scheduler.explain import Known, explain_waiting, pending_reason
from hasched.scheduler.keeping import NOTHING, Kept, _Largest
from hasched.statemachine.commands import CancelJob, DeletePolicy, PutPolicy, SuspendJob
from hasched.statemachine.job import Job
from hasched.statemachine.outcomes import Rejected
from tests.scheduler.world import World

GIB = 2**30


def put(world: World, body: GpuRoom, name: str = "default") -> object:
    return world.do(PutPolicy(kind=PolicyKind.GPU_ROOM, name=name, body=body, actor="root"))


def started(world: World, job: Job) -> int:
    world.settle()
    return job.active


def a_node_with_half_of_its_gpus_in_use(world: World, cpu: int = 2, memory: int = 0) -> Job:
    """16 cores, 64 GiB, 4 GPUs."""
    world.node("g1", cpu=16, memory=64 * GIB, gpus=4)
    job = world.submit(2, cpu=cpu, memory=memory, gpus=1)
    assert started(world, job) == 2
    return job


def test_free_gpus_keep_what_a_job_with_gpus_asks_for_beside_one() -> None:
    world = World()
    with_gpus = a_node_with_half_of_its_gpus_in_use(world, cpu=2)
    others = world.submit(20, cpu=1)
    assert started(world, others) == 16 - 2 * 2 - 2 * 2
    more = world.submit(2, cpu=2, gpus=1)
    assert started(world, more) == 2
    world.end(more.id, 0)
    assert started(world, others) == 8, "it is free again, and keeps as much again"
    world.end(more.id, 1)
    for index in range(2):
        world.end(with_gpus.id, index)
    assert world.planner.kept == NOTHING
    assert started(world, others) == 16, "where nobody uses GPUs, nothing is kept"


def test_memory_is_kept_too_and_a_quarter_of_each_node_never_is() -> None:
    world = World()
    a_node_with_half_of_its_gpus_in_use(world, cpu=1, memory=20 * GIB)
    assert world.planner.kept == Kept(1000, 20 * GIB, True)
    small = world.submit(10, cpu=0, memory=GIB)
    assert started(world, small) == 0, "24 GiB are free, and two of four parts of 48 are kept"
    tiny = world.submit(30, cpu=1)
    assert started(world, tiny) == 12, "who wants no memory isn't kept off by it"


def test_nothing_is_kept_before_a_third_of_the_gpus_is_in_use_and_until_four_fifths_are_free() -> None:
    world = World()
    world.node("g1", cpu=64, gpus=12)
    job = world.submit(4, cpu=4, gpus=1, max_running=3)
    assert started(world, job) == 3 and world.planner.kept == NOTHING
    assert started(world, world.submit(cpu=4, gpus=1)) == 1
    assert world.planner.kept == Kept(4000, 0, True)
    world.end(2, 0)
    world.do(SuspendJob(job_id=job.id, actor="ada"))
    assert world.planner.kept == Kept(4000, 0, True), "three are in use, and nine free"
    world.end(job.id, 0)
    assert world.planner.kept == NOTHING


def test_a_policy_says_how_much_is_kept_whatever_runs() -> None:
    world = World()
    world.node("g1", cpu=16, gpus=4)
    put(world, GpuRoom(cpu_milli=2000))
    others = world.submit(20, cpu=1)
    assert started(world, others) == 8
    put(world, GpuRoom(cpu_milli=1000))
    assert started(world, others) == 12
    world.do(DeletePolicy(kind=PolicyKind.GPU_ROOM, name="default", actor="root"))
    assert started(world, others) == 16


def test_nothing_is_kept_where_the_policy_is_off() -> None:
    world = World()
    put(world, GpuRoom(enabled=False))
    a_node_with_half_of_its_gpus_in_use(world)
    assert started(world, world.submit(12, cpu=1)) == 12


@pytest.mark.parametrize(("name", "body"), [("other", GpuRoom()), ("default", GpuRoom(cpu_milli=-1))])
def test_there_is_one_such_policy_and_it_keeps_no_less_than_nothing(name: str, body: GpuRoom) -> None:
    outcome = put(World(), body, name)
    assert isinstance(outcome, Rejected) and outcome.code == "invalid_policy"


def test_a_new_leader_keeps_as_much() -> None:
    world = World()
    a_node_with_half_of_its_gpus_in_use(world, cpu=3)
    for _ in world.planner.rebuild(world.state):
        pass
    assert world.planner.kept == Kept(3000, 0, True)
    assert started(world, world.submit(12, cpu=1)) == 4


def test_who_could_never_run_beside_what_is_kept_may_have_it_and_nobody_waits_for_ever() -> None:
    world = World()
    a_node_with_half_of_its_gpus_in_use(world, cpu=3)
    world.node("n1", cpu=2)
    fits_beside = world.submit(2, cpu=3)
    assert started(world, fits_beside) == 1, "there are 4 cores left but for those of the free GPUs"
    world.do(CancelJob(job_id=fits_beside.id, actor="ada"))
    assert started(world, world.submit(cpu=5)) == 1, "it would always be one too many"
    assert started(world, world.submit(2, cpu=2)) == 1, "these can run on n1, and wait for it"


def test_gangs_without_gpus_are_kept_off_too_unless_they_could_never_run() -> None:
    world = World()
    a_node_with_half_of_its_gpus_in_use(world, cpu=3)
    assert started(world, world.submit(3, gang=True, cpu=2)) == 0
    assert started(world, world.submit(2, gang=True, cpu=2)) == 2
    world = World()
    a_node_with_half_of_its_gpus_in_use(world, cpu=3)
    assert started(world, world.submit(2, gang=True, cpu=5)) == 2


def test_why_says_so_and_how_to_have_it_otherwise() -> None:
    world = World()
    a_node_with_half_of_its_gpus_in_use(world, memory=12 * GIB)
    world.node("n1", cpu=1, memory=64 * GIB)
    world.submit(cpu=1)
    job = world.submit(cpu=1, memory=17 * GIB)
    assert started(world, job) == 0
    answer = explain_waiting(world.state, job, known=Known(kept=world.planner.kept))
    (with_gpus,) = (each for each in answer.classes if each.total.gpus)
    assert [(each.code, each.text) for each in with_gpus.blockers] == [
        (ReasonCode.KEPT_FOR_GPUS, "each free GPU of the node keeps 2 CPU and 12Gi from jobs without GPUs")
    ]
    (change,) = answer.remedies[0].changes
    assert (change.target, change.key, change.value) == ("policy", "gpu_room/default.enabled", False)
    reason = pending_reason(world.state, job, world.planner.kept)
    assert reason is not None
    assert (reason.code, reason.text) == (
        ReasonCode.KEPT_FOR_GPUS,
        "no node has 1 CPU, 17Gi memory free beside the 2 CPU and 12Gi that each free GPU keeps",
    )
    put(world, GpuRoom(cpu_milli=2000, memory_bytes=12 * GIB))
    assert pending_reason(world.state, job) == reason, "a policy is known without the planner"
    put(world, GpuRoom(enabled=False))
    plain = pending_reason(world.state, job)
    assert plain is not None and plain.code == ReasonCode.WAITING_TURN
    assert started(world, job) == 1


@pytest.mark.parametrize("policy", [PlacementPolicy.BIN_PACK, PlacementPolicy.WEIGHTED])
def test_tasks_without_gpus_go_to_nodes_without_gpus_first(policy: PlacementPolicy) -> None:
    world = World(policy)
    world.node("g1", cpu=8, gpus=1)
    world.submit(cpu=6, gpus=1)
    world.settle()
    world.node("n1", cpu=8)
    world.submit(10, cpu=1)
    assert [placed.partition("@")[2] for placed in world.settle()] == ["n1"] * 8 + ["g1"] * 2


@pytest.mark.parametrize("policy", [PlacementPolicy.BIN_PACK, PlacementPolicy.WEIGHTED])
def test_tasks_with_gpus_leave_whole_nodes_whole(policy: PlacementPolicy) -> None:
    world = World(policy)
    world.node("large", cpu=8, gpus=8)
    world.node("small", cpu=64, gpus=4)
    world.submit(6, cpu=1, gpus=1)
    placed = [each.partition("@")[2] for each in world.settle()]
    assert placed == ["small"] * 4 + ["large"] * 2
    world.node("empty", cpu=8, gpus=8)
    world.submit(cpu=1, gpus=2)
    assert world.settle()[0].endswith("@large"), "six are free there, and eight on the other"


def test_the_largest_of_what_comes_and_goes() -> None:
    chance, largest, numbers = random.Random(1), _Largest(), []
    for _ in range(2000):
        if numbers and chance.random() < 0.5:
            numbers.remove(number := chance.choice(numbers))
            largest.remove(number)
        else:
            numbers.append(number := chance.randrange(20))
            largest.add(number)
        assert largest.value == max(numbers, default=0)
    assert len(largest._heap) <= 2 * 20 + 8, "what is gone is forgotten"
