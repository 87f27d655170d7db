"""Templates and executions over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from api_server import Answer, Manager

from hasched.statemachine.commands import StepClock

TASKS = {"a": {"approval": "Really?"}, "b": {"after": "a", "approval": "And?"}}
ASK = {"name": "ask", "parameters": {"who": "you"}, "tasks": TASKS}


async def put(manager: Manager, path: str, document: Any) -> Answer:
    return await manager.request("PUT", f"/v1/templates/{path}", data=msgspec.json.encode(document))


async def start(manager: Manager, workflow: Any, key: str = "", **more: Any) -> Answer:
    headers = {"Idempotency-Key": key} if key else {}
    body = msgspec.json.encode({"workflow": workflow, **more})
    return await manager.request("POST", "/v1/executions", data=body, headers=headers)


async def test_an_execution_from_its_start_to_its_end(manager: Manager) -> None:
    assert (await put(manager, "workflow/ask", ASK)).json["version"] == 1
    started = await start(manager, "ask", "key-1", parameters={"who": "me"}, timeout_ms=60_000)
    assert (started.status, started.json["version"], started.json["parameters"]) == (201, 1, {"who": "me"})
    number = started.json["id"]
    again = await start(manager, "ask", "key-1")
    assert (again.status, again.json["id"]) == (200, number)
    path = f"/v1/executions/{number}"
    for task in ("a", "b"):
        await manager.replica.propose(StepClock())
        assert (await manager.get(f"{path}/tasks/{task}")).json["task"]["state"] == "running"
        answer = await manager.post(f"{path}/tasks/{task}/approval", {"approve": task == "a"})
        assert answer.status == 200
    await manager.replica.propose(StepClock())
    view = (await manager.get(path)).json
    assert (view["state"], view["reason"]) == ("failed", "b: refused by alice")
    assert view["deadline_ms"] == view["started_ms"] + 60_000
    page = (await manager.get("/v1/executions?state=failed&workflow=ask")).json
    assert [each["id"] for each in page["executions"]] == [number]
    assert (await manager.post(f"{path}/retry", {})).json["round"] == 1
    cancelled = await manager.post(f"{path}/cancel", {"reason": "enough"})
    assert cancelled.json["stopping"]
    assert (await manager.request("DELETE", path)).code == "execution_active"


async def test_templates_over_http(manager: Manager) -> None:
    job = {"parameters": {"n": 1}, "command": ["echo", "#{params.n}"]}
    first = await put(manager, "job/t", job)
    assert (first.status, first.json["document"], first.json["versions"]) == (200, job, [1])
    assert (await put(manager, "job/t?if_version=0", {"command": ["true"]})).code == "template_changed"
    assert (await put(manager, "job/t", {"command": ["true"]})).json["version"] == 2
    assert (await manager.get("/v1/templates/job/t?version=1")).json["document"] == job
    assert (await manager.get("/v1/templates/job/t?version=7")).code == "no_such_version"
    assert (await manager.post("/v1/templates/job/t/revert", {"version": 1})).json["version"] == 3
    made = await manager.post("/v1/templates/job/t/dispatch", {"parameters": {"n": "5"}})
    shown = (await manager.get(f"/v1/jobs/{made.json['id']}")).json
    assert (shown["spec"]["command"], shown["name"]) == (["echo", "5"], "t")
    assert [each["name"] for each in (await manager.get("/v1/templates?kind=job")).json["templates"]] == ["t"]
    assert (await manager.request("DELETE", "/v1/templates/job/t")).status == 204
    assert (await manager.get("/v1/templates/job/t")).code == "no_such_template"


@pytest.mark.parametrize(
    ("workflow", "more", "code"),
    [
        ("nothing", {}, "no_such_template"),
        ({"name": "w"}, {}, "invalid_workflow"),
        ({"name": "w", "tasks": {"a": {"job": "nothing"}}}, {}, "invalid_workflow"),
        ({"name": "w", "tasks": {"a": {"command": ["x", "#{b.output}"]}}}, {}, "invalid_workflow"),
        (ASK, {"parameters": {"whom": "x"}}, "invalid_workflow"),
        (ASK, {"parameters": {"who": 3}}, "invalid_workflow"),
        (ASK, {"timeout_ms": -1}, "bad_request"),
        (ASK, {"parameters": {str(n): "" for n in range(100)}}, "bad_request"),
        (3, {}, "bad_request"),
        ({**ASK, "namespace": "red", "tasks": [[]]}, {}, "invalid_workflow"),
    ],
)
async def test_what_can_not_be_executed(manager: Manager, workflow: Any, more: dict[str, Any], code: str) -> None:
    assert (await start(manager, workflow, **more)).code == code
    assert (await manager.get("/v1/executions")).json["executions"] == []


async def test_what_can_not_be_put_or_is_not_there(manager: Manager) -> None:
    refused = await put(manager, "workflow/w", {"name": "w", "tasks": {"a": {"after": "b", "command": ["x"]}}})
    assert (refused.status, refused.json["errors"][0]["path"]) == (422, "tasks.a.after")
    assert (await put(manager, "workflow/w", {"name": "x", "tasks": {}})).code == "bad_request"
    assert (await put(manager, "job/t", {"command": ["x", "#{params.y}"]})).code == "invalid_template"
    assert (await put(manager, "jobs/t", {"command": ["x"]})).code == "no_such_kind"
    assert (await manager.request("PUT", "/v1/templates/job/t", data=b"[" * 100_000)).code == "malformed_body"
    assert (await manager.get("/v1/executions/7")).code == "no_such_execution"
    assert (await manager.get("/v1/executions?state=odd")).code == "bad_request"
    assert (await manager.get("/v1/executions?cursor=x")).code == "bad_request"
    for path in ("cancel", "retry"):
        assert (await manager.post(f"/v1/executions/7/{path}", {})).code == "no_such_execution"
