"""The clock: deadlines are told, what is due is done, an idle cluster has none."""

from __future__ import annotations

import pytest

from hasched.statemachine import state as tables
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import Batch, DeleteJob
from hasched.statemachine.events import JobExpired, SubmissionsForgotten, TasksEligible
from hasched.statemachine.rules import clock
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.snapshot import records, restore
from hasched.statemachine.state import RETENTION_MS, SUBMISSION_MEMORY_MS, State
from tests.statemachine.machine import T0, Machine, retries


def test_an_idle_cluster_has_no_deadline() -> None:
    machine = Machine()
    machine.node()
    machine.submit()
    assert next_deadline(machine.state) is None


def test_time_never_runs_backwards() -> None:
    state = State()
    apply(state, 1, Batch(1, T0, []))
    assert apply(state, 2, Batch(1, T0 - 5000, [])).now_ms == T0


def test_retries_of_one_job_become_eligible_together() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=3, retries=retries(1, initial_ms=1000))
    machine.place(job, 0, 1, 2)
    machine.report(*(machine.ended(job, index, code=1) for index in (2, 0, 1)))
    assert next_deadline(machine.state) == machine.now_ms + 1000
    assert machine.wait(1000).events[0] == TasksEligible(job.id, (0, 1, 2))
    assert next_deadline(machine.state) is None


def test_of_very_many_retries_that_are_due_each_step_takes_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "MAX_RETRIES_PER_STEP", 2)
    machine = Machine()
    machine.node(cpu=5)
    job = machine.submit(count=5, retries=retries(1, initial_ms=1000))
    machine.place(job, *range(5))
    for index in (3, 1, 4, 0, 2):
        machine.now_ms += 1
        machine.report(machine.ended(job, index, code=1))
    machine.now_ms += 1000
    assert machine.wait(0).events[0] == TasksEligible(job.id, (1, 3))
    machine.state = restore(records(machine.state))
    assert next_deadline(machine.state) == machine.now_ms - 2, "what is left is due"
    assert machine.wait(0).events[0] == TasksEligible(job.id, (0, 4))
    assert machine.wait(0).events[0] == TasksEligible(job.id, (2,))
    assert next_deadline(machine.state) is None


def test_an_ended_job_expires_and_then_its_submission_is_forgotten() -> None:
    machine = Machine()
    job = machine.submit("a")
    machine.cancel(job)
    assert next_deadline(machine.state) == machine.now_ms + RETENTION_MS
    assert JobExpired(job.id) in machine.wait(RETENTION_MS).events
    assert next_deadline(machine.state) == machine.now_ms + SUBMISSION_MEMORY_MS
    assert SubmissionsForgotten(("a",)) in machine.wait(SUBMISSION_MEMORY_MS).events
    assert next_deadline(machine.state) is None


def test_a_step_that_comes_too_early_names_a_later_deadline() -> None:
    machine = Machine()
    first = machine.submit()
    machine.cancel(first)
    machine.now_ms += 5000
    machine.cancel(machine.submit())
    machine.do(DeleteJob(job_id=first.id, actor="ada"))
    machine.wait(RETENTION_MS - 5000)
    deadline = next_deadline(machine.state)
    assert deadline is not None and deadline > machine.now_ms


def test_a_cancelled_retry_leaves_at_most_one_needless_step() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(retries=retries(1, initial_ms=1000))
    machine.place(job)
    machine.end(job, code=1)
    machine.cancel(job)
    machine.wait(1000)
    deadline = next_deadline(machine.state)
    assert deadline is not None and deadline > machine.now_ms


def test_beyond_their_number_the_oldest_ended_jobs_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ENDED_JOBS", 2)
    machine = Machine()
    jobs = [machine.submit() for _ in range(4)]
    for job in (jobs[2], jobs[0], jobs[1], jobs[3]):
        machine.now_ms += 1
        machine.cancel(job)
    assert next_deadline(machine.state) == machine.now_ms
    machine.wait(0)
    assert list(machine.state.jobs) == [jobs[1].id, jobs[3].id]


def test_beyond_their_number_the_submissions_of_the_jobs_that_went_first_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "MAX_TOMBSTONES", 2)
    machine = Machine()
    for name in "abcd":
        machine.now_ms += 1
        job = machine.submit(name)
        machine.cancel(job)
        machine.do(DeleteJob(job_id=job.id, actor="ada"))
    assert next_deadline(machine.state) == machine.now_ms
    assert SubmissionsForgotten(("a", "b")) in machine.wait(0).events
    deadline = next_deadline(machine.state)
    assert deadline is not None and deadline > machine.now_ms


def test_a_step_forgets_a_bounded_number_but_never_tears_apart_what_ended_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "MAX_FORGOTTEN_PER_STEP", 2)
    machine = Machine()
    jobs = [machine.submit() for _ in range(5)]
    for job, later_ms in zip(jobs, (0, 1, 0, 0, 1), strict=True):
        machine.now_ms += later_ms
        machine.cancel(job)
    machine.wait(RETENTION_MS)
    assert list(machine.state.jobs) == [jobs[4].id]
    assert next_deadline(machine.state) == machine.now_ms
    machine.wait(0)
    assert machine.state.jobs == {}
