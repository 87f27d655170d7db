"""What there is, and that every part of it is accounted for once."""

from __future__ import annotations

import pytest

from hasched.model.answers import ResourceLine
from hasched.model.policy import PolicyKind, Reservation
from hasched.model.spec import Resources
from hasched.model.states import NodeState
from hasched.model.wire import GpuDevice
from hasched.scheduler.explain import NodeClasses, show_resources
from hasched.statemachine.commands import PutPolicy, SetNodeEligibility, SetNodeState
from tests.scheduler.cluster import T0, Cluster

GIB = 2**30


def cluster() -> Cluster:
    """4 nodes of 8 CPU: n1 runs 3, n2 is cordoned, n3 is kept for others now, n4 is of another pool."""
    cluster = Cluster()
    for number in range(1, 5):
        pool = "gpu" if number == 4 else "default"
        devices = tuple(GpuDevice("", model, 0) for model in ("A100", "H100")) if number == 4 else ()
        cluster.node(
            f"n{number}",
            cpu=8,
            memory=number * GIB,
            gpus=len(devices),
            gpus_known=devices,
            pool=pool,
            labels={"rack": f"r{number % 2}"},
        )
    cluster.do(SetNodeEligibility(node_id="n2", eligible=False, actor="bob"))
    window = Reservation(nodes=("n3",), start_ms=T0, end_ms=T0 + 1000, users=("eve",))
    cluster.do(PutPolicy(kind=PolicyKind.RESERVATION, name="demo", body=window, actor="bob"))
    cluster.submit(cpu=3)
    cluster.place()
    assert len(cluster.state.nodes["n1"].attempts) == 1
    return cluster


def lines(cluster: Cluster, by: str) -> dict[str, dict[str, ResourceLine]]:
    view = show_resources(cluster.state, by, NodeClasses())
    return {group.name: {line.resource: line for line in group.resources} for group in view.groups}


def test_every_part_is_accounted_for_once() -> None:
    cpu = lines(cluster(), "all")["all"]["cpu"]
    assert (cpu.total, cpu.allocated, cpu.unusable, cpu.held, cpu.free) == (32_000, 3000, 8000, 8000, 13_000)
    assert (cpu.largest, cpu.fragmented_percent) == (8000, 38)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        pytest.param("all", ["all"], id="all"),
        pytest.param("pool", ["default", "gpu"], id="pool"),
        pytest.param("label.rack", ["r0", "r1"], id="label"),
        pytest.param("label.other", [""], id="a label that none has"),
        pytest.param("gpu_model", ["A100", "H100"], id="GPU model"),
        pytest.param(
            "class",
            [
                "8 CPU, 1Gi memory, healthy",
                "8 CPU, 2Gi memory, healthy,cordoned",
                "8 CPU, 3Gi memory, healthy",
                "8 CPU, 4Gi memory, 2 GPUs, healthy, pool gpu, 1 x A100, 1 x H100",
            ],
            id="class",
        ),
    ],
)
def test_groups(by: str, names: list[str]) -> None:
    found = lines(cluster(), by)
    assert sorted(found) == names
    for group in found.values():
        for line in group.values():
            assert line.total == line.allocated + line.held + line.unusable + line.free


def test_the_largest_task_that_would_start_now() -> None:
    (group,) = show_resources(cluster().state, "all", NodeClasses()).groups
    assert group.largest_task == Resources(cpu_milli=8000, memory_bytes=4 * GIB, gpus=2)
    assert (group.nodes, group.usable) == (4, 3)


def test_a_reservation_ends_also_where_nothing_happens() -> None:
    idle = cluster().state
    held = [
        line.held
        for now_ms in (T0 + 999, T0 + 1000)
        for line in show_resources(idle, "all", NodeClasses(), now_ms).groups[0].resources
        if line.resource == "cpu"
    ]
    assert held == [8000, 0]


def test_nothing_is_free_where_no_node_takes_work() -> None:
    lost = cluster()
    for node_id in list(lost.state.nodes):
        lost.do(SetNodeState(node_id=node_id, state=NodeState.UNHEALTHY, reason="silent"))
    (group,) = show_resources(lost.state, "all", NodeClasses()).groups
    assert group.largest_task is None and all(line.free == line.largest == 0 for line in group.resources)


def test_any_other_grouping_is_refused() -> None:
    with pytest.raises(ValueError, match="not by 'colour'"):
        show_resources(Cluster().state, "colour", NodeClasses())
