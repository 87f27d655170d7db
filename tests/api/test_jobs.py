"""Jobs over HTTP."""

from __future__ import annotations

from api_server import Manager


async def test_a_job_is_submitted_and_shown(manager: Manager) -> None:
    answer = await manager.post("/v1/jobs", {"command": ["echo", "hi"], "name": "greet"})
    assert answer.status == 201
    job_id = answer.json["id"]
    shown = (await manager.get(f"/v1/jobs/{job_id}")).json
    assert (shown["name"], shown["state"], shown["actor"]) == ("greet", "PENDING", "alice")
    assert shown["reason"]["code"] == "no_nodes"
    assert shown["spec"]["command"] == ["echo", "hi"]
