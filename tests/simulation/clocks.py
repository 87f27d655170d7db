"""The clocks of a simulated host: one that never goes back, and the wall's, which may be wrong and may be set."""

from __future__ import annotations

from random import Random
from typing import Protocol

READING_S = 1e-6  # no two readings are the same: whatever happens between two looks takes time
EPOCH_MS = 1_760_000_000_000  # the wall clock of a host that is right, at the beginning of a run


class Time(Protocol):
    now: float


class HostClock:
    """`rate`: how fast its seconds go, for both clocks. `wall_ahead_ms`: by how much the wall clock is wrong."""

    def __init__(self, world: Time, random: Random, rate: float = 1.0) -> None:
        self._world = world
        self._random = random
        self.rate = rate
        self.wall_ahead_ms = 0
        self.reboot()

    def reboot(self) -> None:
        """The monotonic clock begins anew, anywhere; the wall clock goes on."""
        self.since = self._world.now
        self.base = self._random.uniform(1, 1000)

    def drift(self, rate: float) -> None:
        """From now on its seconds have another length. What the wall clock has gained or lost stays."""
        now = self._world.now
        self.base = self.peek()
        self.wall_ahead_ms += int((now - self.since) * (self.rate - 1) * 1000)
        self.since, self.rate = now, rate

    def peek(self) -> float:
        """The monotonic clock, in seconds, for those who look from outside."""
        return self.base + (self._world.now - self.since) * self.rate

    def monotonic(self) -> float:
        self._world.now += READING_S
        return self.base + (self._world.now - self.since) * self.rate

    def due(self, monotonic: float) -> float:
        """When, in the world's time, the monotonic clock will show this, if it keeps its rate."""
        return self.since + (monotonic - self.base) / self.rate

    def boot_ms(self) -> int:
        return int(self.monotonic() * 1000)

    def wall_ms(self) -> int:
        now = self._world.now
        gained = (now - self.since) * (self.rate - 1)
        return EPOCH_MS + self.wall_ahead_ms + int((now + gained) * 1000)
