"""Policies over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
from api_server import Answer, Manager


async def put(manager: Manager, path: str, document: Any) -> Answer:
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return await manager.request("PUT", f"/v1/policies/{path}", data=body)


async def test_a_policy_is_put_shown_listed_and_deleted(manager: Manager) -> None:
    answer = await put(manager, "queue/batch", {"priority": 3})
    assert (answer.status, answer.json["document"], answer.json["actor"]) == (200, {"priority": 3}, "alice")
    assert (await manager.get("/v1/policies/queue/batch")).json == answer.json
    assert [view["name"] for view in (await manager.get("/v1/policies?kind=queue")).json["policies"]] == [
        "batch",
        "default",
    ]
    everything = (await manager.get("/v1/policies?consistency=stale")).json["policies"]
    assert {view["kind"] for view in everything} == {"namespace", "queue", "priority_class", "resource_class"}
    assert (await manager.request("DELETE", "/v1/policies/queue/batch")).status == 204
    assert (await manager.get("/v1/policies/queue/batch")).code == "no_such_policy"
    assert (await manager.request("DELETE", "/v1/policies/queue/batch")).code == "no_such_policy"


async def test_a_change_under_a_condition(manager: Manager) -> None:
    index = (await put(manager, "queue/batch?if_index=0", {"priority": 3})).json["log_index"]
    assert (await put(manager, "queue/batch?if_index=0", {"priority": 4})).code == "policy_changed"
    assert (await put(manager, f"queue/batch?if_index={index}", {"priority": 4})).status == 200
    assert (await manager.request("DELETE", f"/v1/policies/queue/batch?if_index={index}")).code == "policy_changed"


async def test_jobs_belong_to_namespaces_that_there_are(manager: Manager) -> None:
    refused = await manager.post("/v1/jobs", {"command": ["true"], "namespace": "red"})
    assert (refused.status, refused.code) == (409, "unknown_namespace")
    await put(manager, "namespace/red", {})
    red, other = await manager.submit(namespace="red"), await manager.submit()
    assert (await manager.get(f"/v1/jobs/{red}")).json["namespace"] == "red"
    assert [job["id"] for job in (await manager.get("/v1/jobs?namespace=red")).json["jobs"]] == [red]
    assert [job["id"] for job in (await manager.get("/v1/jobs?namespace=default")).json["jobs"]] == [other]


async def test_what_can_not_be_put(manager: Manager) -> None:
    wrong = await put(manager, "queue/batch", {"wieght": 3})
    assert (wrong.status, wrong.code) == (422, "invalid_policy")
    assert wrong.json["errors"] == [{"path": "wieght", "cause": "unknown key", "hint": "did you mean 'weight'?"}]
    assert (await put(manager, "queue/batch", b"{")).code == "malformed_body"
    assert (await put(manager, "queues/batch", {})).code == "no_such_kind"
    assert (await manager.get("/v1/policies?kind=queues")).code == "no_such_kind"
    assert (await put(manager, "quota/red", {"namespace": "red"})).code == "unknown_namespace"
    assert (await manager.request("DELETE", "/v1/policies/queue/default")).code == "policy_built_in"


async def check(manager: Manager, *policies: Any, **more: Any) -> Answer:
    return await manager.post("/v1/policies/check", {"policies": list(policies), **more})


async def test_policies_are_checked_in_their_order_and_nothing_is_put(manager: Manager) -> None:
    before = (await manager.get("/v1/policies")).json
    namespace = {"kind": "namespace", "name": "red"}
    quota = {"kind": "quota", "name": "red", "namespace": "red", "limits": {"gpus": 1}}
    assert (await check(manager, namespace, quota)).status == 204
    assert (await check(manager, quota, namespace)).code == "unknown_namespace"
    assert (await check(manager, namespace, {**quota, "parent": "all"})).code == "unknown_quota"
    assert (await check(manager, {"kind": "quota", "limits": {}})).code == "invalid_policy"
    assert (await check(manager, {**quota, "limits": {"gpu": 1}})).code == "invalid_policy"
    nodes = {"kind": "reservation", "name": "r", "nodes": ["n1"], "start": "2100-01-01T00:00:00Z"}
    nodes["end"] = "2100-01-02T00:00:00Z"
    assert (await check(manager, nodes)).code == "unknown_node"
    assert (await check(manager, nodes, allow_unknown_nodes=True)).status == 204
    assert (await manager.get("/v1/policies")).json == before
    refused = await put(manager, "quota/red", {"namespace": "red", "limits": {"gpus": 1}})
    assert (refused.status, refused.code) == (409, "unknown_namespace")
