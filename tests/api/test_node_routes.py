"""Nodes over HTTP: cordoned, drained, let back."""

from __future__ import annotations

import pytest
from api_server import Manager

from hasched.model.spec import Resources
from hasched.model.wire import NodeInfo
from hasched.statemachine.commands import Placement, PlacePlan, QuarantineNode, RegisterNode


@pytest.fixture
async def node(manager: Manager) -> Manager:
    """A manager that knows a node, on which a job runs."""
    info = NodeInfo(hostname="n1", agent_version="1", resources=Resources(cpu_milli=4000))
    await manager.replica.propose(RegisterNode(node_id="n1", info=info))
    job_id = (await manager.post("/v1/jobs", {"command": ["true"]})).json["id"]
    await manager.replica.propose(PlacePlan(placements=(Placement(job_id, "n1", (0,)),)))
    return manager


async def test_a_cordon_says_who_and_why_and_is_taken_back(node: Manager) -> None:
    answer = await node.post("/v1/nodes/n1/cordon", {"reason": "a fan is loud"})
    assert (answer.status, answer.json["status"], answer.json["eligible"]) == (200, "healthy,cordoned", False)
    assert (answer.json["cordon"]["actor"], answer.json["cordon"]["reason"]) == ("alice", "a fan is loud")
    answer = await node.post("/v1/nodes/n1/uncordon", {})
    assert (answer.json["status"], answer.json["cordon"]) == ("healthy", None)


async def test_a_drain_has_its_deadline_from_the_leaders_clock(node: Manager) -> None:
    answer = await node.post("/v1/nodes/n1/drain", {"reason": "new disks", "deadline_in_ms": 60_000})
    drain = answer.json["drain"]
    assert (answer.json["status"], drain["actor"], drain["drained"]) == ("healthy,draining", "alice", False)
    assert drain["deadline_ms"] == drain["since_ms"] + 60_000
    assert (await node.post("/v1/nodes/n1/drain", {})).json["drain"]["deadline_ms"] == 0
    assert (await node.post("/v1/nodes/n1/undrain", {})).json["drain"] is None


async def test_a_quarantine_can_be_ended_by_hand(node: Manager) -> None:
    await node.replica.propose(QuarantineNode(node_id="n1", reason="launches fail", wait_ms=60_000))
    shown = (await node.get("/v1/nodes/n1")).json
    assert (shown["status"], shown["quarantine"]["reason"]) == ("healthy,quarantined", "launches fail")
    assert (await node.post("/v1/nodes/n1/unquarantine", {})).json["quarantine"] is None


async def test_properties_stand_over_what_the_agent_says_until_they_are_reset(node: Manager) -> None:
    body = {"pool": "lab", "labels": {"rack": "r1"}, "taints": {"loud": {"value": "fan", "effect": "avoid"}}}
    answer = await node.post("/v1/nodes/n1/properties", body)
    shown = answer.json
    assert (shown["pool"], shown["labels"], shown["taints"]) == ("lab", {"rack": "r1"}, ["loud=fan:avoid"])
    shown = (await node.post("/v1/nodes/n1/properties", {"taints": {"loud": None}})).json
    assert (shown["pool"], shown["taints"]) == ("lab", [])
    shown = (await node.post("/v1/nodes/n1/properties", {"reset": True})).json
    assert (shown["pool"], shown["labels"]) == ("default", {})


@pytest.mark.parametrize(
    ("what", "body", "status"),
    [
        ("drain", {"deadline_in_ms": -1}, 400),
        ("drain", {"deadline_in_ms": 2**60}, 400),
        ("drain", {"deadline": "2h"}, 400),
        ("cordon", {"reason": "x" * 1001}, 400),
        ("properties", {"pool": "a pool"}, 409),
        ("properties", {"taints": {"loud": "fan"}}, 400),
        ("properties", {"taints": {"loud": {"effect": "explode"}}}, 400),
    ],
)
async def test_what_can_not_be_is_refused(node: Manager, what: str, body: dict[str, object], status: int) -> None:
    assert (await node.post(f"/v1/nodes/n1/{what}", body)).status == status
    assert (await node.get("/v1/nodes/n1")).json["status"] == "healthy"


@pytest.mark.parametrize("what", ["cordon", "uncordon", "drain", "undrain", "unquarantine", "properties"])
async def test_a_node_that_is_not_there(manager: Manager, what: str) -> None:
    answer = await manager.post(f"/v1/nodes/none/{what}", {})
    assert (answer.status, answer.json["code"]) == (404, "no_such_node")
