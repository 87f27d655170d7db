"""Attempts that have lost a device: which they are, and what that makes of their ends. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable

import msgspec

from hasched.agent.attempts import Attempt
from hasched.agent.devices import gone
from hasched.agent.protocol import cut
from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded


def note_losses(attempts: Iterable[Attempt], missing: Container[str]) -> list[Attempt]:
    """Write down who holds what is missing. Returns those that have to be stopped for it, since they run and nobody has yet."""
    stopped: list[Attempt] = []
    for attempt in attempts:
        lost = [unit for unit in attempt.units if unit in missing]
        if not lost or attempt.lost_device:
            continue
        attempt.lost_device = gone(lost)
        if attempt.doubted is None and not attempt.stop:
            attempt.stop = attempt.lost_device
            stopped.append(attempt)
    return stopped


def is_doubtful(attempt: Attempt, ended: AttemptEnded) -> bool:
    """Whether an end may come of a lost device: who loses one often fails before anybody notices."""
    return bool(attempt.units) and not attempt.stop and not _has_succeeded(ended)


def explain_end(attempt: Attempt, ended: AttemptEnded) -> AttemptEnded:
    """The end as it is told: that of an attempt which has lost a device came of that, unless it has succeeded."""
    if not attempt.lost_device or _has_succeeded(ended):
        return ended
    return msgspec.structs.replace(ended, kind=EndKind.DEVICE_LOST, code=0, reason=cut(attempt.lost_device))


def _has_succeeded(ended: AttemptEnded) -> bool:
    """As far as is known here, where other codes than 0 may stand for success, too."""
    return ended.kind is EndKind.EXITED and ended.code == 0
