"""Slots: every instant at which a schedule was due is settled once, and what was fired has one job.

Whoever looks from outside knows when a schedule is due; the ledger says what became of each slot, and jobs say whose they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Settled(NamedTuple):
    """A row of the ledger: `number` slots `step_ms` apart. Of those that were fired, the job."""

    first_ms: int
    step_ms: int
    number: int
    outcome: str
    settled_ms: int
    job_id: int  # 0: none

    def slots(self) -> range:
        return range(self.first_ms, self.first_ms + (self.number - 1) * self.step_ms + 1, self.step_ms or 1)


def check(
    name: str, expected: Iterable[int], settled: Iterable[Settled], jobs: Iterable[tuple[int, int]], grace_ms: int
) -> list[str]:
    """`expected` are the instants at which the schedule was due; `jobs` are what it has made: (slot, job id).

    A slot that was missed must have been later than the grace. Sentences, at most a few of a kind.
    """
    wrong: list[str] = []
    rows = list(settled)
    outcomes: dict[int, str] = {}
    fired: dict[int, int] = {}
    for row in rows:
        for slot_ms in row.slots():
            if slot_ms in outcomes:
                wrong.append(f"{name}: the slot {slot_ms} is {outcomes[slot_ms]}, and once more {row.outcome}")
            outcomes[slot_ms] = row.outcome
            if row.outcome == "MISSED" and row.settled_ms - slot_ms <= grace_ms:
                wrong.append(f"{name}: the slot {slot_ms} is missed, and was only {row.settled_ms - slot_ms} ms late")
            if row.settled_ms < slot_ms:
                wrong.append(f"{name}: the slot {slot_ms} is settled {slot_ms - row.settled_ms} ms before its time")
        if row.job_id:
            fired[row.first_ms] = row.job_id
    due = dict.fromkeys(expected)
    wrong += [f"{name}: nothing became of the slot {slot_ms}" for slot_ms in due if slot_ms not in outcomes]
    wrong += [
        f"{name}: there is no slot at {slot_ms}, and it is {outcomes[slot_ms]}"
        for slot_ms in outcomes
        if slot_ms not in due
    ]
    made: dict[int, list[int]] = {}
    for slot_ms, job_id in jobs:
        made.setdefault(slot_ms, []).append(job_id)
    for slot_ms, job_ids in made.items():
        if job_ids != [fired.get(slot_ms)]:
            wrong.append(f"{name}: the slot {slot_ms} has the jobs {job_ids}, and the ledger says {fired.get(slot_ms)}")
    wrong += [f"{name}: the slot {slot_ms} has no job, and was fired" for slot_ms in fired if slot_ms not in made]
    return wrong[:10]
