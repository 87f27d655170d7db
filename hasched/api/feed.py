"""The recent events of this manager, and those who follow them.

Every manager applies the same entries, so an event has the same id on each and a reader goes on anywhere. The latest
events are kept as they are and turned into text when somebody first reads them. A reader holds a queue; one that falls
too far behind, or that would miss something, is ended and resumes after the id it saw last.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import NamedTuple

import msgspec

from hasched.model.errors import BadRequest, EventsCompacted
from hasched.model.spec import JobSpec
from hasched.raft.replica import Replica
from hasched.statemachine.apply import Applied
from hasched.statemachine.events import (
    AttemptEnded,
    ClockStepped,
    Event,
    JobSubmitted,
    SubmissionsForgotten,
    WatchStarted,
    view,
)
from hasched.statemachine.workflow_events import ExecutionAdvanced, ExecutionMemoRecalled

MAX_KEPT = 32_768
MAX_QUEUED = 65_536
END_OF_ENTRY = 2**31 - 1  # larger than the number of any event of an entry
HOUSEKEEPING = (ClockStepped, SubmissionsForgotten, WatchStarted, ExecutionAdvanced)  # of no interest outside

_encode = msgspec.json.Encoder().encode


class EventId(NamedTuple):
    """`LOG_INDEX.NUMBER`; ids grow in the order in which things happened."""

    log_index: int
    number: int

    def __str__(self) -> str:
        return f"{self.log_index}.{self.number}"


BEFORE_ALL = EventId(-1, 0)


def parse_event_id(text: str) -> EventId:
    """Raises BadRequest. A bare log index stands for the end of its entry, `held` for what comes before all that is held."""
    if text == "held":
        return BEFORE_ALL
    index, dot, number = text.partition(".")
    parts = (index, number) if dot else (index,)
    if not all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts):
        raise BadRequest(f"{text[:40]!r} is not an event's id", "send the id of the last event that you saw")
    return EventId(int(index), int(number) if dot else END_OF_ENTRY)


class Record(msgspec.Struct, gc=False):
    """One event: as it happened until it is read, then as text."""

    log_index: int
    number: int
    time_ms: int
    job_id: int | None
    type: str
    event: Event | None
    text: bytes = b""
    execution_id: int | None = None

    def render(self) -> bytes:
        """The event as a message of server-sent events."""
        if self.event is not None:
            shown = view(self.event, self.log_index, self.number, self.time_ms)
            self.text = b"id: %d.%d\ndata: %b\n\n" % (self.log_index, self.number, _encode(shown))
            self.event = None
        return self.text


class Wanted(NamedTuple):
    """Which events a reader wants: of a job, of an execution, of these types; or all."""

    job_id: int | None = None
    execution_id: int | None = None
    types: frozenset[str] = frozenset()


class Subscription:
    """The queue of one reader. Use it as a context manager, so that it ends with its reader."""

    def __init__(self, feed: EventFeed, after: EventId, wanted: Wanted) -> None:
        self._feed = feed
        self._after = after  # may lie ahead: another manager knew more
        self._types = wanted.types
        self._execution_id = wanted.execution_id
        self._queue: deque[Record] = deque()
        self._wake = asyncio.Event()
        self.job_id = wanted.job_id
        self.ended = ""  # why nothing more comes

    def push(self, record: Record) -> None:
        if (record.log_index, record.number) <= self._after or (self._types and record.type not in self._types):
            return
        if self._execution_id not in (None, record.execution_id):
            return
        if len(self._queue) >= MAX_QUEUED:
            self.end("the reader is too slow")
            return
        self._queue.append(record)
        self._wake.set()

    @property
    def waiting(self) -> int:
        """How many events are queued."""
        return len(self._queue)

    def end(self, reason: str) -> None:
        """What is queued is still read; nothing follows it."""
        self.ended = self.ended or reason
        self._wake.set()

    async def take(self, at_most: int) -> list[Record]:
        """What has happened since, at least one; none once it has ended."""
        while not self._queue:
            if self.ended:
                return []
            self._wake.clear()
            await self._wake.wait()
        taken = list(islice(self._queue, at_most))
        for _ in taken:
            self._queue.popleft()
        return taken

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.forget(self)


class EventFeed:
    """Follows `replica` from its making on; `capacity` events are kept."""

    def __init__(self, replica: Replica, capacity: int = MAX_KEPT) -> None:
        self._capacity = capacity
        self._kept: deque[Record] = deque()
        self._floor = self._last = replica.applied_index  # events up to the entry `_floor` are not held
        self._of_all: dict[int, Subscription] = {}
        self._of_job: dict[int, dict[int, Subscription]] = {}
        self._closed = False
        self._unsubscribe = replica.subscribe(self._observe)

    def follow(self, after: EventId | None, wanted: Wanted) -> Subscription:
        """What happens from now on, or after the event `after`. Raises EventsCompacted if some of that is gone."""
        job_id = wanted.job_id
        subscription = Subscription(self, after or EventId(0, 0), wanted)
        if after is not None:
            if after != BEFORE_ALL and self._floor and after < (self._floor, END_OF_ENTRY):
                raise EventsCompacted(
                    f"events up to log index {self._floor} are no longer held here",
                    "read the state anew, and follow from its applied index",
                )
            for record in self._kept:
                if job_id in (None, record.job_id):
                    subscription.push(record)
        if self._closed:
            subscription.end("the manager stops")
        elif job_id is None:
            self._of_all[id(subscription)] = subscription
        else:
            self._of_job.setdefault(job_id, {})[id(subscription)] = subscription
        return subscription

    def forget(self, subscription: Subscription) -> None:
        if subscription.job_id is None:
            self._of_all.pop(id(subscription), None)
            return
        readers = self._of_job.get(subscription.job_id, {})
        readers.pop(id(subscription), None)
        if not readers:
            self._of_job.pop(subscription.job_id, None)

    def close(self) -> None:
        """End every reader; there will be no more."""
        self._closed = True
        self._unsubscribe()
        self._end_all("the manager stops")

    def _end_all(self, reason: str) -> None:
        for readers in (self._of_all, *self._of_job.values()):
            for subscription in readers.values():
                subscription.end(reason)

    def _observe(self, applied: Applied) -> None:
        if applied.index != self._last + 1:
            # A snapshot stood for the entries between: nobody here can tell what happened in them.
            self._kept.clear()
            self._floor = applied.index
            self._end_all("this manager caught up by a snapshot")
        self._last = applied.index
        for number, event in enumerate(applied.events):
            if not isinstance(event, HOUSEKEEPING):
                self._keep(applied, number, event)
        while len(self._kept) > self._capacity:
            self._floor = self._kept[0].log_index
            while self._kept and self._kept[0].log_index == self._floor:
                self._kept.popleft()

    def _keep(self, applied: Applied, number: int, event: Event) -> None:
        job_id: int | None = getattr(event, "job_id", None)
        record = Record(applied.index, number, applied.now_ms, job_id, type(event).__name__, _lighten(event))
        record.execution_id = getattr(event, "execution_id", None)
        if isinstance(event, AttemptEnded) and event.output:
            record.render()
        self._kept.append(record)
        for subscription in self._of_all.values():
            subscription.push(record)
        if job_id is not None and (readers := self._of_job.get(job_id)):
            for subscription in readers.values():
                subscription.push(record)


def _lighten(event: Event) -> Event:
    """The event without the parts of a spec that no feed shows: they may be large."""
    if isinstance(event, JobSubmitted):
        spec = event.spec
        shown = JobSpec(name=spec.name, queue=spec.queue, priority=spec.priority, count=spec.count)
        return JobSubmitted(event.job_id, event.submission_id, event.actor, shown, event.parent)
    if isinstance(event, ExecutionMemoRecalled):
        return msgspec.structs.replace(event, output=None)
    return event
