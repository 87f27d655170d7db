"""The clock that a leader writes into log entries: the wall clock, as long as that runs on.

The state's time never runs backwards, so an entry from a wall clock that was ahead would stop it until wall clocks have
caught up, and with it whatever waits for a time that is computed from it. Where the wall clock is behind what was read
or applied before, this one goes on at the pace of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable


class LeaderClock:
    def __init__(self, wall_ms: Callable[[], int], monotonic_s: Callable[[], float]) -> None:
        self._wall_ms = wall_ms
        self._monotonic_s = monotonic_s
        self._anchor_ms = 0
        self._anchored_s = monotonic_s()

    def read(self, applied_ms: int) -> int:
        """Milliseconds since 1970, not before `applied_ms`, the state's time."""
        now_s = self._monotonic_s()
        reading = self._anchor_ms + int((now_s - self._anchored_s) * 1000)
        latest = max(self._wall_ms(), applied_ms)
        if latest > reading:
            self._anchor_ms, self._anchored_s = latest, now_s
            return latest
        return reading
