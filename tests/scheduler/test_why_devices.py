"""Why says of devices that are there and unwell, where a job has too few of their kind."""

from __future__ import annotations

from hasched.model.reasons import ReasonCode
from hasched.model.wire import DeviceInfo
from tests.scheduler.cluster import Cluster
from tests.scheduler.test_why import submit, why


def unwell(kind: str, device_id: str, health: str = "Xid 48") -> DeviceInfo:
    return DeviceInfo(id=device_id, kind=kind, health=health)


def told(cluster: Cluster, resources: dict[str, object]) -> list[tuple[str, int]]:
    job = submit(cluster, {"resources": resources})
    blockers = [blocker for view in why(cluster, job).classes for blocker in view.blockers]
    return [(each.text, each.nodes) for each in blockers if each.code == ReasonCode.DEVICE_UNHEALTHY]


def test_an_unwell_gpu_is_named_with_what_is_wrong_with_it() -> None:
    cluster = Cluster()
    cluster.node("n1", gpus=1, devices=(unwell("gpu", "GPU-1"), unwell("fpga", "card0", "too hot")))
    assert told(cluster, {"gpus": 2}) == [("1 gpu device is unwell and not offered: GPU-1 of n1 (Xid 48)", 1)]
    assert told(cluster, {"gpus": 1}) == [], "it has what the job asks for"
    assert told(cluster, {"countables": {"fpga": 1}}) == [
        ("1 fpga device is unwell and not offered: card0 of n1 (too hot)", 1)
    ]


def test_of_many_some_are_named_and_well_ones_never() -> None:
    cluster = Cluster()
    for number in (1, 2, 3, 4):
        health = "" if number == 2 else "hot"
        cluster.node(f"n{number}", devices=(unwell("gpu", f"GPU-{number}", health),))
    text = "3 gpu devices are unwell and not offered: GPU-1 of n1 (hot), GPU-3 of n3 (hot), …"
    assert told(cluster, {"gpus": 1}) == [(text, 3)]
