"""Questions about what would be, over HTTP: answered by a process beside the manager, from the manager's own state."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from api_server import Manager

from hasched.api import rehearsals
from hasched.client.aio import AsyncClient
from hasched.client.context import Context
from hasched.client.sync import Client
from hasched.model.spec import Resources
from hasched.model.states import NodeState
from hasched.model.wire import NodeInfo
from hasched.statemachine.commands import Placement, PlacePlan, RegisterNode, SetNodeState

MINUTE = 60_000
SLEEP = {"command": ["sleep", "60"], "timeout": "10m"}


async def add_node(manager: Manager, node_id: str, cpu: int = 1, **info: Any) -> None:
    described = NodeInfo(hostname=node_id, agent_version="1", resources=Resources(cpu_milli=cpu * 1000), **info)
    await manager.replica.propose(RegisterNode(node_id=node_id, info=described))


async def start(manager: Manager, job_id: int, node_id: str) -> None:
    await manager.replica.propose(PlacePlan(placements=(Placement(job_id, node_id, (0,)),)))


async def test_a_plan_can_be_submitted_while_it_holds(manager: Manager) -> None:
    await add_node(manager, "n1")
    before = manager.contents
    answer = await manager.post("/v1/plan", {"jobs": [SLEEP, {"command": ["true"]}]})
    assert answer.status == 200, answer.body
    first, second = answer.json["jobs"]
    assert first["placements"] == [{"node_id": "n1", "tasks": 1}] and first["later"] is None
    assert second["later"]["start_ms"] == answer.json["now_ms"] + 10 * MINUTE
    assert manager.contents == before, "a plan changes nothing"
    index = answer.json["check_index"]
    assert (await manager.post(f"/v1/jobs?if_index={index}", SLEEP)).status == 201
    assert (await manager.post(f"/v1/jobs?if_index={index}", SLEEP)).code == "plan_outdated"


async def test_a_plan_names_what_is_wrong_with_a_job(manager: Manager) -> None:
    answer = await manager.post("/v1/plan", {"jobs": [{"command": ["true"], "cuont": 3}]})
    assert (answer.status, answer.code) == (422, "invalid_spec")
    assert (await manager.post("/v1/plan", {"jobs": []})).status == 400


async def test_what_if_compares_two_futures(manager: Manager) -> None:
    await add_node(manager, "n1", labels={"rack": "r1"})
    await add_node(manager, "n2")
    running = await manager.submit(**SLEEP)
    await start(manager, running, "n1")
    await manager.replica.propose(SetNodeState(node_id="n2", state=NodeState.UNHEALTHY, reason="silent"))
    waiting = await manager.submit(**SLEEP)
    body = {
        "add_nodes": [{"count": 1, "like": "n1"}],
        "priorities": {str(waiting): 5},
        "add_jobs": [{"name": "extra", "command": ["true"]}],
    }
    answer = await manager.post("/v1/what-if", body)
    assert answer.status == 200, answer.body
    compared = answer.json
    assert compared["changes"] == ["1 more node like n1", f"job {waiting} with priority 5", "with job extra"]
    assert [(job["job_id"], job["change_ms"]) for job in compared["jobs"]] == [
        (waiting, compared["now_ms"] - compared["jobs"][0]["now"]["start_ms"]),
        (waiting + 1, None),
    ]
    quota = {"namespace": "default", "limits": {"cpu": 1}}
    assert (await manager.request("PUT", "/v1/policies/quota/small", json=quota)).status == 200
    enough = {"quotas": {"small.cpu": 2}, "queues": {"default.priority": 7}}
    changed = (await manager.post("/v1/what-if", enough)).json["changes"]
    assert changed == ["quota small with cpu 2", "queue default with priority 7"]
    for name, policy in {"cap/licence": {"units": 1}, "quota/a.b": {"limits": {"countables": {"x": 1}}}}.items():
        assert (await manager.request("PUT", f"/v1/policies/{name}", json=policy)).status == 200
    more = {"quotas": {"a.b.countables.mig-1g.10gb": 2, "small.limits.cpu": 3}, "caps": {"licence.units": 2}}
    changed = (await manager.post("/v1/what-if", more)).json["changes"]
    assert changed == ["quota a.b with countables.mig-1g.10gb 2", "quota small with cpu 3", "cap licence with units 2"]
    drained = (await manager.post("/v1/what-if", {"drain": [{"label": "rack", "value": "r1"}]})).json
    assert drained["jobs"][0]["then"]["reason"]["code"] == "no_nodes"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param({}, 400, "bad_request", id="nothing"),
        pytest.param({"remove_nodes": ["n9"]}, 404, "no_such_node", id="no such node"),
        pytest.param({"quotas": {"team.gpus": 3}}, 404, "no_such_policy", id="no such quota"),
        pytest.param({"caps": {"a." * 50_000: 3}}, 400, "bad_request", id="more dots than names have"),
        pytest.param({"drain": [{}]}, 400, "bad_request", id="a drain of nothing"),
        pytest.param({"without_jobs": [7]}, 404, "no_such_job", id="no such job"),
        pytest.param({"drain": [{"label": "rack", "value": "r9"}]}, 404, "no_such_node", id="no such label"),
        pytest.param({"add_jobs": [{"x": 1}]}, 422, "invalid_spec", id="a job that is none"),
    ],
)
async def test_what_cant_be_supposed(manager: Manager, body: dict[str, Any], status: int, code: str) -> None:
    answer = await manager.post("/v1/what-if", body)
    assert (answer.status, answer.code) == (status, code)


async def test_why_a_job_waits(manager: Manager) -> None:
    await add_node(manager, "n1", cpu=2)
    await manager.submit(**SLEEP, priority=3)
    job_id = await manager.submit(resources={"cpu": 4}, timeout="2h", deadline="1h")
    answer = (await manager.get(f"/v1/jobs/{job_id}/why")).json
    assert [blocker["code"] for blocker in answer["blockers"]] == ["no_nodes", "deadline"]
    assert answer["remedies"] == [], "its agent isn't connected"
    codes = [blocker["code"] for blocker in answer["classes"][0]["blockers"]]
    assert codes == ["node_unreachable", "insufficient_cpu"]
    assert (answer["ahead"], answer["classes"][0]["nodes"], answer["forecast"]) == (1, 1, None)
    foreseen = (await manager.get(f"/v1/jobs/{job_id}/why?forecast=true")).json["forecast"]
    assert (foreseen["start_ms"], foreseen["reason"]["code"]) == (0, "deadline")
    assert (await manager.get("/v1/jobs/77/why")).code == "no_such_job"


async def test_what_there_is(manager: Manager) -> None:
    await add_node(manager, "n1", cpu=2, pool="batch")
    view = (await manager.get("/v1/resources?by=pool")).json
    assert [(group["name"], group["resources"][0]["free"]) for group in view["groups"]] == [("batch", 2000)]
    assert (await manager.get("/v1/resources?by=colour")).code == "bad_request"
    await add_node(manager, "n2", labels={"rack": "r1"})
    refused = await manager.get("/v1/resources?by=label.rak")
    assert (refused.status, refused.code, refused.json["hint"]) == (400, "unknown_label", "did you mean 'rack'?")
    assert (await manager.get("/v1/resources?by=label.rack")).status == 200


async def test_one_forecast_serves_all_who_ask_at_once(manager: Manager) -> None:
    await add_node(manager, "n1")
    first, second = await manager.submit(**SLEEP), await manager.submit(**SLEEP)
    answers = await asyncio.gather(*(manager.get("/v1/forecast") for _ in range(20)))
    assert len({answer.body for answer in answers}) == 1
    jobs = answers[0].json["jobs"]
    assert [job["job_id"] for job in jobs] == [first, second]
    assert jobs[1]["start_ms"] == jobs[0]["start_ms"] + 10 * MINUTE
    one = (await manager.get(f"/v1/jobs/{second}/forecast")).json
    assert [job["job_id"] for job in one["jobs"]] == [second]
    assert (await manager.get("/v1/jobs/99/forecast")).code == "no_such_job"


async def test_too_many_questions_are_refused_at_once(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsals, "MOST_WAITING", 1)
    answers = await asyncio.gather(*(manager.post("/v1/plan", {"jobs": [SLEEP]}) for _ in range(3)))
    assert sorted(answer.status for answer in answers) == [200, 503, 503]
    assert {answer.code for answer in answers if answer.status == 503} == {"overloaded"}


async def test_a_process_that_dies_takes_one_answer_with_it(manager: Manager) -> None:
    job_id = await manager.submit(**SLEEP)
    assert (await manager.get(f"/v1/jobs/{job_id}/forecast")).status == 200
    answering = manager.server.context.rehearsals
    assert answering.process is not None
    os.kill(answering.process.pid, signal.SIGSTOP)
    asking = asyncio.create_task(manager.get(f"/v1/jobs/{job_id}/forecast"))
    async with asyncio.timeout(10):
        while not answering.waiting:
            await asyncio.sleep(0.002)
    os.kill(answering.process.pid, signal.SIGKILL)
    assert (await asking).code == "overloaded"
    assert (await manager.get(f"/v1/jobs/{job_id}/forecast")).status == 200


async def test_the_process_ends_with_its_manager(manager: Manager) -> None:
    job_id = await manager.submit(**SLEEP)
    assert (await manager.get(f"/v1/jobs/{job_id}/forecast")).status == 200
    process = manager.server.context.rehearsals.process
    assert process is not None and process.returncode is None
    await manager.server.context.rehearsals.close()
    assert process.returncode is not None


async def test_both_clients_ask_them_all(manager: Manager) -> None:
    context = Context(managers=[manager.url], ca=str(manager.pki.ca), token=manager.pki.token)
    await add_node(manager, "n1")
    job_id = await manager.submit(**SLEEP)
    suppose = {"add_nodes": [{"count": 1, "like": "n1"}]}

    def ask() -> list[Any]:
        with Client(context) as client:
            return [client.plan([SLEEP]), client.what_if(suppose), client.why(job_id), client.resources("pool")]

    async with AsyncClient(context) as client:
        asked = [await client.plan([SLEEP]), await client.what_if(suppose)]
        asked += [await client.why(job_id), await client.resources("pool")]
        foreseen = await client.forecast(job_id)
        explained = await client.why(job_id, forecast=True)
    plan, compared, answer, view = await asyncio.to_thread(ask)
    assert (plan.check_index, answer, view) == (asked[0].check_index, asked[2], asked[3])
    assert [job.job_id for job in foreseen.jobs] == [job_id]
    assert compared.changes == asked[1].changes == ["1 more node like n1"]
    assert explained.forecast is not None and explained.forecast.job_id == job_id
