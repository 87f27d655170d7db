"""Divergence: a manager whose state holds a flipped bit is detected, fenced and rebuilt, `rounds` times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.support.flipped_bit import Outcome, tell


def prove(folder: Path, rounds: int = 3) -> Iterator[Outcome]:
    """Each round on three new managers with their own directory under `folder`."""
    for number in range(1, rounds + 1):
        place = folder / f"round-{number}"
        place.mkdir(parents=True)
        yield tell(place)


def describe(outcome: Outcome) -> str:
    return (
        f"{outcome.manager}: changed {outcome.what}; found by the check at entry {outcome.index} "
        f"{outcome.found_after_s:.1f} s after its start, exit status {outcome.exit_status}; started again, and all agreed "
        f"{outcome.rebuilt_after_s:.1f} s later; {outcome.accepted} accepted, all there; one digest at {outcome.equal_at}"
    )
