"""`hasched node cordon|drain|…`: which nodes are meant, what is asked of the managers, and what people are told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from scripted_manager import Answer, Scene, reply

from hasched.cli import node_control
from hasched.cli.exits import Exit
from hasched.cli.main import cli
from hasched.client.aio import AsyncClient


def invoke(scene: Scene, *arguments: str) -> Result:
    context = scene.context()
    env = {"HASCHED_MANAGERS": ",".join(context.managers), "HASCHED_CA": context.ca, "HASCHED_TOKEN": context.token}
    return CliRunner().invoke(cli, ("node", *arguments), env=env, prog_name="hasched")


def view(name: str = "n1", status: str = "healthy", running: int = 0, **fields: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"id": name, "state": "healthy", "reason": None, "hostname": name, "agent_version": "1"}
    known |= {"isolation": "rlimit", "labels": {}, "total": {}, "allocated": {}, "gpus": [], "connected": True}
    known |= {"registered_ms": 1, "changed_ms": 1, "log_index": 1, "status": status, "running": running}
    return known | fields


def draining(name: str = "n1", running: int = 0, deadline_ms: int = 0) -> dict[str, Any]:
    drain = {"actor": "ada", "reason": "", "since_ms": 1, "deadline_ms": deadline_ms, "expired": False}
    status = "healthy,draining" if running else "healthy,drained"
    return view(name, status, running, drain=drain | {"drained": not running})


def page(*nodes: dict[str, Any]) -> Answer:
    return reply(200, {"nodes": nodes})


def asked(scene: Scene) -> list[tuple[str, Any]]:
    """Paths and bodies of the requests that change something."""
    return [(path, json.loads(body or b"{}")) for method, path, _, body in scene.requests() if method == "POST"]


def test_a_cordon_goes_to_each_node_that_is_named_once(scene: Scene) -> None:
    scene.manager(reply(200, view(status="healthy,cordoned")))
    result = invoke(scene, "cordon", "n1", "n2", "n1", "--reason", "a fan is loud")
    assert result.exit_code == Exit.OK, result.output
    assert asked(scene) == [(f"/v1/nodes/{name}/cordon", {"reason": "a fan is loud"}) for name in ("n1", "n2")]
    assert result.stdout == "n1  healthy,cordoned\n" * 2


def test_nodes_are_chosen_by_their_labels(scene: Scene) -> None:
    scene.manager(
        page(view("n1", labels={"rack": "r1"}), view("n2", labels={"rack": "r2"}), view("n3", labels={"rack": "r1"})),
        reply(200, view()),
    )
    assert invoke(scene, "uncordon", "--label", "rack=r1").exit_code == Exit.OK
    assert [path for path, _ in asked(scene)] == ["/v1/nodes/n1/uncordon", "/v1/nodes/n3/uncordon"]


def test_a_list_is_in_the_order_of_numbers_and_can_be_narrowed(scene: Scene) -> None:
    nodes = page(
        *(view(name, pool="gpu" if name == "n2" else "default", labels={"rack": "r1"}) for name in ("n10", "n2", "n1"))
    )
    scene.manager(nodes)
    assert [line.split()[0] for line in invoke(scene, "list").stdout.splitlines()] == ["NODE", "n1", "n2", "n10"]
    narrowed = json.loads(invoke(scene, "list", "--pool", "gpu", "--label", "rack=r1", "--json").stdout)
    assert [node["id"] for node in narrowed["nodes"]] == ["n2"]
    for option, value, meant in (("--pool", "gpus", "gpu"), ("--label", "rack=r7", "rack=r1")):
        refused = invoke(scene, "list", option, value)
        assert (refused.exit_code, refused.stderr.splitlines()[1]) == (Exit.NOT_FOUND, f"  did you mean {meant!r}?")


def test_no_node_with_such_a_label_is_told_apart_from_success(scene: Scene) -> None:
    scene.manager(page(view("n1")))
    result = invoke(scene, "undrain", "--label", "rack=r9")
    assert (result.exit_code, asked(scene)) == (Exit.NOT_FOUND, [])
    assert "no node has rack=r9" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("drain",), Exit.USAGE),
        (("drain", "n1", "--label", "rack=r1"), Exit.USAGE),
        (("drain", "n1", "--force", "--deadline", "1h"), Exit.USAGE),
        (("drain", "n1", "--deadline", "soon"), Exit.BAD_INPUT),
        (("label", "n1"), Exit.USAGE),
        (("taint", "n1", "--set", "="), Exit.BAD_INPUT),
    ],
)
def test_what_can_not_be_meant_is_asked_of_nobody(scene: Scene, arguments: tuple[str, ...], code: Exit) -> None:
    scene.manager(reply(200, view()))
    assert (invoke(scene, *arguments).exit_code, asked(scene)) == (code, [])


def test_several_nodes_stop_to_take_work_before_anything_is_moved_from_one_of_them(scene: Scene) -> None:
    scene.manager(reply(200, draining(running=2)))
    assert invoke(scene, "drain", "n1", "n2", "--force").exit_code == Exit.OK
    assert asked(scene) == [
        (f"/v1/nodes/{name}/drain", {"reason": "", "deadline_in_ms": deadline})
        for deadline in (None, 0)
        for name in ("n1", "n2")
    ]


def test_a_drain_is_waited_for_and_told_of(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_control, "POLL_S", 0.001)
    scene.manager(
        reply(200, draining("n1", 2)),
        reply(200, draining("n2", 1)),
        page(draining("n1", 2), draining("n2", 1)),
        page(draining("n1", 2), draining("n2", 1)),
        page(draining("n1", 1), draining("n2")),
        page(draining("n1"), draining("n2"), view("n3")),
    )
    result = invoke(scene, "drain", "n1", "n2", "--wait")
    assert (result.exit_code, result.stdout) == (Exit.OK, "n1  healthy,drained\nn2  healthy,drained\n")
    assert result.stderr.splitlines() == [
        "hasched: still running: 2 on n1, 1 on n2",
        "hasched: still running: 1 on n1",
    ]


def test_who_waits_no_longer_is_told_what_is_left(scene: Scene) -> None:
    scene.manager(reply(200, draining(running=2)), page(draining(running=2)))
    result = invoke(scene, "drain", "n1", "--wait", "--patience", "0s")
    assert (result.exit_code, result.stdout) == (Exit.TIMED_OUT, "n1  healthy,draining  2 running\n")


def test_somebody_undrains_a_node_that_is_waited_for(scene: Scene) -> None:
    scene.manager(reply(200, draining(running=2)), page(view()))
    result = invoke(scene, "drain", "n1", "--wait")
    assert result.exit_code == Exit.REFUSED
    assert "node n1 does not drain any more" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("label", "--set", "rack=r2", "--remove", "zone"), {"labels": {"rack": "r2", "zone": None}}),
        (
            ("taint", "--set", "loud=fan:avoid", "--remove", "old"),
            {"taints": {"loud": {"value": "fan", "effect": "avoid"}, "old": None}},
        ),
        (("pool", "--set", "spare"), {"pool": "spare"}),
        (("reset",), {"reset": True}),
    ],
)
def test_what_is_said_of_nodes_goes_to_each_of_a_pool(
    scene: Scene, arguments: tuple[str, ...], said: dict[str, Any]
) -> None:
    scene.manager(page(view("n1", pool="lab"), view("n2")), reply(200, view()))
    result = invoke(scene, *arguments, "--pool", "lab")
    assert result.exit_code == Exit.OK, result.output
    assert asked(scene) == [
        ("/v1/nodes/n1/properties", {"pool": "", "labels": {}, "taints": {}, "reset": False} | said)
    ]


def test_a_program_gets_the_nodes(scene: Scene) -> None:
    scene.manager(reply(200, draining(running=2)))
    result = invoke(scene, "drain", "n1", "--json")
    assert [node["status"] for node in json.loads(result.stdout)["nodes"]] == ["healthy,draining"]


def test_a_node_shows_what_was_decided_about_it(scene: Scene) -> None:
    cordon = {"actor": "ada", "reason": "a fan is loud", "since_ms": 1_700_000_000_000}
    quarantine = {"reason": "launches of 5 jobs in a row failed", "since_ms": 1, "until_ms": 2, "times": 2}
    node = draining(running=3, deadline_ms=1_700_000_000_000)
    node["devices"] = [
        {"id": "MIG-1", "kind": "mig-1g.10gb", "memory_bytes": 10 * 2**30},
        {"id": "fpga:c0", "kind": "fpga", "units": 4, "health": "too hot"},
    ]
    scene.manager(reply(200, node | {"cordon": cordon, "quarantine": quarantine | {"probation": True}}))
    shown = invoke(scene, "show", "n1").stdout
    assert "by ada: a fan is loud" in shown
    assert "MIG-1  mig-1g.10gb (10Gi)" in shown
    assert "fpga:c0  fpga × 4  not offered: too hot" in shown
    assert "3 to go, the deadline is 2023-11-1" in shown
    assert "on probation until a launch succeeds, for the 2. time in a row: launches of 5 jobs" in shown


def test_the_asynchronous_client_asks_the_same(scene: Scene) -> None:
    scene.manager(reply(200, view()))

    async def ask() -> None:
        async with AsyncClient(scene.context()) as client:
            await client.cordon_node("n1", "fan")
            await client.uncordon_node("n1")
            await client.drain_node("n1", 5)
            await client.undrain_node("n1")
            await client.unquarantine_node("n1")
            await client.set_node_properties("n1", reset=True)

    asyncio.run(ask())
    assert asked(scene) == [
        ("/v1/nodes/n1/cordon", {"reason": "fan"}),
        ("/v1/nodes/n1/uncordon", {}),
        ("/v1/nodes/n1/drain", {"reason": "", "deadline_in_ms": 5}),
        ("/v1/nodes/n1/undrain", {}),
        ("/v1/nodes/n1/unquarantine", {}),
        ("/v1/nodes/n1/properties", {"pool": "", "labels": {}, "taints": {}, "reset": True}),
    ]
