"""Each code of the closed list, and the sentence a person reads."""

from __future__ import annotations

from hasched.model.dependency import parse_dependency
from hasched.model.policy import PolicyKind, Reservation
from hasched.model.spec import PlacementRules, Resources
from hasched.model.states import NodeState
from hasched.scheduler.explain import pending_reason
from hasched.statemachine.commands import DrainNode, PutPolicy, SetNodeState, SuspendJob
from hasched.statemachine.job import Job
from tests.scheduler.places import Places
from tests.scheduler.world import World

GIB = 2**30
HOUR_MS = 3_600_000


def why(world: World, job: Job) -> tuple[str, str] | None:
    reason = pending_reason(world.state, job)
    return None if reason is None else (reason.code, reason.text)


def test_a_job_with_nothing_waiting_has_no_reason() -> None:
    world = World()
    world.node("n1")
    job = world.submit()
    world.settle()
    assert why(world, job) is None


def test_no_nodes() -> None:
    world = World()
    job = world.submit()
    assert why(world, job) == ("no_nodes", "there is no node yet: no agent has come")
    world.node("n1")
    world.do(SetNodeState(node_id="n1", state=NodeState.UNHEALTHY, reason="silent"))
    assert why(world, job) == ("no_nodes", "no node is healthy")


def test_suspended() -> None:
    world = World()
    job = world.submit()
    world.do(SuspendJob(job_id=job.id, actor="ada"))
    assert why(world, job) == ("suspended", "the job is suspended; resume it to start more of it")


def test_dependency() -> None:
    world = World()
    world.node("n1")
    first = world.submit()
    job = world.submit(count=2, dependency=parse_dependency(f"afterok:{first.id},after:{first.id}+10m"))
    world.settle()
    started = (
        f"`afterok:{first.id}` (job {first.id} is SCHEDULED) and `after:{first.id}+10m` (job {first.id} is SCHEDULED)"
    )
    assert why(world, job) == ("dependency", f"it waits for {started}")
    assert [attempt.job_id for attempt in world.active()] == [first.id]


def test_backoff() -> None:
    world = World()
    world.node("n1")
    job = world.submit(retries=1, backoff_ms=1000)
    world.settle()
    world.end(job.id, 0, code=1)
    assert why(world, job) == ("backoff", "1 task waits until the wait before the next attempt is over")


def test_max_running() -> None:
    world = World()
    world.node("n1")
    job = world.submit(count=3, max_running=1)
    world.settle()
    assert why(world, job) == ("max_running", "as many tasks run as max_running allows: 1")


def test_unsatisfiable_says_what_there_is() -> None:
    world = World()
    world.node("n1", cpu=4, memory=GIB)
    world.node("n2", cpu=2, memory=2 * GIB)
    job = world.submit(cpu=8, memory=GIB, gpus=1, countables=(("licence", 2),))
    assert why(world, job) == (
        "unsatisfiable",
        "no healthy node has 8 CPU, 1Gi memory, 1 GPU, 2 licence in all; "
        "the most of each on one node is 4 CPU, 2Gi memory, 0 GPUs, 0 licence",
    )


def test_insufficient_resources() -> None:
    world = World()
    world.node("n1", cpu=2)
    world.submit()
    job = world.submit(cpu=2)
    world.settle()
    assert why(world, job) == ("insufficient_resources", "no node has 2 CPU free now")


def test_waiting_turn() -> None:
    world = World()
    world.node("n1")
    job = world.submit()
    assert why(world, job) == ("waiting_turn", "it will be started as soon as its turn comes")


def test_no_node_may_run_it() -> None:
    world = Places()
    world.place("n1", pool="batch")
    world.place("n2", pool="lab")
    assert why(world, world.ask()) == (
        "pool",
        "node n1: it is in the pool batch, and the job asks for default, and none of 2 in service may run it",
    )


def test_an_alternative_is_as_good_as_the_request() -> None:
    world = Places()
    world.place("n1", cpu=2)
    large, small = Resources(cpu_milli=64_000), Resources(cpu_milli=1000)
    assert why(world, world.ask(rules=PlacementRules(any_of=(large, small)))) is not None
    assert why(world, world.ask(rules=PlacementRules(any_of=(large, small))))[0] == "waiting_turn"  # type: ignore[index]
    assert why(world, world.ask(resources=Resources(disk_bytes=5 * GIB)))[0] == "unsatisfiable"  # type: ignore[index]


def test_of_nodes_that_may_not_run_it_the_nearest_is_told_of() -> None:
    world = Places()
    world.place("n1", pool="batch", rack="r2")
    world.place("n2", taints=["dedicated=ml"], rack="r2")
    world.place("n3", rack="r2")
    job = world.ask(rules=PlacementRules(constraints=("label.rack == r1",)))
    assert why(world, job) == (
        "constraint",
        "node n3: this does not hold of it: label.rack == r1, and none of 3 in service may run it",
    )


def test_nodes_that_may_run_it_and_take_no_work_come_before_others_that_take_some() -> None:
    world = Places()
    for node_id in ("n1", "n2", "n3"):
        world.place(node_id, pool="default" if node_id == "n1" else "batch")
    job = world.ask(rules=PlacementRules(pools=("batch",)))
    world.do(DrainNode(node_id="n2", actor="ada"))
    assert why(world, job)[0] == "waiting_turn"  # type: ignore[index]
    world.do(SetNodeState(node_id="n3", state=NodeState.UNHEALTHY, reason="silent"))
    text = "none of the 2 nodes that may run it takes work: 1 drained, 1 unhealthy"
    assert why(world, job) == ("node_draining", text)
    alone = world.ask(rules=PlacementRules(pools=("batch",), constraints=("node == n3",)))
    assert why(world, alone) == ("node_unhealthy", "the only node that may run it, n3, is unhealthy")


def test_a_reservation_for_others_is_what_the_job_waits_for() -> None:
    world = Places()
    world.place("n1")
    world.place("n2", pool="batch")
    start_ms = world.state.now_ms + HOUR_MS
    body = Reservation(nodes=("n1",), start_ms=start_ms, end_ms=start_ms + HOUR_MS)
    world.do(PutPolicy(kind=PolicyKind.RESERVATION, name="works", body=body, actor="ada"))
    short, endless = world.ask(timeout_ms=1000), world.ask()
    assert why(world, short) == ("waiting_turn", "it will be started as soon as its turn comes")
    code, text = why(world, endless) or ("", "")
    assert (code, text.partition(" from ")[0]) == ("reservation", "the reservation works keeps node n1 for others")
