"""A schedule as the state holds it: what it says, how far its slots are planned, and what became of them.

Replaced whole with every change, so that a snapshot in progress keeps the one that it has. Its jobs are found by their parent
(`State.schedule_jobs`), and not repeated here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

import msgspec

from hasched.model.schedule import NEVER_MS, CatchUp, Overlap, ScheduleSpec, SlotOutcome, Verdict

MAX_ROWS = 400  # of a schedule's ledger, the latest
OUTCOMES = len(SlotOutcome)
PARENT = "schedule/"
SLOTS_TOLD_SINCE = (
    4  # the version of entries; before, executions and their jobs didn't know their slot, nor rows their execution
)
SLOT_VARIABLE = "HASCHED_SLOT"
SCHEDULE_VARIABLE = "HASCHED_SCHEDULE"

_BY_VERDICT: dict[int, SlotOutcome | None] = {
    Verdict.DUE: None,
    Verdict.BLACKOUT: SlotOutcome.BLACKOUT,
    Verdict.HOLIDAY: SlotOutcome.HOLIDAY,
}
_ROW = struct.Struct("<QQQQIB")  # first slot, how far apart, when settled, job, how many, outcome


class Pending(NamedTuple):
    """A slot that was planned and is not settled. They stand in this order."""

    fire_ms: int  # when it is due, jitter and all
    slot_ms: int
    verdict: int  # of the timetable


class Waiting(NamedTuple):
    """A slot that is fired when what runs has ended."""

    slot_ms: int
    outcome: int  # what it will be


class Row(NamedTuple):
    """What became of a slot, or of `number` that were skipped for the same reason, `step_ms` apart."""

    first_ms: int
    step_ms: int
    settled_ms: int
    run_id: int  # its job, or its execution since SLOTS_TOLD_SINCE; 0: none
    number: int
    outcome: SlotOutcome

    def joined(self, other: Row) -> Row | None:
        """Both as one, if the other goes on where this ends."""
        if self.outcome.fired or self.outcome is not other.outcome:
            return None
        gap_ms = other.first_ms - self.first_ms - (self.number - 1) * self.step_ms
        if gap_ms <= 0 or any(each.number > 1 and each.step_ms != gap_ms for each in (self, other)):
            return None
        return other._replace(first_ms=self.first_ms, step_ms=gap_ms, number=self.number + other.number)


class Pause(msgspec.Struct, frozen=True, array_like=True):
    actor: str
    reason: str
    since_ms: int


class Schedule(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Field order is the snapshot format: new ones go last, with a default."""

    name: str
    spec: ScheduleSpec
    actor: str  # who put it last: its jobs are his
    created_ms: int
    changed_ms: int
    revision: int  # the log index of the entry that put it last
    planned_ms: int  # every slot up to here is settled, pending or waiting; no later one is
    log_index: int  # of its last change of any kind
    pending: tuple[Pending, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    pause: Pause | None = None
    rows: bytes = b""  # packed, the oldest first
    counts: tuple[int, ...] = (0,) * OUTCOMES  # slots by outcome, ever
    watched_ms: int = 0  # since when a run is missing: the last success, or since it is watched
    succeeded_ms: int = 0  # when a run of it succeeded last
    late: bool = False  # the last slot that was fired was late
    missing: bool = False  # no run has succeeded for too long
    refusal: str = ""  # why a slot was refused last
    due_ms: int = 0  # when the clock has something to do for it; 0: nothing is to come

    def find_due(self, now_ms: int, running: bool) -> int:
        """When the clock has to look at it next; 0: not before something else happens to it."""
        due: list[int] = []
        if self.pending and (self.planned_ms >= now_ms or self.pending[0].fire_ms > now_ms):
            due.append(self.pending[0].fire_ms)
        elif self.pending:  # what is late is held until the leader has planned what else is due
            due += [each.fire_ms for each in self.pending if each.fire_ms >= now_ms - self.spec.grace_ms][:1]
        if self.waiting and self.pause is None and (self.spec.overlap is Overlap.ALLOW or not running):
            due.append(now_ms)
        if self.spec.missing_ms and not self.missing and self.pause is None:
            due.append(self.watched_ms + self.spec.missing_ms)
        return min(due, default=0)

    def ledger(self) -> Iterator[Row]:
        """The latest first."""
        for place in range(len(self.rows) - _ROW.size, -1, -_ROW.size):
            first_ms, step_ms, settled_ms, job_id, number, outcome = _ROW.unpack_from(self.rows, place)
            yield Row(first_ms, step_ms, settled_ms, job_id, number, SlotOutcome(outcome))

    def with_row(self, row: Row) -> bytes:
        """The rows with one more. A skip that goes on where the last row ends is added to that."""
        rows = self.rows
        last = None if row.outcome.fired else next(self.ledger(), None)
        if last is not None and (joined := last.joined(row)) is not None:
            rows, row = rows[: -_ROW.size], joined
        return (rows + _ROW.pack(*row))[-MAX_ROWS * _ROW.size :]


def due_of(pending: Sequence[Pending], now_ms: int) -> list[Pending]:
    """Those that are due by now."""
    return list(takewhile(lambda each: each.fire_ms <= now_ms, pending))


def parent_of(name: str, slot_ms: int) -> str:
    """What the jobs of a slot have as their parent."""
    return f"{PARENT}{name}@{slot_ms}"


def parse_parent(parent: str) -> tuple[str, int] | None:
    """The schedule and the slot of a job, None if no schedule has made it."""
    if not parent.startswith(PARENT):
        return None
    name, _, slot = parent.removeprefix(PARENT).rpartition("@")
    return name, int(slot)


def submission_of(name: str, slot_ms: int) -> str:
    """The submission id of what a slot makes when it is due."""
    return f"schedule {name} {slot_ms}"


def is_sound_ledger(schedule: Schedule) -> bool:
    """Whether the packed rows can be read."""
    whole = len(schedule.rows) % _ROW.size == 0 and len(schedule.rows) <= MAX_ROWS * _ROW.size
    outcomes = schedule.rows[_ROW.size - 1 :: _ROW.size]
    return whole and all(outcome < OUTCOMES for outcome in outcomes) and len(schedule.counts) <= OUTCOMES


def late_kept(spec: ScheduleSpec) -> int:
    """How many slots that are too late are fired nonetheless."""
    return {CatchUp.SKIP: 0, CatchUp.LATEST: 1, CatchUp.ALL: spec.catch_up_limit}[spec.catch_up]


def outcome_of(verdict: int) -> SlotOutcome | None:
    """What becomes of a slot by the timetable's verdict alone; None: it is due."""
    return _BY_VERDICT[verdict]


def is_over(schedule: Schedule) -> bool:
    """Whether no slot is to come any more."""
    return schedule.planned_ms >= NEVER_MS and not schedule.pending and not schedule.waiting
