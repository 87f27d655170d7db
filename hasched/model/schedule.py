"""Schedules: when work is due by itself, what becomes of a time at which it can't be, and what is submitted then.

A time at which a schedule is due is a slot, named by its instant in UTC. `hasched.timetable` works out slots; here is only what
a schedule says. A `Struct(...)` call does not validate: what comes from outside goes through `parse_schedule`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import msgspec

from hasched.model.spec import DEFAULT_NAMESPACE, JobSpec
from hasched.model.workflow import WorkflowSpec

MAX_JITTER_MS = 3_600_000
MAX_QUEUE = 100  # slots that wait for an earlier run
MAX_CATCH_UP = 1000
NEVER_MS = 2**52  # no slot is due after it


class CatchUp(StrEnum):
    """What becomes of slots that could not be fired within the grace, because no majority of managers ran."""

    SKIP = "skip"
    LATEST = "latest"  # fire the latest of them, unless another is due meanwhile
    ALL = "all"  # fire them all, of very many the latest `catch_up_limit`


class Overlap(StrEnum):
    """What becomes of a slot that is due while a job of the schedule has not ended."""

    ALLOW = "allow"
    FORBID = "forbid"  # it is skipped
    QUEUE = "queue"  # it waits for the end of what runs
    REPLACE = "replace"  # what runs is cancelled, and then it is fired


class Verdict(IntEnum):
    """What the timetable says of a slot."""

    DUE = 0
    BLACKOUT = 1
    HOLIDAY = 2


class SlotOutcome(IntEnum):
    """What became of a slot. The numbers are in logs and snapshots."""

    FIRED = 0
    CAUGHT_UP = 1  # fired later than the grace
    BACKFILLED = 2  # fired because somebody asked for it afterwards
    PAUSED = 3  # this one and the following were skipped
    OVERLAP = 4
    QUEUE_FULL = 5
    REPLACED = 6
    BLACKOUT = 7
    HOLIDAY = 8
    MISSED = 9
    REFUSED = 10

    @property
    def fired(self) -> bool:
        return self <= SlotOutcome.BACKFILLED


class Calendar(msgspec.Struct, frozen=True, omit_defaults=True):
    """Business days: the weekdays (0 is Monday), less the dates of `closed`, and those of `open`. Dates count days since 1970."""

    weekdays: tuple[int, ...] = (0, 1, 2, 3, 4)
    closed: tuple[int, ...] = ()
    open: tuple[int, ...] = ()

    def is_open(self, day: int) -> bool:
        """Whether the day, counted from 1970-01-01, is a business day."""
        return day in self.open or ((day + 3) % 7 in self.weekdays and day not in self.closed)


class Blackout(msgspec.Struct, frozen=True, omit_defaults=True):
    """When nothing is fired: from one instant to another, or from one second of the local day to another.

    The latter on some weekdays (0 is Monday; none given: on all), by the day on which it begins; it may end on the next.
    """

    from_ms: int = 0
    until_ms: int = 0
    from_s: int = 0
    until_s: int = 0
    weekdays: tuple[int, ...] = ()


class WorkflowTarget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A workflow with its parameters, as it was when the schedule was put."""

    spec: WorkflowSpec
    params: tuple[tuple[str, Any], ...] = ()
    version: int = 0  # of the workflow template; 0: it came with its document


class ScheduleSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of `cron`, `every_ms` and `at` says when. Times are ms since the epoch."""

    cron: str = ""
    every_ms: int = 0
    at: tuple[int, ...] = ()
    timezone: str = "UTC"
    start_ms: int = 0  # no slot before; an interval counts from it, else from when the schedule was made
    end_ms: int = 0  # no slot at or after; 0: none
    jitter_ms: int = 0  # each slot is fired so much later at most
    calendar: Calendar | None = None
    blackouts: tuple[Blackout, ...] = ()
    catch_up: CatchUp = CatchUp.LATEST
    catch_up_limit: int = 100
    grace_ms: int = 60_000  # so late a slot is fired whatever `catch_up` says
    overlap: Overlap = Overlap.ALLOW
    queue_limit: int = 10
    late_ms: int = 60_000  # alert when a slot is fired so late; 0: never
    missing_ms: int = 0  # alert when no run has succeeded for so long; 0: never
    description: str = ""
    job: JobSpec | None = None  # what each slot submits: this,
    workflow: WorkflowTarget | None = None  # or an execution of this

    @property
    def namespace(self) -> str:
        """Whose work it is."""
        if self.job is not None:
            return self.job.namespace
        return self.workflow.spec.namespace if self.workflow is not None else DEFAULT_NAMESPACE

    @property
    def timeout_ms(self) -> int:
        """How long a run may take at most, by what it says itself; 0: no matter how long."""
        if self.job is not None:
            return self.job.timeout_ms
        return self.workflow.spec.timeout_ms if self.workflow is not None else 0


class SlotRun(NamedTuple):
    """`number` slots, `step_ms` apart, with one verdict."""

    first_ms: int
    step_ms: int
    number: int
    verdict: int = 0

    @property
    def last_ms(self) -> int:
        return self.first_ms + (self.number - 1) * self.step_ms

    def split(self, before_ms: int) -> tuple[SlotRun | None, SlotRun | None]:
        """What of it is earlier than a time, and what isn't."""
        if self.last_ms < before_ms:
            return self, None
        if self.first_ms >= before_ms:
            return None, self
        return self.cut((before_ms - 1 - self.first_ms) // self.step_ms + 1)

    def cut(self, number: int) -> tuple[SlotRun | None, SlotRun | None]:
        """Its first slots, so many, and the others."""
        if number <= 0 or number >= self.number:
            return (None, self) if number <= 0 else (self, None)
        later = self.first_ms + number * self.step_ms
        return self._replace(number=number), self._replace(first_ms=later, number=self.number - number)

    def slots(self) -> range:
        """Its instants, ascending."""
        return range(self.first_ms, self.last_ms + 1, self.step_ms or 1)


def gather(slots: Iterable[tuple[int, int]]) -> list[SlotRun]:
    """Slots with their verdicts, ascending, as few runs."""
    runs: list[SlotRun] = []
    for slot_ms, verdict in slots:
        last = runs[-1] if runs else None
        if last is not None and last.verdict == verdict:
            gap_ms = slot_ms - last.last_ms
            if last.number == 1 or gap_ms == last.step_ms:
                runs[-1] = SlotRun(last.first_ms, gap_ms, last.number + 1, verdict)
                continue
        runs.append(SlotRun(slot_ms, 0, 1, verdict))
    return runs


def jitter_of(name: str, slot_ms: int, jitter_ms: int) -> int:
    """By how much a slot is fired later than it is due: the same on every manager, and spread evenly over schedules."""
    if not jitter_ms:
        return 0
    drawn = hashlib.blake2b(f"{name} {slot_ms}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") % jitter_ms
