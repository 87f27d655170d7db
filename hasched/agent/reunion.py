"""What an agent and a supervisor that meet (again) have to tell each other.

The supervisor's word counts for what runs and what ended; the table's for what should have been started. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from hasched.agent.attempts import Attempt, Phase
from hasched.agent.outbox import key_of
from hasched.agent.protocol import FreezeAttempts, Inventory, StopAttempts
from hasched.model.ids import AttemptId
from hasched.model.wire import AttemptEnded, AttemptKey


class Findings(NamedTuple):
    ended: list[AttemptEnded]  # they ended while we were apart
    unknown: list[AttemptEnded]  # the same, but nothing is known of them here: the table was lost
    held: list[AttemptId]  # the supervisor keeps these ends, and waits to be told to forget them
    lost: list[AttemptId]  # another supervisor had them, and is gone
    vanished: list[AttemptId]  # they were meant for this supervisor, and never reached it


def compare(
    attempts: Mapping[AttemptId, Attempt], forgetting: Iterable[Sequence[AttemptId]], inventory: Inventory
) -> Findings:
    """What the inventory says of these attempts. `forgetting` are ends that it will soon be told to forget."""
    found = Findings([], [], [], [], [])
    settled = {key: None for keys in forgetting for key in keys}
    ended = {key_of(each): each for each in inventory.ended}
    running = {AttemptId(each.job_id, each.index, each.attempt): None for each in inventory.running}
    for key, attempt in attempts.items():
        if attempt.phase is Phase.ENDED or key in running:
            continue
        if key in ended:
            found.ended.append(ended[key])
        elif attempt.phase in (Phase.LAUNCHED, Phase.RUNNING):
            (found.vanished if attempt.supervisor == inventory.instance else found.lost).append(key)
    for key, end in ended.items():
        if key in attempts:
            found.held.append(key)
        elif key not in settled:
            found.unknown.append(end)
            found.held.append(key)
    return found


def reminders(attempts: Iterable[Attempt]) -> list[FreezeAttempts | StopAttempts]:
    """What was said to the supervisor about attempts that run, and may have been lost on the way."""
    orders: list[FreezeAttempts | StopAttempts] = []
    wanted: dict[bool, list[AttemptKey]] = {}
    for attempt in attempts:
        if attempt.phase is not Phase.RUNNING:
            continue
        if attempt.frozen is not None:
            wanted.setdefault(attempt.frozen, []).append(AttemptKey(*attempt.key))
        if attempt.stop:
            keys = (AttemptKey(*attempt.key),)
            orders.append(StopAttempts(keys, attempt.stop, attempt.stop_signal, attempt.stop_warning_ms))
    return [*(FreezeAttempts(tuple(keys), frozen) for frozen, keys in wanted.items()), *orders]
