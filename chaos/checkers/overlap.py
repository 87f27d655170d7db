"""Overlap: attempts of a task that must never run twice at once never do, in real time and on whichever nodes."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

import msgspec

from chaos.checkers.outcomes import Task


class Ran(msgspec.Struct, frozen=True):
    """An attempt's processes were alive from `began_at` to `ended_at`, as their machine saw it."""

    task: Task
    attempt: int
    node_id: str
    began_at: float
    ended_at: float = inf


def check(runs: Iterable[Ran]) -> list[str]:
    """`runs` are of tasks whose job says `on_disconnect: stop`, or of any task on one and the same node."""
    wrong = []
    latest: dict[Task, Ran] = {}
    for run in sorted(runs, key=lambda each: (each.began_at, each.attempt)):
        before = latest.get(run.task)
        if before is not None and run.began_at < before.ended_at:
            wrong.append(
                f"task {run.task[0]}.{run.task[1]}: attempt {run.attempt} began on {run.node_id} at {run.began_at:.3f}, "
                f"while attempt {before.attempt} ran on {before.node_id} until {before.ended_at:.3f}"
            )
        if before is None or run.ended_at > before.ended_at:
            latest[run.task] = run
    return wrong
