"""Events of notifications: what happens to a notice on its way to a target."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from hasched.model.notices import Notice


class _Event(msgspec.Struct, frozen=True, tag=True, gc=False):
    pass


class NotificationQueued(_Event, frozen=True):
    """A target is to be told of something."""

    delivery_id: int
    target: str
    notice: Notice


class NotificationDropped(_Event, frozen=True):
    """So much waits for the target that it is not told of this. It is told how many there were, once there is room."""

    target: str
    topic: str
    about: str  # the id of the event


class NotificationDelivered(_Event, frozen=True):
    delivery_id: int
    target: str
    delivery_attempt: int


class NotificationDelayed(_Event, frozen=True):
    """An attempt has failed; the next is made then."""

    delivery_id: int
    target: str
    delivery_attempt: int
    error: str
    next_ms: int


class NotificationFailed(_Event, frozen=True):
    """The last attempt has failed, and the target is not told of it any more."""

    delivery_id: int
    target: str
    delivery_attempt: int
    error: str


class NotificationRetried(_Event, frozen=True):
    """Somebody wants these tried again, now."""

    target: str
    deliveries: tuple[int, ...]
    actor: str


class NotificationsDiscarded(_Event, frozen=True):
    """The target's policy was deleted while so many waited for it."""

    target: str
    waiting: int


NotificationEvent: TypeAlias = (
    NotificationQueued
    | NotificationDropped
    | NotificationDelivered
    | NotificationDelayed
    | NotificationFailed
    | NotificationRetried
    | NotificationsDiscarded
)
