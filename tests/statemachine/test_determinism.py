"""The same log gives the same state: on every manager, in every process, in every later version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import get_args

import pytest

from hasched.statemachine.digest import digest
from hasched.statemachine.events import Event, view
from hasched.statemachine.notification_events import NotificationEvent
from hasched.statemachine.workflow_events import WorkflowEvent
from tests.statemachine.golden import GOLDEN, read_log, replay
from tests.statemachine.life import live
from tests.statemachine.machine import Machine

LOGS = sorted(GOLDEN.glob("*.log"))


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_old_logs_replay_to_the_state_that_they_meant(path: Path) -> None:
    assert digest(replay(read_log(path))) == path.with_suffix(".digest").read_text().strip()


def test_there_are_golden_logs() -> None:
    assert LOGS


def test_the_hash_seed_of_a_process_leaves_no_trace() -> None:
    path = GOLDEN / "life-1.log"
    command = [sys.executable, "-m", "tests.statemachine.golden", "--replay", str(path)]
    digests = {
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("0", "1", "4242")
    }
    assert digests == {path.with_suffix(".digest").read_bytes()}


def test_a_life_meets_every_kind_of_event_and_all_can_be_shown() -> None:
    elsewhere = (*get_args(WorkflowEvent), *get_args(NotificationEvent))  # these have tests of their own
    missing = dict.fromkeys(kind for kind in get_args(Event) if kind not in elsewhere)
    for seed in range(60, 120):  # some are rare: a life more each time, until all have been met
        machine = Machine()
        live(machine, Random(seed), 500)
        for number, event in enumerate(machine.events):
            missing.pop(type(event), None)
            shown = view(event, 5, number, 17)
            assert (shown.id, shown.type, shown.time_ms) == (f"5.{number}", type(event).__name__, 17)
        if not missing:
            return
    assert not missing


def test_a_digest_tells_states_apart() -> None:
    machine, other = Machine(), Machine()
    for one in (machine, other):
        one.node()
        one.submit("a", count=2)
    assert digest(machine.state) == digest(other.state)
    machine.place(machine.state.jobs[1], 0)
    other.place(other.state.jobs[1], 1)
    assert digest(machine.state) != digest(other.state)


def test_the_order_in_which_tasks_changed_leaves_no_trace_in_the_digest() -> None:
    digests = []
    for order in ((0, 1, 2), (2, 0, 1)):
        machine = Machine()
        machine.node()
        job = machine.submit("a", count=4)
        machine.place(job, *order)
        digests.append(digest(machine.state))
    assert digests[0] == digests[1]
