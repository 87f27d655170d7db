"""Notifications over HTTP."""

from __future__ import annotations

import msgspec
from api_server import Manager

OPS = {"to": "email", "recipients": ["ada@example.com"], "events": ["job.submitted"]}


async def put(manager: Manager, name: str = "ops") -> None:
    answer = await manager.request("PUT", f"/v1/policies/notification/{name}", data=msgspec.json.encode(OPS))
    assert answer.status == 200


async def test_a_notification_shows_what_waits_for_it(manager: Manager) -> None:
    await put(manager)
    (view,) = (await manager.get("/v1/notifications")).json["notifications"]
    assert (view["name"], view["to"], view["events"], view["waiting"]) == ("ops", "email", ["job.submitted"], 0)
    job_id = (await manager.post("/v1/jobs", {"command": ["true"], "name": "nightly"})).json["id"]
    shown = (await manager.get("/v1/notifications/ops?state=waiting&limit=5")).json
    (delivery,) = shown["deliveries"]
    assert (shown["waiting"], delivery["state"], delivery["attempts"]) == (1, "waiting", 0)
    assert (delivery["notice"]["job_id"], delivery["notice"]["topic"]) == (job_id, "job.submitted")
    assert (await manager.get("/v1/notifications/ops?state=failed")).json["deliveries"] == []
    assert (await manager.get("/v1/notifications/ops?state=none")).status == 400


async def test_a_notification_is_tried_and_tried_again(manager: Manager) -> None:
    await put(manager)
    tried = (await manager.post("/v1/notifications/ops/test", {})).json
    assert tried["deliveries"][0]["notice"] == {**tried["deliveries"][0]["notice"], "topic": "notification.test"}
    number = tried["deliveries"][0]["id"]
    assert (await manager.post("/v1/notifications/ops/retry", {"deliveries": [number]})).status == 200
    assert (await manager.post("/v1/notifications/ops/retry", {})).json["waiting"] == 1
    refused = await manager.post("/v1/notifications/ops/retry", {"deliveries": [number + 1]})
    assert (refused.status, refused.code) == (404, "no_such_delivery")
    for path in ("/v1/notifications/opps/test", "/v1/notifications/opps/retry"):
        refused = await manager.post(path, {})
        assert (refused.status, refused.code) == (404, "no_such_policy")
    missing = await manager.get("/v1/notifications/opps")
    assert (missing.status, missing.code) == (404, "no_such_policy")


async def test_a_job_names_only_who_is_there(manager: Manager) -> None:
    await put(manager)
    assert (await manager.post("/v1/jobs", {"command": ["true"], "notify": {"targets": ["ops"]}})).status == 201
    refused = await manager.post("/v1/jobs", {"command": ["true"], "notify": {"targets": ["nobody"]}})
    assert (refused.status, refused.code) == (409, "unknown_notification")
    refused = await manager.post("/v1/jobs", {"command": ["true"], "notify": {"targets": ["ops"], "events": ["late"]}})
    assert refused.status == 422
