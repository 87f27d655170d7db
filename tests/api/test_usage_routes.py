"""Usage, limits and estimates over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from api_server import Answer, Manager


async def put(manager: Manager, path: str, **document: Any) -> Answer:
    answer = await manager.request("PUT", f"/v1/policies/{path}", data=msgspec.json.encode(document))
    assert answer.status == 200, answer.body
    return answer


async def test_limits_are_shown_as_they_are_used(manager: Manager) -> None:
    await put(manager, "quota/all", limits={"cpu": 2, "queued_jobs": 1, "gpu_hours_per_week": 3})
    await put(manager, "cap/licence", units=4)
    await manager.submit(semaphores={"licence": 1})
    shown = (await manager.get("/v1/limits")).json["limits"]
    assert [(each["kind"], each["name"], each["amount"], each["used"], each["available"]) for each in shown] == [
        ("quota", "all", "cpu", 0, 2000),
        ("quota", "all", "queued_jobs", 1, 0),
        ("quota", "all", "gpu_hours_per_week", 0, 10_800_000),
        ("cap", "licence", "units", 0, 4),
    ]
    assert [each["name"] for each in (await manager.get("/v1/limits?kind=cap")).json["limits"]] == ["licence"]
    assert len((await manager.get("/v1/limits?name=all&consistency=stale")).json["limits"]) == 3
    assert (await manager.get("/v1/limits?kind=quotas")).code == "no_such_kind"
    refused = await manager.post("/v1/jobs", {"command": ["true"]})
    assert (refused.status, refused.code) == (409, "quota_exceeded")
    assert refused.json["cause"] == "quota all: 1 queued job asked for, 1 of 1 in use, 1 too little"


async def test_a_job_that_a_limit_holds_back_says_so(manager: Manager) -> None:
    job_id = await manager.submit()
    await put(manager, "cap/mine", subject="user", match="alice", units=0)
    shown = (await manager.get(f"/v1/jobs/{job_id}")).json
    assert shown["reason"]["code"] == "cap"
    assert shown["reason"]["text"].startswith("cap mine: 1 running task asked for, 0 of 0 in use, 1 too little")
    refused = await manager.post("/v1/jobs", {"command": ["true"]})
    assert (refused.status, refused.code) == (409, "cap_exceeded")


async def test_an_estimate_submits_nothing(manager: Manager) -> None:
    document = {"command": ["true"], "count": 2, "timeout": "30m", "resources": {"cpu": 3}}
    assert (await manager.post("/v1/usage/estimate", document)).json["priced"] is False
    await put(manager, "price/default", cpu="0.5", currency="EUR")
    estimate = (await manager.post("/v1/usage/estimate", document)).json
    assert (estimate["hour_micro"], estimate["cost_micro"], estimate["currency"]) == (3_000_000, 1_500_000, "EUR")
    assert manager.replica.state.jobs == {}
    assert (await manager.post("/v1/usage/estimate", {"command": []})).code == "invalid_spec"
    unknown = await manager.post("/v1/usage/estimate", {"command": ["true"], "placement": {"resource_class": "x"}})
    assert unknown.status in (404, 409), unknown.body


@pytest.mark.parametrize("by", ["account", "user", "namespace", "week", "job"])
async def test_an_unused_cluster_has_used_nothing(manager: Manager, by: str) -> None:
    await manager.submit()
    assert (await manager.get(f"/v1/usage?by={by}")).json == {"usage": [], "currency": "", "next_cursor": ""}


async def test_what_can_not_be_asked(manager: Manager) -> None:
    for query in ("by=month", "by=job&week=2026-11-30", "week=soon", "by=job&cursor=x"):
        assert (await manager.get(f"/v1/usage?{query}")).code == "bad_request"
    for query in ("namespace=defualt", "by=job&namespace=defualt"):
        answer = await manager.get(f"/v1/usage?{query}")
        assert (answer.code, answer.json["hint"]) == ("unknown_namespace", "did you mean 'default'?")
    assert (await manager.get("/v1/usage?week=2026-11-30&namespace=default&user=ada")).status == 200


async def test_a_job_says_what_it_costs(manager: Manager) -> None:
    job_id = (await manager.post("/v1/jobs", {"command": ["true"], "timeout": "1h"})).json["id"]
    shown = (await manager.get(f"/v1/jobs/{job_id}")).json
    assert (shown["estimate"], shown["used"]["cost_micro"]) == (None, 0), "there is no price"
    await put(manager, "price/default", cpu="0.04", currency="EUR")
    shown = (await manager.get(f"/v1/jobs/{job_id}")).json
    assert (shown["estimate"]["cost_micro"], shown["estimate"]["currency"]) == (40_000, "EUR")
    assert (await manager.get("/v1/jobs")).json["jobs"][0]["estimate"] is None, "of many jobs that is left out"
