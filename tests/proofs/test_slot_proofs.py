"""A little of what `scripts/prove schedules` does in full, and that it finds what it looks for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from hasched.model.schedule import CatchUp, ScheduleSpec, SlotOutcome
from hasched.statemachine.rules import slots
from hasched.statemachine.schedules import Pending, Schedule
from proofs import schedules as proof
from proofs import slot_cluster
from proofs.slot_book import Book
from tests.simulation import mutants_above  # noqa: F401 - registers its mutants
from tests.simulation.mutants import MUTANTS
from tests.simulation.patches import Patches

OFTEN = {name: 5 * chance for name, chance in slot_cluster.FAULTS.items()}


@pytest.fixture
def violations(monkeypatch: pytest.MonkeyPatch):
    """Of a short run with many faults."""
    monkeypatch.setattr(slot_cluster, "FAULTS", OFTEN)
    return lambda: proof.run(seed=1, zones=["Europe/Berlin", "Asia/Kathmandu"], days=0.025, at_most_s=600.0).wrong


def test_every_second_becomes_what_its_policy_wants(violations):
    assert violations() == []


@pytest.mark.parametrize("bug", ["gap-not-planned", "planned-twice"])
def test_slots_that_are_left_out_or_fired_twice_are_found(bug, violations):
    with Patches() as patches:
        MUTANTS[bug].install(patches)
        assert violations()


@pytest.mark.parametrize("more", [1, -1])
def test_one_late_slot_too_many_or_too_few_is_found(more, violations, monkeypatch):
    kept = slots.late_kept
    monkeypatch.setattr(slots, "late_kept", lambda spec: max(0, kept(spec) + more))
    assert any("should be" in sentence for sentence in violations())


def test_slots_that_are_missed_though_fewer_are_late_than_are_kept_are_found(violations, monkeypatch):
    """As it once was: what is kept was counted from the wrong end where there was less of it."""
    decide = slots.decide_backlog

    def from_the_wrong_end(schedule: Schedule, pending: Sequence[Pending], now_ms: int):
        late = [each for each in pending if each.fire_ms < now_ms - schedule.spec.grace_ms]
        kept = slots.late_kept(schedule.spec)
        if schedule.spec.catch_up is CatchUp.ALL and len(late) < kept:
            kept = len(late) - len(late[: len(late) - kept])
            spec = msgspec.structs.replace(schedule.spec, catch_up_limit=kept)
            schedule = msgspec.structs.replace(schedule, spec=spec)
        return decide(schedule, pending, now_ms)

    monkeypatch.setattr(slots, "decide_backlog", from_the_wrong_end)
    assert any("MISSED and should be CAUGHT_UP" in sentence for sentence in violations())


def book(catch_up: CatchUp, limit: int = 1, grace_ms: int = 2000) -> Book:
    return Book(ScheduleSpec(catch_up=catch_up, catch_up_limit=limit, grace_ms=grace_ms), 10_000)


@pytest.mark.parametrize(
    ("catch_up", "grace_ms", "right"),
    [
        pytest.param(CatchUp.SKIP, 2000, "MISSED MISSED MISSED MISSED FIRED", id="skip: all that is late"),
        pytest.param(CatchUp.LATEST, 2000, "MISSED MISSED MISSED MISSED FIRED", id="latest: another is due"),
        pytest.param(
            CatchUp.LATEST, 400, "MISSED MISSED MISSED MISSED MISSED CAUGHT_UP", id="latest: none else is due"
        ),
        pytest.param(CatchUp.ALL, 2000, "MISSED MISSED CAUGHT_UP CAUGHT_UP FIRED", id="all: the latest two"),
    ],
)
def test_there_is_one_right_outcome_for_each_late_slot(catch_up, grace_ms, right):
    for number, outcome in enumerate(right.split()):
        for other in (SlotOutcome.FIRED, SlotOutcome.CAUGHT_UP, SlotOutcome.MISSED):
            asked = book(catch_up, 2, grace_ms)
            asked.next_ms += number * 1000
            sentence = asked.settle(asked.next_ms, other, now_ms=15_999)
            assert (sentence == "") is (other.name == outcome), (number, other)


def test_what_is_settled_twice_left_out_or_too_early_is_wrong():
    asked = book(CatchUp.ALL)
    assert asked.settle(10_000, SlotOutcome.FIRED, 10_001) == ""
    assert "settled before" in asked.settle(10_000, SlotOutcome.FIRED, 10_002)
    assert "left out" in asked.settle(12_000, SlotOutcome.FIRED, 12_000)
    assert "before its time" in asked.settle(13_000, SlotOutcome.FIRED, 12_999)
    assert (asked.extra, asked.gaps, asked.fired) == (1, 1, 4)
