"""Notifications: what an event puts into the outbox, and what becomes of it.

Whoever leads delivers what waits and reports each attempt; a report counts once, for the attempt that it names. So what a leader
has delivered and not reported when it dies is delivered again by the next, with the same id, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from hasched.model.notices import DROPPED_TOPIC, MAX_NOTICE_TEXT, TEST_TOPIC, DeliveryState, Notice, NotifyRule
from hasched.model.policy import Notification, PolicyKind
from hasched.model.workflow import WorkflowSpec, told_within
from hasched.statemachine.commands import RetryNotifications, SettleDeliveries, Settlement, TryNotification
from hasched.statemachine.events import Event
from hasched.statemachine.notices import describe, rule_of, topic_of
from hasched.statemachine.notification_events import (
    NotificationDelayed,
    NotificationDelivered,
    NotificationDropped,
    NotificationFailed,
    NotificationQueued,
    NotificationRetried,
    NotificationsDiscarded,
)
from hasched.statemachine.outbox import MAX_WAITING, Delivery, Lane
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.policies import find_policy
from hasched.statemachine.rules import Decision
from hasched.statemachine.state import State

# The version of entries. Before, notifications that were named could be deleted, and jobs of workflows were looked at late.
TOLD_HELD_SINCE = 4
MAX_SETTLED = 1000  # in one command
MAX_DOUBLINGS = 40  # more would only make large numbers


def decide_notices(state: State, event: Event, number: int) -> list[Event]:
    """What an event that has just happened, the `number`th of its entry, puts into the outbox. Reads only."""
    policies = state.policies[PolicyKind.NOTIFICATION]
    if not policies or (topic := topic_of(state, event)) is None:
        return []
    notice = describe(state, event, topic, f"{state.index}.{number}")
    named = rule_of(state, event, topic)
    found: list[Event] = []
    delivery_id = state.outbox.next_id
    for name, record in sorted(policies.items()):
        body = record.body
        assert isinstance(body, Notification), "the table of notifications holds notifications"
        if not (topic in body.events or name in named) or not body.serves(notice.namespace):
            continue
        if state.outbox.is_full(name):
            found.append(NotificationDropped(name, topic, notice.event))
        else:
            found.append(NotificationQueued(delivery_id, name, notice))
            delivery_id += 1
    return found


def refuse_unknown(state: State, rule: NotifyRule | None, namespace: str) -> Rejected | None:
    """The refusal of what names a target that is not there, or not for its namespace."""
    for name in rule.targets if rule is not None else ():
        target = find_policy(state.policies, Notification, name)
        if target is None:
            cause = f"there is no notification {name[:128]}"
            return Rejected("unknown_notification", cause, "see `hasched notification list`")
        if not target.serves(namespace):
            cause = f"notification/{name} tells nothing of namespace {namespace}"
            return Rejected("unknown_notification", cause, "see `hasched policy get notification NAME`")
    return None


def refuse_unknown_within(state: State, spec: WorkflowSpec) -> Rejected | None:
    """The same of a workflow, and of the workflows and jobs within it, which begin only later."""
    told = told_within(spec, jobs=state.entry_version >= TOLD_HELD_SINCE)
    found = (refuse_unknown(state, rule, namespace) for rule, namespace in told)
    return next(filter(None, found), None)


def decide_test(state: State, command: TryNotification, number: int) -> Decision | Rejected:
    if command.target not in state.policies[PolicyKind.NOTIFICATION]:
        return _no_such(command.target)
    if state.outbox.is_full(command.target):
        cause = f"{MAX_WAITING} notices wait for notification/{command.target} already"
        return Rejected("outbox_full", cause, "see why with `hasched notification show`")
    notice = Notice(topic=TEST_TOPIC, event=f"{state.index}.{number}", time_ms=state.now_ms, actor=command.actor)
    return Decision([NotificationQueued(state.outbox.next_id, command.target, notice)])


def decide_retry(state: State, command: RetryNotifications) -> Decision | Rejected:
    if command.target not in state.policies[PolicyKind.NOTIFICATION]:
        return _no_such(command.target)
    lane = state.outbox.lanes.get(command.target) or Lane()
    failed = lane.over[DeliveryState.FAILED]
    for delivery_id in command.deliveries:
        if delivery_id not in failed and delivery_id not in lane.waiting:
            cause = f"notification/{command.target} has no delivery {delivery_id} that waits or has failed"
            return Rejected("no_such_delivery", cause, "see `hasched notification show`")
    wanted = command.deliveries or tuple(lane.waiting) + tuple(failed)
    room = MAX_WAITING - len(lane.waiting)
    again = [delivery_id for delivery_id in dict.fromkeys(wanted) if delivery_id in failed][:room]
    now = [delivery_id for delivery_id in dict.fromkeys(wanted) if delivery_id in lane.waiting]
    if not again and not now:
        return Decision([])
    return Decision([NotificationRetried(command.target, tuple(sorted((*now, *again))), command.actor)])


def decide_settle(state: State, command: SettleDeliveries, number: int) -> Decision:
    """The leader's report of attempts. What was reported before, or isn't there any more, is passed over.

    `number` is that of its first event in the entry: notices have ids by it, and no two the same.
    """
    found: list[Event] = []
    touched: dict[str, int] = {}  # how many leave each lane
    seen: dict[int, None] = {}
    for settled in command.settled[:MAX_SETTLED]:
        delivery = state.outbox.waiting(settled.target).get(settled.delivery_id)
        if delivery is None or settled.attempt != delivery.attempts + 1 or settled.delivery_id in seen:
            continue
        seen[settled.delivery_id] = None
        event = _settle(state, delivery, settled)
        touched[delivery.target] = touched.get(delivery.target, 0) + (not isinstance(event, NotificationDelayed))
        found.append(event)
    delivery_id = state.outbox.next_id
    for target, leaving in touched.items():
        lane = state.outbox.lanes[target]
        if lane.untold and leaving and len(lane.waiting) - leaving < MAX_WAITING:
            told = Notice(
                topic=DROPPED_TOPIC,
                event=f"{state.index}.{number + len(found)}",
                time_ms=state.now_ms,
                count=lane.untold,
            )
            found.append(NotificationQueued(delivery_id, target, told))
            delivery_id += 1
    return Decision(found)


def _settle(state: State, delivery: Delivery, settled: Settlement) -> Event:
    target, attempt = delivery.target, settled.attempt
    if settled.delivered:
        return NotificationDelivered(delivery.id, target, attempt)
    error = settled.error[:MAX_NOTICE_TEXT]
    body = find_policy(state.policies, Notification, target)
    assert body is not None, "a lane goes with its policy"
    grown_ms = body.retry_after_ms << min(delivery.attempts, MAX_DOUBLINGS)
    wait_ms = min(max(grown_ms, settled.wait_ms), body.retry_at_most_ms)
    if state.now_ms + wait_ms > delivery.queued_ms + body.give_up_after_ms:
        return NotificationFailed(delivery.id, target, attempt, error)
    return NotificationDelayed(delivery.id, target, attempt, error, state.now_ms + wait_ms)


def decide_discard(state: State, target: str) -> Iterator[Event]:
    """The policy of a target goes: what waits for it will reach nobody."""
    if waiting := len(state.outbox.waiting(target)):
        yield NotificationsDiscarded(target, waiting)


def _no_such(target: str) -> Rejected:
    return Rejected("no_such_policy", f"there is no notification/{target[:128]}", "see `hasched notification list`")


# ── Performing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def evolve_queued(state: State, event: NotificationQueued) -> None:
    outbox = state.outbox
    lane = outbox.lane(event.target)
    lane.waiting[event.delivery_id] = Delivery(
        event.delivery_id, event.target, event.notice, state.now_ms, state.now_ms, state.index
    )
    outbox.next_id = event.delivery_id + 1
    if event.notice.topic == DROPPED_TOPIC:
        lane.untold = 0


def evolve_dropped(state: State, event: NotificationDropped) -> None:
    lane = state.outbox.lane(event.target)
    lane.dropped += 1
    lane.untold += 1


def evolve_ended(state: State, event: NotificationDelivered | NotificationFailed) -> None:
    lane = state.outbox.lanes[event.target]
    if isinstance(event, NotificationDelivered):
        lane.delivered += 1
        end, error = DeliveryState.DELIVERED, ""
    else:
        lane.failed += 1
        end, error = DeliveryState.FAILED, event.error
    lane.end(
        msgspec.structs.replace(
            lane.waiting[event.delivery_id],
            state=end,
            attempts=event.delivery_attempt,
            error=error,
            next_ms=0,
            ended_ms=state.now_ms,
            log_index=state.index,
        )
    )


def evolve_delayed(state: State, event: NotificationDelayed) -> None:
    waiting = state.outbox.lanes[event.target].waiting
    waiting[event.delivery_id] = msgspec.structs.replace(
        waiting[event.delivery_id],
        attempts=event.delivery_attempt,
        error=event.error,
        next_ms=event.next_ms,
        log_index=state.index,
    )


def evolve_retried(state: State, event: NotificationRetried) -> None:
    """They are tried at once, and for as long as new ones would be."""
    lane = state.outbox.lanes[event.target]
    for delivery_id in event.deliveries:
        delivery = lane.waiting.get(delivery_id) or lane.over[DeliveryState.FAILED].pop(delivery_id)
        lane.waiting[delivery_id] = msgspec.structs.replace(
            delivery,
            state=DeliveryState.WAITING,
            queued_ms=state.now_ms,
            next_ms=state.now_ms,
            ended_ms=0,
            log_index=state.index,
        )


def forget_target(state: State, target: str) -> None:
    """The policy of a target is gone."""
    state.outbox.lanes.pop(target, None)
