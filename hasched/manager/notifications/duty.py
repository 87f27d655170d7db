"""The notifications duty: delivers what waits in the outbox, and reports each attempt into the log.

The state says what waits and when it is tried next, so a new leader goes on where the last one stopped; what that one delivered
and had not reported, it delivers again. Each target has attempts of its own, so one that is dead or slow holds up nobody else.
What waits is kept in the order in which it comes due: an entry costs what it queues, however much waits already.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable

import structlog

from hasched.manager.notifications.courier import Messenger, Sent
from hasched.model.errors import HaschedError
from hasched.model.policy import Notification
from hasched.raft.replica import Replica
from hasched.statemachine.apply import Applied
from hasched.statemachine.commands import SettleDeliveries, Settlement
from hasched.statemachine.notification_events import NotificationDelayed, NotificationQueued, NotificationRetried
from hasched.statemachine.outbox import Delivery
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.policies import find_policy

MAX_REPORTED = 200  # attempts in one command, each with its error
MAX_AT_ONCE = 8  # attempts of one target
PAUSE_S = 0.02  # between looks: what is queued meanwhile shares one
LONGEST_SLEEP_S = 1.0  # the wall clock may be set ahead while we sleep
REPORT_AGAIN_S = 0.2

log = structlog.get_logger(__name__)


class NotificationDuty:
    """Delivers for as long as it runs, which is once."""

    def __init__(self, replica: Replica, make_messenger: Callable[[], Messenger]) -> None:
        self._replica = replica
        self._make_messenger = make_messenger
        self._changed = asyncio.Event()
        self._attempted = asyncio.Event()
        self._busy: dict[int, int] = {}  # deliveries that are attempted, or whose attempt isn't in the state yet: which
        self._running: Counter[str] = Counter()  # how many of these, by target
        self._results: list[Settlement] = []
        self._due: dict[str, list[tuple[int, int]]] = {}  # heaps of (when, delivery), by target; may hold what is over

    @property
    def woken(self) -> bool:
        """Whether something has happened that it is about to look at."""
        return self._changed.is_set()

    async def run(self) -> None:
        unsubscribe = self._replica.subscribe(self._observe)
        for lane in self._replica.state.outbox.lanes.values():
            for delivery in lane.waiting.values():
                self._expect(delivery)
        messenger = self._make_messenger()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._report())
                while True:
                    self._changed.clear()
                    wait_s = self._start_due(group, messenger)
                    try:
                        async with asyncio.timeout(wait_s):
                            await self._changed.wait()
                    except TimeoutError:
                        continue
                    await asyncio.sleep(PAUSE_S)
        finally:
            unsubscribe()
            await messenger.close()

    def _start_due(self, group: asyncio.TaskGroup, messenger: Messenger) -> float | None:
        """Begin the attempts that are due, and say when to look again; None: when something has changed."""
        state, now_ms = self._replica.state, self._replica.clock_ms()
        next_ms: int | None = None
        if not state.origin:  # a cluster's first moment: ids are made of it
            return LONGEST_SLEEP_S
        for target, due in list(self._due.items()):
            body = find_policy(state.policies, Notification, target)
            waiting = state.outbox.waiting(target)
            while due and self._running[target] < MAX_AT_ONCE:
                due_ms, delivery_id = due[0]
                delivery = waiting.get(delivery_id)
                if body is None or delivery is None or delivery.next_ms != due_ms or delivery_id in self._busy:
                    heapq.heappop(due)  # it is over, or will be expected anew
                    continue
                if due_ms > now_ms:
                    next_ms = due_ms if next_ms is None else min(next_ms, due_ms)
                    break
                heapq.heappop(due)
                self._busy[delivery_id] = delivery.attempts + 1
                self._running[target] += 1
                group.create_task(self._attempt(messenger, body, state.origin, delivery))
            if not due:
                del self._due[target]
        return None if next_ms is None else min(max((next_ms - now_ms) / 1000, PAUSE_S), LONGEST_SLEEP_S)

    async def _attempt(self, messenger: Messenger, body: Notification, origin: str, delivery: Delivery) -> None:
        try:
            sent = await messenger.send(body, origin, delivery.notice)
        except Exception as error:  # a mistake of ours must not keep others from being told
            log.exception("notification_failed", target=delivery.target, delivery=delivery.id)
            sent = Sent(False, f"internal: {type(error).__name__}")
        if not sent.delivered:
            log.warning(
                "notification_not_delivered", target=delivery.target, about=delivery.notice.event, cause=sent.error
            )
        attempt = self._busy[delivery.id]
        self._results.append(
            Settlement(delivery.target, delivery.id, attempt, sent.delivered, sent.error, sent.wait_ms)
        )
        self._attempted.set()

    async def _report(self) -> None:
        """Each result stays until the state has taken it."""
        while True:
            await self._attempted.wait()
            self._attempted.clear()
            while self._results:
                some = self._results[:MAX_REPORTED]
                try:
                    outcome = await self._replica.propose(SettleDeliveries(settled=tuple(some)))
                except HaschedError as error:
                    log.warning("deliveries_not_reported", number=len(some), code=error.code, cause=error.cause)
                    await asyncio.sleep(REPORT_AGAIN_S)
                    continue
                if isinstance(outcome, Rejected):
                    log.error("deliveries_not_reported", number=len(some), code=outcome.code, cause=outcome.cause)
                del self._results[: len(some)]
                for settled in some:
                    del self._busy[settled.delivery_id]
                    self._running[settled.target] -= 1
                    delivery = self._replica.state.outbox.waiting(settled.target).get(settled.delivery_id)
                    if delivery is not None:
                        self._expect(delivery)
                self._changed.set()

    def _observe(self, applied: Applied) -> None:
        outbox = self._replica.state.outbox
        if not outbox.lanes:
            return
        for event in applied.events:
            if isinstance(event, NotificationQueued | NotificationDelayed | NotificationRetried):
                known = event.deliveries if isinstance(event, NotificationRetried) else (event.delivery_id,)
                waiting = outbox.waiting(event.target)
                for delivery in filter(None, map(waiting.get, known)):
                    self._expect(delivery)
                self._changed.set()

    def _expect(self, delivery: Delivery) -> None:
        heapq.heappush(self._due.setdefault(delivery.target, []), (delivery.next_ms, delivery.id))
