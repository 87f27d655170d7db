"""Weeks: from Monday to Monday, UTC, numbered from the one that holds the epoch. Time is an input here, as everywhere."""

from __future__ import annotations

from collections.abc import Iterator

from hasched.model.units import MAX_INTEGER

WEEK_MS = 7 * 86_400_000
_FIRST_MONDAY_MS = -3 * 86_400_000  # 1970-01-01 was a Thursday


def week_of(time_ms: int) -> int:
    return (time_ms - _FIRST_MONDAY_MS) // WEEK_MS


def start_of_week(week: int) -> int:
    """In ms since the epoch."""
    return week * WEEK_MS + _FIRST_MONDAY_MS


def split_by_week(start_ms: int, end_ms: int) -> Iterator[tuple[int, int]]:
    """Each week that the span touches, with how many ms of the span are in it."""
    week = week_of(start_ms)
    while start_ms < end_ms:
        next_ms = min(end_ms, start_of_week(week + 1))
        yield week, next_ms - start_ms
        start_ms, week = next_ms, week + 1


class WeekMeter:
    """What some tasks have used of the week that it is: ended ones, and running ones up to any moment, in O(1)."""

    __slots__ = ("done", "rate", "starts", "week")

    def __init__(self) -> None:
        self.week = 0
        self.done = 0  # amount x ms, of what has ended; MAX_INTEGER is as good as more
        self.rate = 0  # the amount that is held now
        self.starts = 0  # the sum of amount x when it began, or when the week did if that was later

    def turn(self, now_ms: int) -> None:
        """It is so late."""
        week = week_of(now_ms)
        if week > self.week:
            self.week, self.done, self.starts = week, 0, self.rate * start_of_week(week)

    def start(self, amount: int, start_ms: int) -> None:
        self.turn(start_ms)
        self.rate += amount
        self.starts += amount * max(start_ms, start_of_week(self.week))

    def end(self, amount: int, start_ms: int, now_ms: int, *, kept: bool = True) -> None:
        """Without `kept`, as if it had never run: so it is after a restore, which finds no trace of it in the ledger."""
        self.turn(now_ms)
        begun_ms = max(start_ms, start_of_week(self.week))
        self.rate -= amount
        self.starts -= amount * begun_ms
        if kept:
            self.done = min(self.done + amount * (now_ms - begun_ms), MAX_INTEGER)

    def used(self, now_ms: int) -> int:
        """Amount x ms in the week that holds `now_ms`."""
        week = week_of(now_ms)
        if week > self.week:
            return self.rate * (now_ms - start_of_week(week))
        return self.done + self.rate * now_ms - self.starts

    def is_idle(self, now_ms: int) -> bool:
        """Whether nothing is held, and nothing was in the week that holds `now_ms`."""
        return not self.rate and not self.used(now_ms)

    def add(self, other: WeekMeter, now_ms: int, sign: int = 1) -> None:
        """Count what the other has counted too; with the sign -1, not any more."""
        self.turn(now_ms)
        other.turn(now_ms)
        self.done = max(0, min(self.done + sign * other.done, MAX_INTEGER))
        self.rate += sign * other.rate
        self.starts += sign * other.starts
