"""Schedules: every slot is planned once, and settled once."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.policy import Amounts, PolicyKind, Quota
from hasched.model.schedule import NEVER_MS, CatchUp, Overlap, ScheduleSpec, SlotOutcome, SlotRun, Verdict, jitter_of
from hasched.model.spec import JobSpec
from hasched.model.states import EndKind
from hasched.statemachine.commands import (
    BackfillSchedule,
    DeleteSchedule,
    PauseSchedule,
    PlanSlots,
    PutPolicy,
    PutSchedule,
    ResumeSchedule,
)
from hasched.statemachine.events import ScheduleLate, ScheduleMissing
from hasched.statemachine.outcomes import Done, Rejected
from hasched.statemachine.rules import schedules as rules
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.schedules import Schedule
from tests.statemachine.machine import T0, Machine

MINUTE = 60_000
JOB = JobSpec(name="tick", command=("true",))


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.wait(0)
    return machine


def put(machine: Machine, name: str = "tick", **fields: Any) -> Schedule:
    spec = ScheduleSpec(**{"every_ms": MINUTE, "job": JOB, **fields})
    assert machine.outcome(PutSchedule(name=name, spec=spec, actor="ada")) == Done()
    return machine.state.schedules[name]


def plan(machine: Machine, until_ms: int, *runs: SlotRun, name: str = "tick") -> Any:
    schedule = machine.state.schedules[name]
    command = PlanSlots(
        name=name, revision=schedule.revision, after_ms=schedule.planned_ms, until_ms=until_ms, runs=runs
    )
    return machine.outcome(command)


def minutes(first: int, number: int = 1, verdict: int = 0) -> SlotRun:
    """Slots at minutes after the beginning."""
    return SlotRun(T0 + first * MINUTE, MINUTE, number, verdict)


def told(machine: Machine, name: str = "tick") -> list[tuple[int, int, str]]:
    """The ledger, the oldest first: minute, how many slots, what became of them."""
    rows = reversed(list(machine.state.schedules[name].ledger()))
    return [((row.first_ms - T0) // MINUTE, row.number, row.outcome.name) for row in rows]


def until_settled(machine: Machine) -> None:
    """Step the clock as the leader would until nothing is due now."""
    for _ in range(100):
        due_ms = next_deadline(machine.state)
        if due_ms is None or due_ms > machine.now_ms:
            return
        machine.wait(0)
    raise AssertionError("the clock is never done")


def finish(machine: Machine, job_id: int, **how: Any) -> None:
    if "n1" not in machine.state.nodes:
        machine.node()
    job = machine.state.jobs[job_id]
    machine.place(job)
    machine.end(job, **how)


def test_a_slot_is_fired_when_it_is_due_and_not_before(machine: Machine) -> None:
    put(machine)
    assert plan(machine, T0 + 3 * MINUTE, minutes(1, 3)) == Done()
    assert next_deadline(machine.state) == T0 + MINUTE
    machine.wait(MINUTE - 1)
    assert not machine.state.jobs
    machine.wait(1)
    machine.wait(0)
    (job,) = machine.state.jobs.values()
    assert (job.parent, job.actor, job.name) == (f"schedule/tick@{T0 + MINUTE}", "ada", "tick")
    assert job.spec.env == {"HASCHED_SCHEDULE": "tick", "HASCHED_SLOT": "2023-11-14T22:14:20Z"}
    assert told(machine) == [(1, 1, "FIRED")]


def test_every_instant_is_planned_once(machine: Machine) -> None:
    schedule = put(machine)
    first = PlanSlots(
        name="tick", revision=schedule.revision, after_ms=T0, until_ms=T0 + 2 * MINUTE, runs=(minutes(1, 2),)
    )
    assert machine.outcome(first) == Done()
    assert machine.refusal(first) == "plan_outdated", "another leader has planned that"
    gap = PlanSlots(name="tick", revision=schedule.revision, after_ms=T0 + 3 * MINUTE, until_ms=T0 + 4 * MINUTE)
    assert machine.refusal(gap) == "plan_outdated", "two to three is planned by nobody"
    put(machine, every_ms=2 * MINUTE)
    assert machine.state.schedules["tick"].pending == ()
    old = PlanSlots(name="tick", revision=schedule.revision, after_ms=T0, until_ms=T0 + MINUTE)
    assert machine.refusal(old) == "plan_outdated", "it is of another schedule"


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param((minutes(2), minutes(1)), id="out of order"),
        pytest.param((minutes(0),), id="before"),
        pytest.param((minutes(5),), id="after"),
        pytest.param((SlotRun(T0 + 1, 0, 2),), id="two at once"),
        pytest.param((SlotRun(T0 + 1, 1, 10_001),), id="too many"),
        pytest.param((minutes(1, 1, 9),), id="no verdict"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(machine: Machine, runs: tuple[SlotRun, ...]) -> None:
    put(machine)
    outcome = plan(machine, T0 + 4 * MINUTE, *runs)
    assert isinstance(outcome, Rejected) and outcome.code == "invalid_plan"


def test_blackouts_and_holidays_are_rows_and_runs_of_them_are_one(machine: Machine) -> None:
    put(machine)
    plan(machine, T0 + 9 * MINUTE, minutes(1, 3, Verdict.BLACKOUT), minutes(4), minutes(5, 2, Verdict.HOLIDAY))
    for _ in range(6):
        machine.wait(MINUTE)
        until_settled(machine)
    assert told(machine) == [(1, 3, "BLACKOUT"), (4, 1, "FIRED"), (5, 2, "HOLIDAY")]


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"catch_up": CatchUp.SKIP}, [(1, 5, "MISSED"), (6, 1, "FIRED")]),
        ({"catch_up": CatchUp.LATEST}, [(1, 5, "MISSED"), (6, 1, "FIRED")]),
        ({"catch_up": CatchUp.LATEST, "grace_ms": 0}, [(1, 5, "MISSED"), (6, 1, "CAUGHT_UP")]),
        (
            {"catch_up": CatchUp.ALL, "catch_up_limit": 7},
            [*((minute, 1, "CAUGHT_UP") for minute in range(1, 6)), (6, 1, "FIRED")],
        ),
        (
            {"catch_up": CatchUp.ALL, "catch_up_limit": 2},
            [(1, 3, "MISSED"), (4, 1, "CAUGHT_UP"), (5, 1, "CAUGHT_UP"), (6, 1, "FIRED")],
        ),
    ],
)
def test_what_was_missed_while_nobody_led(machine: Machine, fields: dict[str, Any], rows: list[Any]) -> None:
    put(machine, **{"grace_ms": MINUTE // 2, **fields})
    plan(machine, T0 + 2 * MINUTE, minutes(1, 2))
    machine.wait(6 * MINUTE + 1)
    assert not machine.state.jobs, "what else is due isn't known yet"
    plan(machine, T0 + 4 * MINUTE, minutes(3, 2))
    plan(machine, T0 + 7 * MINUTE, minutes(5, 3))
    until_settled(machine)
    assert told(machine) == rows


@pytest.mark.parametrize(
    ("overlap", "rows"),
    [
        (Overlap.ALLOW, [(1, 1, "FIRED"), (2, 1, "FIRED"), (3, 1, "FIRED")]),
        (Overlap.FORBID, [(1, 1, "FIRED"), (2, 2, "OVERLAP")]),
        (Overlap.QUEUE, [(1, 1, "FIRED"), (3, 1, "QUEUE_FULL"), (2, 1, "FIRED")]),
    ],
)
def test_a_slot_that_is_due_while_an_earlier_one_runs(machine: Machine, overlap: Overlap, rows: list[Any]) -> None:
    put(machine, overlap=overlap, queue_limit=1)
    plan(machine, T0 + 3 * MINUTE, minutes(1, 3))
    for _ in range(3):
        machine.wait(MINUTE)
        until_settled(machine)
    finish(machine, 1)
    until_settled(machine)
    assert told(machine) == rows


def test_a_slot_that_replaces_what_runs_starts_after_its_end(machine: Machine) -> None:
    put(machine, overlap=Overlap.REPLACE)
    plan(machine, T0 + 3 * MINUTE, minutes(1, 3))
    machine.node()
    machine.wait(MINUTE)
    first = machine.state.jobs[1]
    machine.place(first)
    machine.wait(MINUTE)
    assert first.cancelling and len(machine.state.jobs) == 1
    machine.wait(MINUTE)
    assert told(machine) == [(1, 1, "FIRED"), (2, 1, "REPLACED")]
    machine.end(first, kind=EndKind.STOPPED)
    until_settled(machine)
    assert told(machine)[-1] == (3, 1, "FIRED") and len(machine.state.jobs) == 2


def test_paused_slots_are_told_and_the_next_is_fired(machine: Machine) -> None:
    put(machine)
    plan(machine, T0 + 4 * MINUTE, minutes(1, 4))
    machine.do(PauseSchedule(name="tick", actor="bob", reason="moving house"))
    machine.wait(MINUTE)
    machine.wait(2 * MINUTE)
    machine.do(ResumeSchedule(name="tick", actor="bob"))
    machine.wait(MINUTE)
    assert told(machine) == [(1, 3, "PAUSED"), (4, 1, "FIRED")]


def test_a_refused_slot_says_why(machine: Machine) -> None:
    put(machine)
    plan(machine, T0 + MINUTE, minutes(1))
    quota = Quota(namespace="default", nominal=Amounts(queued_jobs=0))
    machine.do(PutPolicy(kind=PolicyKind.QUOTA, name="none", body=quota, actor="root"))
    machine.wait(MINUTE)
    assert told(machine) == [(1, 1, "REFUSED")]
    assert "quota_exceeded" in machine.state.schedules["tick"].refusal


def test_jitter_is_the_same_everywhere_and_keeps_the_slots_name(machine: Machine) -> None:
    put(machine, jitter_ms=MINUTE)
    plan(machine, T0 + MINUTE, minutes(1))
    fire_ms = T0 + MINUTE + jitter_of("tick", T0 + MINUTE, MINUTE)
    assert fire_ms == 1_700_000_071_743, "a release that draws otherwise fires what was planned at another time"
    machine.wait(fire_ms - T0 - 1)
    assert not machine.state.jobs
    machine.wait(1)
    assert told(machine) == [(1, 1, "FIRED")]


def test_a_backfill_fires_what_was_not_fired_one_after_the_other(machine: Machine) -> None:
    put(machine, overlap=Overlap.FORBID)
    plan(machine, T0 + 4 * MINUTE, minutes(1), minutes(2, 2, Verdict.BLACKOUT))
    machine.wait(3 * MINUTE)
    until_settled(machine)
    finish(machine, 1)
    future = BackfillSchedule(name="tick", actor="ada", runs=(minutes(4),))
    assert machine.refusal(future) == "invalid_backfill"
    backfill = BackfillSchedule(name="tick", actor="ada", runs=(minutes(1, 3),))
    machine.do(backfill)
    machine.do(backfill)
    until_settled(machine)
    assert len(machine.state.jobs) == 2
    finish(machine, 2)
    until_settled(machine)
    assert told(machine)[-2:] == [(2, 1, "BACKFILLED"), (3, 1, "BACKFILLED")]
    assert [job.parent for job in machine.state.jobs.values()][1:] == [
        f"schedule/tick@{T0 + minute * MINUTE}" for minute in (2, 3)
    ]


def test_alerts_are_told_once(machine: Machine) -> None:
    put(machine, late_ms=1000, missing_ms=3 * MINUTE)
    plan(machine, T0 + 4 * MINUTE, minutes(1, 4))
    for _ in range(4):
        machine.wait(MINUTE + 1000)
        until_settled(machine)
    late, missing = (
        [each for each in machine.events if isinstance(each, kind)] for kind in (ScheduleLate, ScheduleMissing)
    )
    assert len(late) == len(missing) == 1
    finish(machine, 1)
    assert not machine.state.schedules["tick"].missing


def test_one_that_is_over_or_gone_does_nothing_more(machine: Machine) -> None:
    put(machine, at=(T0 + MINUTE,), every_ms=0)
    plan(machine, NEVER_MS, minutes(1))
    machine.wait(MINUTE)
    assert next_deadline(machine.state) is None
    put(machine, "other")
    plan(machine, T0 + 2 * MINUTE, SlotRun(T0 + 2 * MINUTE, 0, 1), name="other")
    machine.do(DeleteSchedule(name="other", actor="ada"))
    machine.wait(MINUTE)
    assert len(machine.state.jobs) == 1
    assert machine.refusal(DeleteSchedule(name="other", actor="ada")) == "no_such_schedule"


def test_what_schedules_say_is_bounded(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_BYTES", 1000)
    put(machine, description="x" * 400)
    put(machine, description="y" * 500)
    spec = ScheduleSpec(every_ms=1000, description="z" * 500, job=JOB)
    assert machine.refusal(PutSchedule(name="other", spec=spec, actor="ada")) == "too_many_schedules"
    machine.do(DeleteSchedule(name="tick", actor="ada"))
    put(machine, "other", description="z" * 500)


def test_a_run_that_meets_its_deadline_as_the_next_slot_would_replace_it_ends_once(machine: Machine) -> None:
    put(machine, overlap=Overlap.REPLACE, job=JobSpec(name="tick", command=("true",), deadline_after_ms=MINUTE))
    plan(machine, T0 + 3 * MINUTE, minutes(1, 3))
    machine.wait(MINUTE)
    machine.wait(MINUTE)
    assert machine.state.jobs[1].state.name == "DEADLINE_EXCEEDED"
    until_settled(machine)
    assert told(machine) == [(1, 1, "FIRED"), (2, 1, "FIRED")]


def test_rows_are_bounded_and_counts_are_not(machine: Machine) -> None:
    put(machine, every_ms=1)
    for first in range(1, 1001, 100):
        plan(machine, T0 + first + 99, SlotRun(T0 + first, 1, 100))
        machine.wait(100)
        until_settled(machine)
    schedule = machine.state.schedules["tick"]
    assert (len(list(schedule.ledger())), schedule.counts[SlotOutcome.FIRED]) == (400, 1000)
