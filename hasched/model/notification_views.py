"""What the API shows of notifications. Times are ms since the epoch, 0: none."""

from __future__ import annotations

import msgspec

from hasched.model.notices import Notice


class _View(msgspec.Struct, frozen=True, kw_only=True):
    pass


class DeliveryView(_View, frozen=True):
    """A notice for one target. `state` is waiting, delivered or failed; `error` is of the last attempt."""

    id: int
    state: str
    notice: Notice
    attempts: int
    queued_ms: int
    next_ms: int = 0
    ended_ms: int = 0
    error: str = ""
    log_index: int = 0


class NotificationView(_View, frozen=True):
    """A target: how many notices wait for it, and what became of others. `deliveries` are the latest that were asked for."""

    name: str
    to: str
    events: list[str]
    namespaces: list[str]
    description: str = ""
    waiting: int = 0
    delivered: int = 0
    failed: int = 0
    dropped: int = 0  # there was no room for
    oldest_ms: int = 0  # since when the first that waits does
    error: str = ""  # of the last attempt of the first that waits
    deliveries: list[DeliveryView] = []


class NotificationPage(_View, frozen=True):
    notifications: list[NotificationView]
