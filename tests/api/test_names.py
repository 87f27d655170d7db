"""Names that nothing has: refused with what was perhaps meant, in lists, in what is submitted and in reservations."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from api_server import Answer, Manager

from hasched.model.spec import Resources
from hasched.model.wire import GpuDevice, NodeInfo
from hasched.statemachine.commands import RegisterNode

YEAR = {"start": "2099-01-01T00:00:00Z", "end": "2099-01-02T00:00:00Z"}


async def put(manager: Manager, path: str, document: dict[str, Any]) -> Answer:
    return await manager.request("PUT", f"/v1/policies/{path}", data=msgspec.json.encode(document))


async def add_node(manager: Manager, node_id: str, **info: Any) -> None:
    described = NodeInfo(hostname=node_id, agent_version="1", resources=Resources(cpu_milli=1000), **info)
    await manager.replica.propose(RegisterNode(node_id=node_id, info=described))


@pytest.mark.parametrize("kind", ["queue", "namespace"])
async def test_a_list_of_the_jobs_of_nothing_is_refused(manager: Manager, kind: str) -> None:
    await put(manager, f"{kind}/batch", {})
    refused = await manager.get(f"/v1/jobs?{kind}=bacth")
    assert (refused.status, refused.code, refused.json["hint"]) == (400, f"unknown_{kind}", "did you mean 'batch'?")
    assert (await manager.get(f"/v1/jobs?{kind}=batch")).json["jobs"] == [], "there is one, with no job in it"


async def test_a_queue_that_only_jobs_name_can_be_listed(manager: Manager) -> None:
    job_id = await manager.submit(queue="ours")
    assert [job["id"] for job in (await manager.get("/v1/jobs?queue=ours")).json["jobs"]] == [job_id]


@pytest.mark.parametrize(
    ("document", "code", "hint"),
    [
        ({"priority_class": "hihg"}, "unknown_priority_class", "did you mean 'high'?"),
        ({"priority_class": "urgent"}, "unknown_priority_class", "there are: high, low, medium"),
        ({"namespace": "defualt"}, "unknown_namespace", "did you mean 'default'?"),
        ({"placement": {"resource_class": "lagre"}}, "no_such_resource_class", "did you mean 'large'?"),
        ({"semaphores": {"licence": 1}}, "unknown_semaphore", "did you mean 'licences'?"),
    ],
)
async def test_a_submission_is_told_what_was_meant(manager: Manager, document: Any, code: str, hint: str) -> None:
    await put(manager, "cap/licences", {"units": 3})
    refused = await manager.post("/v1/jobs", {"command": ["true"], **document})
    assert (refused.code, refused.json["hint"]) == (code, hint)


async def test_other_requests_are_told_what_was_meant(manager: Manager) -> None:
    await add_node(manager, "gpu-7")
    await put(manager, "quota/company", {"cohort": True})
    job_id = await manager.submit()
    path = f"/v1/jobs/{job_id}"
    refused = [
        await manager.request("PATCH", path, data=b'{"priority_class": "hihg"}'),
        await put(manager, "quota/red", {"namespace": "defualt"}),
        await put(manager, "quota/red", {"parent": "compnay"}),
        await manager.request("DELETE", "/v1/policies/quota/compnay"),
        await manager.get("/v1/policies/quota/compnay"),
        await manager.get("/v1/nodes/gpu7"),
        await manager.post("/v1/nodes/gpu7/drain", {}),
    ]
    meant = ["high", "default", "company", "company", "company", "gpu-7", "gpu-7"]
    assert [answer.json["hint"] for answer in refused] == [f"did you mean '{name}'?" for name in meant]


async def test_a_reservation_names_nodes_and_namespaces_that_are_there(manager: Manager) -> None:
    await add_node(manager, "node-1")
    refused = await put(manager, "reservation/works", {"nodes": ["node-1", "node-2", "x3", "x4", "x5"], **YEAR})
    assert (refused.status, refused.code) == (409, "unknown_node")
    assert refused.json["cause"] == "no node is called node-2, x3, x4, …"
    assert refused.json["hint"].startswith("did you mean 'node-1'? ") and "allow_unknown_nodes" in refused.json["hint"]
    refused = await put(manager, "reservation/works", {"nodes": ["node-1"], "namespaces": ["defualt"], **YEAR})
    assert (refused.code, refused.json["hint"]) == ("unknown_namespace", "did you mean 'default'?")
    both = {"nodes": ["node-1", "n9"], **YEAR}
    assert (await put(manager, "reservation/works?allow_unknown_nodes=true", both)).status == 200
    later = await put(manager, "reservation/works", {**both, "end": "2099-01-03T00:00:00Z"})
    assert later.status == 200, "what it names already stays as it is"
    assert (await put(manager, "reservation/works", {**both, "nodes": ["n8"]})).code == "unknown_node"


async def test_shares_are_of_namespaces_that_are_there(manager: Manager) -> None:
    refused = await put(manager, "fair_share/default", {"weights": {"defualt/ada": 2}})
    assert (refused.status, refused.code) == (409, "unknown_namespace")
    assert refused.json["hint"] == "did you mean 'default'?"
    assert (await put(manager, "fair_share/default", {"weights": {"default/ada": 2}})).status == 200


async def test_a_job_is_warned_of_a_queue_or_pool_that_may_be_a_slip(manager: Manager) -> None:
    await add_node(manager, "n1", pool="batch")

    async def warnings(document: dict[str, Any]) -> list[str]:
        accepted = await manager.post("/v1/jobs", {"command": ["true"], **document})
        assert accepted.status == 201
        return accepted.json["warnings"]

    assert await warnings({"queue": "defualt", "placement": {"pool": "*"}}) == [
        "no policy describes the queue defualt, so it is an ordinary one; did you mean 'default'?"
    ]
    assert await warnings({"placement": {"pool": "bacth"}}) == [
        "no node is in the pool bacth now; did you mean 'batch'?"
    ]
    assert await warnings({"queue": "ours", "placement": {"pool": ["batch", "gpu"]}}) == []


async def test_a_job_is_warned_of_a_gpu_model_that_no_node_has(manager: Manager) -> None:
    async def warnings(model: str | list[str]) -> list[str]:
        document = {"command": ["true"], "resources": {"gpus": 1, "gpu_model": model}}
        return (await manager.post("/v1/jobs", document)).json["warnings"]

    assert await warnings("H100") == [], "nothing is known of any"
    gpus = tuple(GpuDevice(f"GPU-{model}", f"NVIDIA {model}", 1) for model in ("T4", "A100"))
    info = NodeInfo(hostname="n1", agent_version="1", resources=Resources(cpu_milli=1000, gpus=2), gpus=gpus)
    await manager.replica.propose(RegisterNode(node_id="n1", info=info))
    assert await warnings("H100") == ["no node has GPUs of the model H100 now; there are: NVIDIA A100, NVIDIA T4"]
    assert await warnings(["H100", "T4"]) == []


async def test_prices_are_in_one_currency(manager: Manager) -> None:
    euro, dollar = {"cpu": "1", "currency": "EUR"}, {"cpu": "1", "currency": "USD"}
    assert (await put(manager, "price/default", euro)).status == 200
    refused = await put(manager, "price/gpu", dollar)
    assert (refused.status, refused.code) == (409, "price_currency")
    assert refused.json["cause"] == "price/gpu is in USD, and price/default in EUR"
    both = [{"kind": "price", "name": "default", **dollar}, {"kind": "price", "name": "gpu", **euro}]
    assert (await manager.post("/v1/policies/check", {"policies": both})).code == "price_currency"
    assert (await put(manager, "price/gpu", {"cpu": "1"})).status == 200
    assert (await put(manager, "price/default", dollar)).status == 200, "the only one that names one"


async def test_a_job_is_warned_of_a_countable_that_no_node_offers(manager: Manager) -> None:
    async def warnings(name: str) -> list[str]:
        document = {"command": ["true"], "resources": {"countables": {name: 1}}}
        return (await manager.post("/v1/jobs", document)).json["warnings"]

    assert await warnings("licence") == [], "nothing is known of any"
    resources = Resources(cpu_milli=1000, countables=(("licence", 2),))
    info = NodeInfo(hostname="n1", agent_version="1", resources=resources)
    await manager.replica.propose(RegisterNode(node_id="n1", info=info))
    assert await warnings("lisence") == ["no node offers lisence now; did you mean 'licence'?"]
    assert await warnings("licence") == []
