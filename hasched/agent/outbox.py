"""The outbox: reports that the managers have not acknowledged, and which of them are on the way.

At most `REPORTS_IN_FLIGHT` frames are on the way; what happens meanwhile shares the next one. So an idle agent reports at
once, and a busy one in batches as large as the managers are slow, without a timer.
"""

from __future__ import annotations

from collections.abc import Iterable

from hasched.model.ids import AttemptId
from hasched.model.wire import AttemptCheckpointed, AttemptEnded, AttemptReport, AttemptStarted, Reports

START_REPORT_DELAY_MS = 5  # a task that ends sooner under load needs one report instead of two
REPORTS_IN_FLIGHT = 2
MAX_REPORTS = 1000
MAX_REPORT_BYTES = 1024 * 1024


class Outbox:
    """Pure: it is told the time, in ms of a clock that never goes back."""

    def __init__(self) -> None:
        self._open = False
        self._number = 0
        self._ends: dict[AttemptId, AttemptEnded] = {}
        self._starts: dict[AttemptId, tuple[int, AttemptStarted]] = {}  # with the time since when, oldest first
        self._checkpoints: dict[AttemptId, AttemptCheckpointed] = {}  # the latest of each
        self._in_flight: dict[int, tuple[AttemptReport, ...]] = {}

    @property
    def wake_at_ms(self) -> int | None:
        """When a start becomes due that is held back now."""
        if not self._starts or not self._open or len(self._in_flight) >= REPORTS_IN_FLIGHT:
            return None
        since_ms, _ = next(iter(self._starts.values()))
        return since_ms + START_REPORT_DELAY_MS

    def open(
        self,
        ends: Iterable[AttemptEnded],
        starts: Iterable[AttemptStarted],
        checkpoints: Iterable[AttemptCheckpointed],
        now_ms: int,
    ) -> None:
        """A session begins: these are all the reports that are not known to be committed."""
        self._open = True
        self._in_flight.clear()
        self._ends = {key_of(ended): ended for ended in ends}
        self._starts = {key_of(started): (now_ms, started) for started in starts}
        self._checkpoints = {key_of(checkpoint): checkpoint for checkpoint in checkpoints}

    def close(self) -> None:
        """The session is over, and with it what was on the way."""
        self._open = False
        self._in_flight.clear()

    def add_start(self, started: AttemptStarted, now_ms: int) -> None:
        self._starts[key_of(started)] = (now_ms, started)

    def add_checkpoint(self, checkpoint: AttemptCheckpointed) -> None:
        self._checkpoints[key_of(checkpoint)] = checkpoint

    def add_end(self, ended: AttemptEnded) -> None:
        """An end says also that the attempt started, and when it checkpointed last."""
        key = key_of(ended)
        self._starts.pop(key, None)
        self._checkpoints.pop(key, None)
        self._ends[key] = ended

    def discard(self, key: AttemptId) -> None:
        self._starts.pop(key, None)
        self._checkpoints.pop(key, None)
        self._ends.pop(key, None)

    def take(self, now_ms: int) -> list[Reports]:
        """The frames that may leave now."""
        frames = []
        while self._open and len(self._in_flight) < REPORTS_IN_FLIGHT and (batch := self._next_batch(now_ms)):
            self._number += 1
            self._in_flight[self._number] = batch
            frames.append(Reports(self._number, batch))
        return frames

    def acknowledge(self, number: int) -> tuple[AttemptReport, ...]:
        """The reports that this acknowledgement settles."""
        return self._in_flight.pop(number, ())

    def _next_batch(self, now_ms: int) -> tuple[AttemptReport, ...]:
        batch: list[AttemptReport] = []
        size = 0
        for ended in self._ends.values():
            size += len(ended.output) + len(ended.reason.encode())
            if batch and (size > MAX_REPORT_BYTES or len(batch) == MAX_REPORTS):
                break
            batch.append(ended)
        for report in batch:
            del self._ends[key_of(report)]
        for key, (since_ms, started) in list(self._starts.items()):
            early = self._in_flight and since_ms + START_REPORT_DELAY_MS > now_ms
            if early or len(batch) >= MAX_REPORTS:
                break
            del self._starts[key]
            batch.append(started)
        for key, checkpoint in list(self._checkpoints.items()):
            if len(batch) >= MAX_REPORTS:
                break
            if key not in self._starts:
                del self._checkpoints[key]
                batch.append(checkpoint)
        return tuple(batch)


def key_of(report: AttemptReport) -> AttemptId:
    return AttemptId(report.job_id, report.index, report.attempt)
