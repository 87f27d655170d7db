"""Schedules over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
from api_server import Answer, Manager

DOCUMENT: dict[str, Any] = {
    "name": "report",
    "cron": "30 2 * * *",
    "timezone": "Europe/Berlin",
    "job": {"command": ["true"]},
}


async def put(manager: Manager, query: str = "", **keys: Any) -> Answer:
    document = {**DOCUMENT, **keys}
    return await manager.request("PUT", f"/v1/schedules/report{query}", data=msgspec.json.encode(document))


async def test_a_schedule_is_put_shown_listed_and_deleted(manager: Manager) -> None:
    answer = await put(manager, description="Figures.")
    assert (answer.status, answer.json["when"], answer.json["actor"]) == (200, "cron 30 2 * * *", "alice")
    assert any("02:30" in warning for warning in answer.json["warnings"])
    shown = (await manager.get("/v1/schedules/report")).json
    assert shown["spec"]["job"]["command"] == ["true"] and "T02:30:00+0" in shown["next_local"]
    await manager.request("PUT", "/v1/schedules/other", data=msgspec.json.encode({**DOCUMENT, "name": "other"}))
    page = (await manager.get("/v1/schedules?limit=1")).json
    assert ([view["name"] for view in page["schedules"]], page["next_cursor"]) == (["other"], "other")
    rest = (await manager.get("/v1/schedules?limit=1&cursor=other")).json
    assert ([view["name"] for view in rest["schedules"]], rest["next_cursor"]) == (["report"], "")
    assert (await manager.get("/v1/schedules?namespace=red")).json["schedules"] == []
    assert (await manager.request("DELETE", "/v1/schedules/report")).status == 204
    gone = await manager.get("/v1/schedules/report")
    assert (gone.status, gone.code) == (404, "no_such_schedule")


async def test_a_schedule_under_a_condition(manager: Manager) -> None:
    index = (await put(manager, "?if_index=0")).json["log_index"]
    assert (await put(manager, "?if_index=0", cron="0 3 * * *")).code == "schedule_changed"
    assert (await put(manager, f"?if_index={index}", cron="0 3 * * *")).status == 200


async def test_pause_and_resume(manager: Manager) -> None:
    await put(manager)
    paused = (await manager.post("/v1/schedules/report/pause", {"reason": "moving"})).json
    assert (paused["state"], paused["pause"]["actor"], paused["pause"]["reason"]) == ("paused", "alice", "moving")
    assert (await manager.post("/v1/schedules/report/resume", {})).json["state"] == "active"
    assert (await manager.post("/v1/schedules/repotr/pause", {})).code == "no_such_schedule"
    assert "report" in (await manager.get("/v1/schedules/repotr")).json["hint"]


async def test_slots_to_come(manager: Manager) -> None:
    await put(manager)
    stored = (await manager.get("/v1/schedules/report/preview?count=2&after_ms=1806148800000")).json
    assert [slot["local"] for slot in stored["slots"]] == ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"]
    document = {**DOCUMENT, "name": "new", "every": "1h"}
    del document["cron"]
    unstored = await manager.post("/v1/schedules/preview?count=3", document)
    assert len(unstored.json["slots"]) == 3 and unstored.json["zone_data"]
    assert (await manager.get("/v1/schedules/report/slots")).json == {"planned": [], "slots": []}
    feed = await manager.get("/v1/schedules/report/calendar")
    assert feed.status == 200 and (await manager.get("/v1/schedules-calendar")).status == 200


async def test_a_backfill_names_its_slots(manager: Manager) -> None:
    await put(manager, timezone="UTC")
    asked = {"from_ms": 1_767_225_600_000, "until_ms": 1_767_225_600_000 + 2 * 86_400_000}
    dry = await manager.post("/v1/schedules/report/backfill", {**asked, "dry_run": True})
    assert [slot["local"] for slot in dry.json["slots"]] == ["2026-01-01T02:30:00+00:00", "2026-01-02T02:30:00+00:00"]
    assert (await manager.get("/v1/schedules/report")).json["waiting"] == 0
    assert (await manager.post("/v1/schedules/report/backfill", asked)).json["slots"] == dry.json["slots"]
    assert (await manager.get("/v1/schedules/report")).json["waiting"] == 2
    again = (await manager.post("/v1/schedules/report/backfill", {**asked, "again": True})).json
    assert again["slots"] == [], "they wait already"
    long = await manager.post("/v1/schedules/report/backfill", {"from_ms": 0, "until_ms": 1_767_225_600_000})
    assert (long.status, long.code) == (400, "bad_request")
    for wrong in ({"from_ms": 2, "until_ms": 2}, {"from_ms": 4_000_000_000_000, "until_ms": 4_000_000_000_001}):
        refused = await manager.post("/v1/schedules/report/backfill", wrong)
        assert (refused.status, refused.code) == (400, "bad_request"), "there is nothing that could be fired"


async def test_a_backfill_keeps_to_the_calendar_and_makes_up_for_blackouts(manager: Manager) -> None:
    blackout = {"from": "2026-01-05T00:00", "until": "2026-01-06T00:00"}
    await put(manager, timezone="UTC", calendar={"days": ["mon", "fri"]}, blackouts=[blackout])
    asked = {"from_ms": 1_767_225_600_000, "until_ms": 1_767_225_600_000 + 7 * 86_400_000, "dry_run": True}
    found = (await manager.post("/v1/schedules/report/backfill", asked)).json["slots"]
    assert [(slot["local"][:10], slot["skipped"]) for slot in found] == [("2026-01-02", ""), ("2026-01-05", "blackout")]


async def test_what_can_not_be_put(manager: Manager) -> None:
    wrong = await put(manager, cron="61 * * * *")
    assert (wrong.status, wrong.code, wrong.json["errors"][0]["path"]) == (422, "invalid_schedule", "cron")
    assert (await put(manager, name="another")).code == "bad_request"
    assert (await put(manager, job={"command": ["true"], "namespace": "red"})).code == "unknown_namespace"
    assert (await manager.request("PUT", "/v1/schedules/report", data=b"{")).code == "malformed_body"
