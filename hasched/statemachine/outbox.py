"""The outbox: notices on their way to those who are to be told, in a lane for each notification policy.

A lane holds so many that wait and remembers so many that are over. What doesn't fit is dropped, counted, and told of once there
is room; so a receiver that is dead for a week costs a bounded piece of memory, and only its own notices.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from hasched.model.notices import DeliveryState, Notice

MAX_WAITING = 2_000  # in a lane
MAX_OVER = 100  # in a lane, the latest that were delivered, and as many that failed


class Delivery(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A notice for one target. Replaced whole with every change. Field order is the snapshot format."""

    id: int
    target: str
    notice: Notice
    queued_ms: int  # since when it is tried
    next_ms: int  # when it is tried next
    log_index: int  # of its last change
    state: DeliveryState = DeliveryState.WAITING
    attempts: int = 0
    error: str = ""  # of the last attempt
    ended_ms: int = 0


class LaneRecord(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot holds of a lane beside its deliveries."""

    target: str
    delivered: int
    failed: int
    dropped: int
    untold: int


class Lane:
    """The deliveries of one target."""

    __slots__ = ("delivered", "dropped", "failed", "over", "untold", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[int, Delivery] = {}  # by id, ascending but for those that were tried again
        self.over: dict[DeliveryState, dict[int, Delivery]] = {  # the latest, the earliest end first
            DeliveryState.DELIVERED: {},
            DeliveryState.FAILED: {},
        }
        self.delivered = 0  # ever
        self.failed = 0
        self.dropped = 0
        self.untold = 0  # dropped ones that the target hasn't been told of

    @property
    def full(self) -> bool:
        return len(self.waiting) >= MAX_WAITING

    def deliveries(self) -> Iterator[Delivery]:
        yield from self.waiting.values()
        for table in self.over.values():
            yield from table.values()

    def end(self, delivery: Delivery) -> None:
        """It was delivered, or is given up."""
        self.waiting.pop(delivery.id, None)
        table = self.over[delivery.state]
        table[delivery.id] = delivery
        if len(table) > MAX_OVER:
            del table[next(iter(table))]


class Outbox:
    def __init__(self) -> None:
        self.next_id = 1
        self.lanes: dict[str, Lane] = {}  # of targets that something was ever queued for

    def lane(self, target: str) -> Lane:
        """The lane of a target, made if there is none."""
        lane = self.lanes.get(target)
        if lane is None:
            lane = self.lanes[target] = Lane()
        return lane

    def waiting(self, target: str) -> dict[int, Delivery]:
        lane = self.lanes.get(target)
        return lane.waiting if lane is not None else {}

    def is_full(self, target: str) -> bool:
        lane = self.lanes.get(target)
        return lane is not None and lane.full

    # ── Snapshots ───────────────────────────────────────────────────────────────────────────────────────────────────

    def records(self) -> list[LaneRecord]:
        return [
            LaneRecord(target, lane.delivered, lane.failed, lane.dropped, lane.untold)
            for target, lane in sorted(self.lanes.items())
        ]

    def deliveries(self) -> list[Delivery]:
        """All of them, lane by lane; those that are over in the order of their ends."""
        return [delivery for _, lane in sorted(self.lanes.items()) for delivery in lane.deliveries()]

    def open(self, next_id: int, records: list[LaneRecord]) -> None:
        self.next_id = next_id
        for record in records:
            lane = self.lane(record.target)
            lane.delivered, lane.failed = record.delivered, record.failed
            lane.dropped, lane.untold = record.dropped, record.untold

    def take_in(self, delivery: Delivery, known: dict[str, Notice]) -> None:
        """One that was read. Raises KeyError for a lane that isn't there.

        `known` are the notices of those before it, by event: many targets are told of the same, and share it in memory.
        """
        lane = self.lanes[delivery.target]
        notice = known.setdefault(delivery.notice.event, delivery.notice)
        if notice is not delivery.notice and notice == delivery.notice:
            delivery = msgspec.structs.replace(delivery, notice=notice)
        if delivery.state is DeliveryState.WAITING:
            lane.waiting[delivery.id] = delivery
        else:
            lane.over[delivery.state][delivery.id] = delivery
