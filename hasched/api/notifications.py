"""Notifications: who is told, what waits, what was given up; tried, and tried again. Put and deleted they are as policies."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hasched.api.call import Call, Consistency
from hasched.api.routing import Routes
from hasched.model.errors import NotFound, OutcomeUnknown
from hasched.model.kinds import suggest_name
from hasched.model.notices import DeliveryState
from hasched.model.notification_views import NotificationPage, NotificationView
from hasched.model.policy import PolicyKind
from hasched.statemachine.commands import RetryNotifications, TryNotification
from hasched.statemachine.queries import notifications as queries
from hasched.statemachine.state import State

MAX_SHOWN = 2500  # all that a target ever has
MAX_RETRIED = 1000

routes = Routes("notifications")


class ListNotifications(msgspec.Struct, frozen=True, kw_only=True):
    consistency: Consistency = "linearizable"


class ShowNotification(msgspec.Struct, frozen=True, kw_only=True):
    state: Annotated[
        list[Literal["waiting", "delivered", "failed"]], msgspec.Meta(description="Only deliveries in these states.")
    ] = []
    limit: Annotated[int, msgspec.Meta(ge=0, le=MAX_SHOWN, description="So many of the latest deliveries.")] = 20
    consistency: Consistency = "linearizable"


class RetryRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which deliveries; none: all that wait or have failed, as far as there is room."""

    deliveries: Annotated[list[Annotated[int, msgspec.Meta(ge=1)]], msgspec.Meta(max_length=MAX_RETRIED)] = []


@routes.add("GET", "/v1/notifications")
async def list_notifications(call: Call, query: ListNotifications) -> NotificationPage:
    """List notifications by name, with how much waits for each and what became of the rest."""
    return queries.list_notifications(await call.read_state(query.consistency))


@routes.add("GET", "/v1/notifications/{name}")
async def show_notification(call: Call, name: str, query: ShowNotification) -> NotificationView:
    """Show a notification and its latest deliveries, the latest first."""
    states = [DeliveryState[each.upper()] for each in query.state]
    state = await call.read_state(query.consistency)
    return _find(state, name, states, query.limit)


@routes.add("POST", "/v1/notifications/{name}/retry")
async def retry_notifications(call: Call, name: str, body: RetryRequest) -> NotificationView:
    """Try deliveries again, now: those that have failed, and those that wait for their next attempt."""
    await call.propose(RetryNotifications(target=name, actor=call.actor, deliveries=tuple(body.deliveries)))
    return _shown(call, name)


@routes.add("POST", "/v1/notifications/{name}/test")
async def try_notification(call: Call, name: str) -> NotificationView:
    """Send a notice that says only that somebody tries it. It is the first of the deliveries that are shown."""
    await call.propose(TryNotification(target=name, actor=call.actor))
    return _shown(call, name)


def _find(state: State, name: str, states: list[DeliveryState], limit: int) -> NotificationView:
    """Raises NotFound."""
    view = queries.show_notification(state, name, states, limit)
    if view is None:
        hint = suggest_name(name, state.policies[PolicyKind.NOTIFICATION], "see `hasched notification list`")
        raise NotFound(f"there is no notification/{name[:128]}", hint, code="no_such_policy")
    return view


def _shown(call: Call, name: str) -> NotificationView:
    view = queries.show_notification(call.context.replica.state, name, [], 20)
    if view is None:
        raise OutcomeUnknown("it was done, and the policy deleted before it could be shown", "look again")
    return view
