"""The API's calls about notifications."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from hasched.client.calls import Call, path_of
from hasched.model.notification_views import NotificationPage, NotificationView


def notifications() -> Call[NotificationPage]:
    return Call("GET", "/v1/notifications", NotificationPage)


def notification(name: str, states: Sequence[str], limit: int | None) -> Call[NotificationView]:
    return Call("GET", path_of(_path(name), state=states, limit=limit), NotificationView)


def retry_notification(name: str, deliveries: Sequence[int]) -> Call[NotificationView]:
    return Call("POST", f"{_path(name)}/retry", NotificationView, msgspec.json.encode({"deliveries": deliveries}))


def test_notification(name: str) -> Call[NotificationView]:
    return Call("POST", f"{_path(name)}/test", NotificationView)


def _path(name: str) -> str:
    return f"/v1/notifications/{quote(name, safe='')}"
