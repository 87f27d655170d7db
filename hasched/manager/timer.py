"""The clock duty: proposes a clock step when something in the state is due, and only then.

What comes due (the end of a backoff, of a retention) stands in the replicated state, so a new leader knows it at once and
nothing waits for a timer that died with the old one.
"""

from __future__ import annotations

import asyncio

import structlog

from hasched.raft.replica import Replica
from hasched.statemachine.apply import Applied
from hasched.statemachine.commands import StepClock
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules.clock import next_deadline

LONGEST_SLEEP_S = 1.0  # the wall clock may be set ahead while we sleep
PAUSE_S = 0.02  # between steps: what falls due meanwhile shares one

log = structlog.get_logger(__name__)


class ClockDuty:
    """It goes by the clock that the leader writes into log entries, and no other."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._changed = asyncio.Event()
        self._awaited: int | None = None

    async def run(self) -> None:
        unsubscribe = self._replica.subscribe(self._observe)
        try:
            while True:
                await self._sleep_until_due()
                outcome = await self._replica.propose(StepClock())
                if isinstance(outcome, Rejected):
                    log.error("clock_step_rejected", code=outcome.code, cause=outcome.cause)
                await asyncio.sleep(PAUSE_S)
        finally:
            unsubscribe()

    async def _sleep_until_due(self) -> None:
        while True:
            self._changed.clear()
            self._awaited = next_deadline(self._replica.state)
            if self._awaited is None:
                await self._changed.wait()
                continue
            wait_ms = self._awaited - self._replica.clock_ms()
            if wait_ms <= 0:
                return
            try:
                async with asyncio.timeout(min(wait_ms / 1000, LONGEST_SLEEP_S)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _observe(self, _applied: Applied) -> None:
        if next_deadline(self._replica.state) != self._awaited:
            self._changed.set()
