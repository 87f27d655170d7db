"""Jobs over HTTP: submitted once, shown, listed and steered."""

from __future__ import annotations

import asyncio

import pytest
from api_server import Manager

from hasched.statemachine.commands import Command, DeleteJob
from hasched.statemachine.outcomes import Outcome

TRUE = {"command": ["true"]}


async def test_a_job_is_submitted_and_shown(manager: Manager) -> None:
    answer = await manager.post("/v1/jobs", {"command": ["echo", "hi"], "name": "greet"})
    assert answer.status == 201
    job_id = answer.json["id"]
    shown = (await manager.get(f"/v1/jobs/{job_id}")).json
    assert (shown["name"], shown["state"], shown["actor"]) == ("greet", "PENDING", "alice")
    assert shown["reason"]["code"] == "no_nodes"
    assert shown["spec"]["command"] == ["echo", "hi"]


@pytest.mark.parametrize("path", ["/jobs/create", "/jobs/schedule"])
async def test_the_aliases_submit_too(manager: Manager, path: str) -> None:
    job_id = (await manager.post(path, TRUE)).json["id"]
    shown = (await manager.get(f"/jobs/status?id={job_id}")).json
    assert (shown["id"], shown["state"], shown["spec"]) == (job_id, "PENDING", None)


async def test_a_repeated_key_is_answered_with_the_first_job(manager: Manager) -> None:
    key = {"Idempotency-Key": "again"}
    first, *others = await asyncio.gather(*(manager.post("/v1/jobs", TRUE, headers=key) for _ in range(8)))
    answers = [first, *others]
    assert sorted(answer.status for answer in answers) == [200] * 7 + [201]
    assert {answer.json["id"] for answer in answers} == {first.json["id"]}
    assert {answer.json["log_index"] for answer in answers} == {first.json["log_index"]}
    assert all(answer.json["duplicate"] == (answer.status == 200) for answer in answers)
    assert len(manager.replica.state.jobs) == 1


async def test_a_key_is_made_where_none_is_given(manager: Manager) -> None:
    first, second = await manager.post("/v1/jobs", TRUE), await manager.post("/v1/jobs", TRUE)
    assert first.json["submission_id"] != second.json["submission_id"]
    assert len(manager.replica.state.jobs) == 2


async def test_a_submission_holds_only_while_its_plan_does(manager: Manager) -> None:
    index = (await manager.post("/v1/jobs", TRUE)).json["log_index"]
    assert (await manager.post(f"/v1/jobs?if_index={index}", TRUE)).status == 201
    refused = await manager.post(f"/v1/jobs?if_index={index}", TRUE)
    assert (refused.status, refused.json["code"]) == (409, "plan_outdated")
    newest = manager.replica.state.index
    refused = await manager.post(f"/v1/jobs?if_index={newest + 1}", TRUE)
    assert (refused.status, refused.json["code"]) == (409, "plan_outdated"), "there is no such entry yet"
    assert len(manager.replica.state.jobs) == 2
    assert (await manager.post(f"/v1/jobs?if_index={newest}", TRUE)).status == 201


async def test_a_job_may_be_written_in_yaml(manager: Manager) -> None:
    text = b"name: nightly\ncommand: [backup, --all]\nresources: {memory: 512Mi}\n"
    answer = await manager.post("/v1/jobs", text, headers={"Content-Type": "application/yaml"})
    assert answer.status == 201
    spec = manager.replica.state.jobs[answer.json["id"]].spec
    assert (spec.name, spec.resources.memory_bytes) == ("nightly", 2**29)


async def test_yaml_is_taken_in_small_amounts(manager: Manager) -> None:
    text = b"command: [x]\nenv:\n" + b"".join(b"  V%d: x\n" % number for number in range(60_000))
    answer = await manager.post("/v1/jobs", text, headers={"Content-Type": "application/yaml"})
    assert (answer.status, answer.code) == (413, "body_too_large")


async def test_each_job_of_a_batch_stands_for_itself(manager: Manager) -> None:
    jobs = [
        {"submission_id": "a", "spec": TRUE},
        {"submission_id": "b", "spec": {"command": ["true"], "gpu": 1}},
        {"submission_id": "a", "spec": TRUE},
        {"submission_id": "with blank", "spec": TRUE},
        {"spec": {"command": ["true"], "count": 3}},
    ]
    results = (await manager.post("/v1/jobs/batch", {"jobs": jobs})).json["results"]
    assert [result.get("code", result.get("duplicate")) for result in results] == [
        False,
        "invalid_spec",
        True,
        "bad_request",
        False,
    ]
    assert results[0]["id"] == results[2]["id"]
    assert [job.count for job in manager.replica.state.jobs.values()] == [1, 3]


