"""The API's calls about schedules."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from hasched.client.calls import Call, Document, path_of
from hasched.model.schedule_views import BackfillView, Preview, SchedulePage, ScheduleView, SlotPage


def schedules(namespace: str | None, cursor: str, limit: int | None) -> Call[SchedulePage]:
    return Call("GET", path_of("/v1/schedules", namespace=namespace, cursor=cursor, limit=limit), SchedulePage)


def schedule(name: str) -> Call[ScheduleView]:
    return Call("GET", _path(name), ScheduleView)


def put_schedule(name: str, document: Document, if_index: int | None) -> Call[ScheduleView]:
    return Call("PUT", path_of(_path(name), if_index=if_index), ScheduleView, _encode(document))


def delete_schedule(name: str) -> Call[None]:
    return Call("DELETE", _path(name), type(None))


def pause_schedule(name: str, reason: str) -> Call[ScheduleView]:
    return Call("POST", f"{_path(name)}/pause", ScheduleView, msgspec.json.encode({"reason": reason}))


def resume_schedule(name: str) -> Call[ScheduleView]:
    return Call("POST", f"{_path(name)}/resume", ScheduleView)


def slots(name: str, limit: int | None) -> Call[SlotPage]:
    return Call("GET", path_of(f"{_path(name)}/slots", limit=limit), SlotPage)


def preview_schedule(name: str, count: int | None, after_ms: int | None) -> Call[Preview]:
    return Call("GET", path_of(f"{_path(name)}/preview", count=count, after_ms=after_ms), Preview)


def backfill_schedule(name: str, from_ms: int, until_ms: int, again: bool, dry_run: bool) -> Call[BackfillView]:
    body = {"from_ms": from_ms, "until_ms": until_ms, "again": again, "dry_run": dry_run}
    return Call("POST", f"{_path(name)}/backfill", BackfillView, msgspec.json.encode(body))


class TextCall(Call[str]):
    """A call that is answered with text."""

    def decode(self, body: bytes) -> str:
        return body.decode()


def schedule_calendar(name: str | None) -> Call[str]:
    return TextCall("GET", f"{_path(name)}/calendar" if name is not None else "/v1/schedules-calendar", str)


def _path(name: str) -> str:
    return f"/v1/schedules/{quote(name, safe='')}"


def _encode(document: Document) -> bytes:
    return document if isinstance(document, bytes) else msgspec.json.encode(document)
