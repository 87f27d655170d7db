"""Notifications: the targets, and what waits for each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from hasched.model.notices import DeliveryState
from hasched.model.notification_views import DeliveryView, NotificationPage, NotificationView
from hasched.model.policy import Notification, PolicyKind
from hasched.statemachine.outbox import Delivery, Lane
from hasched.statemachine.policies import find_policy
from hasched.statemachine.state import State


def list_notifications(state: State) -> NotificationPage:
    """The targets by name, without their deliveries."""
    names = sorted(state.policies[PolicyKind.NOTIFICATION])
    views = [show_notification(state, name, (), 0) for name in names]
    return NotificationPage(notifications=[view for view in views if view is not None])


def show_notification(state: State, name: str, states: Sequence[DeliveryState], limit: int) -> NotificationView | None:
    """A target with the latest of its deliveries in these states, all if none is given. None: there is no such target."""
    body = find_policy(state.policies, Notification, name)
    if body is None:
        return None
    lane = state.outbox.lanes.get(name) or Lane()
    first = min(lane.waiting.values(), key=lambda each: each.queued_ms, default=None)
    wanted = (each for each in lane.deliveries() if not states or each.state in states)
    latest = sorted(wanted, key=lambda each: -each.id) if limit else []
    return NotificationView(
        name=name,
        to=body.to.value,
        events=list(body.events),
        namespaces=list(body.namespaces),
        description=body.description,
        waiting=len(lane.waiting),
        delivered=lane.delivered,
        failed=lane.failed,
        dropped=lane.dropped,
        oldest_ms=first.queued_ms if first is not None else 0,
        error=first.error if first is not None else "",
        deliveries=[_show(each) for each in islice(latest, limit)],
    )


def _show(delivery: Delivery) -> DeliveryView:
    return DeliveryView(
        id=delivery.id,
        state=delivery.state.name.lower(),
        notice=delivery.notice,
        attempts=delivery.attempts,
        queued_ms=delivery.queued_ms,
        next_ms=delivery.next_ms,
        ended_ms=delivery.ended_ms,
        error=delivery.error,
        log_index=delivery.log_index,
    )