async def test_a_large_batch_is_one_request(manager: Manager) -> None:
    jobs = [{"submission_id": f"s{number}", "spec": TRUE} for number in range(10_000)]
    results = (await manager.post("/v1/jobs/batch", {"jobs": jobs})).json["results"]
    assert [result["submission_id"] for result in results] == [f"s{number}" for number in range(10_000)]
    assert len({result["id"] for result in results}) == 10_000


async def test_jobs_are_listed_page_by_page_and_filtered(manager: Manager) -> None:
    for number in range(5):
        await manager.submit(name=f"job{number}", queue="night" if number % 2 else "day", labels={"n": str(number)})
    first = (await manager.get("/v1/jobs?limit=2")).json
    second = (await manager.get(f"/v1/jobs?limit=2&cursor={first['next_cursor']}")).json
    assert [job["name"] for job in first["jobs"] + second["jobs"]] == ["job4", "job3", "job2", "job1"]

    async def names(query: str) -> list[str]:
        return [job["name"] for job in (await manager.get(f"/v1/jobs?{query}")).json["jobs"]]

    assert await names("queue=night") == ["job3", "job1"]
    assert await names("name=job2") == ["job2"]
    assert await names("label=n=3") == ["job3"]
    assert await names("state=RUNNING&state=succeeded") == []
    assert await names("actor=bob") == []
    assert await names("actor=alice&consistency=stale&limit=1") == ["job4"]


async def test_a_job_is_given_another_place_and_other_times(manager: Manager) -> None:
    job_id = await manager.submit(priority_class="high", deadline="1h")
    shown = (await manager.get(f"/v1/jobs/{job_id}")).json
    assert (shown["priority"], shown["priority_class"]) == (900, "high")
    assert shown["deadline_ms"] == shown["submitted_ms"] + 3_600_000

    changes = {"priority": 7, "queue": "batch", "deadline": 0, "not_before": "2100-01-01T00:00:00Z"}
    changed = (await manager.request("PATCH", f"/v1/jobs/{job_id}", json=changes)).json
    assert (changed["priority"], changed["priority_class"], changed["queue"]) == (7, "", "batch")
    assert (changed["deadline_ms"], changed["reason"]["code"]) == (0, "not_before")
    refused = await manager.request(
        "PATCH", f"/v1/jobs/{job_id}", json={"priority": 1, "priority_class": "low", "name": "x"}
    )
    assert [error["path"] for error in refused.json["errors"]] == ["name", "priority_class"]
    assert (await manager.request("PATCH", f"/v1/jobs/{job_id}", json={})).code == "invalid_spec"
    unknown = await manager.request("PATCH", f"/v1/jobs/{job_id}", json={"priority_class": "urgent"})
    assert (unknown.status, unknown.code) == (409, "unknown_priority_class")


async def test_a_job_waits_for_another(manager: Manager) -> None:
    first = await manager.submit()
    job_id = await manager.submit(dependency=f"afterok:{first},singleton", on_broken_dependency="wait")
    shown = (await manager.get(f"/v1/jobs/{job_id}")).json
    assert (shown["state"], shown["reason"]["code"]) == ("PENDING", "dependency")
    assert f"`afterok:{first}` (job {first} is PENDING)" in shown["reason"]["text"]
    assert shown["spec"]["dependency"]["conditions"] == [
        {"kind": "afterok", "job_id": first},
        {"kind": "singleton"},
    ]
    task = (await manager.get(f"/v1/jobs/{job_id}/tasks/0")).json
    assert task["reason"]["code"] == "dependency"
    circle = await manager.request("PATCH", f"/v1/jobs/{first}", json={"dependency": f"afterok:{job_id}"})
    assert (circle.status, circle.code) == (409, "unknown_dependency")
    changed = (await manager.request("PATCH", f"/v1/jobs/{job_id}", json={"dependency": ""})).json
    assert changed["reason"]["code"] == "no_nodes"
    unknown = await manager.post("/v1/jobs", {"command": ["true"], "dependency": "afterok:99"})
    assert (unknown.status, unknown.code) == (409, "unknown_dependency")
    mistyped = await manager.post("/v1/jobs", {"command": ["true"], "dependency": "aftrok:1"})
    assert (mistyped.code, mistyped.json["errors"][0]["path"]) == ("invalid_spec", "dependency")


async def test_a_submission_is_warned_of_what_may_not_go_as_meant(manager: Manager) -> None:
    spec = {"command": ["true"], "timeout": "2h", "deadline": "1h"}
    (warning,) = (await manager.post("/v1/jobs", spec)).json["warnings"]
    assert "leaves at most 1h, and an attempt may take 2h" in warning
    batch = (await manager.post("/v1/jobs/batch", {"jobs": [{"spec": spec}, {"spec": {**spec, "timeout": "1h"}}]})).json
    assert [len(result["warnings"]) for result in batch["results"]] == [1, 0]
    passed = await manager.post("/v1/jobs", {"command": ["true"], "deadline": "2020-01-01T00:00:00Z"})
    assert (passed.status, passed.code) == (409, "deadline_passed")


async def test_what_does_not_run_is_not_preempted(manager: Manager) -> None:
    job_id = await manager.submit(count=2)
    refused = await manager.post(f"/v1/jobs/{job_id}/preempt", {"reason": "maintenance"})
    assert (refused.status, refused.code) == (409, "nothing_to_preempt")
    assert (await manager.post(f"/v1/jobs/{job_id}/preempt", {"tasks": [2]})).code == "no_such_task"
    assert (await manager.post("/v1/jobs/99/preempt", {})).code == "no_such_job"


async def test_a_job_is_suspended_resumed_cancelled_and_deleted(manager: Manager) -> None:
    job_id = await manager.submit()
    assert (await manager.post(f"/v1/jobs/{job_id}/suspend")).json["suspended"] is True
    assert (await manager.post(f"/v1/jobs/{job_id}/resume")).json["suspended"] is False
    assert (await manager.request("DELETE", f"/v1/jobs/{job_id}")).code == "job_active"
    cancelled = (await manager.post(f"/v1/jobs/{job_id}/cancel", {"reason": "enough"})).json
    assert (cancelled["state"], cancelled["reason"]["code"]) == ("CANCELLED", "cancelled")
    assert "enough" in cancelled["reason"]["text"]
    assert (await manager.post(f"/v1/jobs/{job_id}/suspend")).code == "job_ended"
    deleted = await manager.request("DELETE", f"/v1/jobs/{job_id}")
    assert (deleted.status, deleted.body) == (204, b"")
    assert (await manager.get(f"/v1/jobs/{job_id}")).code == "no_such_job"


async def test_some_tasks_of_an_array_are_cancelled(manager: Manager) -> None:
    job_id = await manager.submit(count=4)
    await manager.post(f"/v1/jobs/{job_id}/cancel", {"tasks": [1, 3]})
    page = (await manager.get(f"/v1/jobs/{job_id}/tasks?state=CANCELLED")).json
    assert [task["task_index"] for task in page["tasks"]] == [1, 3]
    task = (await manager.get(f"/v1/jobs/{job_id}/tasks/0")).json
    assert (task["state"], task["attempts"], task["reason"]["code"]) == ("PENDING", [], "no_nodes")
    assert (await manager.get(f"/v1/jobs/{job_id}/tasks/4")).code == "no_such_task"
    first = (await manager.get(f"/v1/jobs/{job_id}/tasks?limit=3")).json
    rest = (await manager.get(f"/v1/jobs/{job_id}/tasks?limit=3&cursor={first['next_cursor']}")).json
    assert ([task["task_index"] for task in rest["tasks"]], rest["next_cursor"]) == ([3], "")


async def test_answers_say_how_far_they_see(manager: Manager) -> None:
    submitted = await manager.post("/v1/jobs", TRUE)
    fresh = await manager.get("/v1/jobs")
    assert int(fresh.headers["Hasched-Applied-Index"]) >= submitted.json["log_index"]
    stale = await manager.get("/v1/jobs?consistency=stale")
    assert int(stale.headers["Hasched-Applied-Age-Ms"]) >= 0


async def test_a_cancellation_that_was_made_is_not_told_as_one_of_no_job(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody deletes the job in the same entry of the log: it is gone before it can be shown, and yet it was cancelled."""
    job_id = (await manager.post("/v1/jobs", TRUE)).json["id"]

    async def propose(command: Command) -> Outcome:
        outcomes = await manager.replica.propose_many([command, DeleteJob(job_id=job_id, actor="bob")])
        return outcomes[0]

    monkeypatch.setattr(manager.replica, "propose", propose)
    answer = await manager.post(f"/v1/jobs/{job_id}/cancel", {})
    assert (answer.status, answer.code) == (503, "outcome_unknown")
    assert job_id not in manager.replica.state.jobs
