"""Priority classes and updates: where a job stands, decided when it is accepted or changed."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.policy import PolicyKind, Preempts, PriorityClass
from hasched.model.spec import JobSpec
from hasched.statemachine.commands import PutPolicy, SubmitJob, UpdateJob
from hasched.statemachine.events import JobDeadlineExceeded, JobDue, JobUpdated
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules.clock import next_deadline
from tests.statemachine.machine import T0, Machine


def put_class(machine: Machine, name: str, value: int, preempts: Preempts = Preempts.NEVER) -> None:
    body = PriorityClass(value=value, preempts=preempts)
    machine.do(PutPolicy(kind=PolicyKind.PRIORITY_CLASS, name=name, body=body, actor="ada"))


def update(machine: Machine, job_id: int, **changes: Any) -> list[Any]:
    return machine.do(UpdateJob(job_id=job_id, actor="bob", **changes)).events


@pytest.mark.parametrize(("name", "priority", "preempts"), [("low", 100, False), ("high", 900, True)])
def test_a_class_gives_a_job_its_priority(name: str, priority: int, preempts: bool) -> None:
    job = Machine().submit(priority_class=name)
    assert (job.priority, job.priority_class, job.preempts) == (priority, name, preempts)
    assert job.spec.priority == priority


def test_what_becomes_of_a_class_later_concerns_later_jobs() -> None:
    machine = Machine()
    put_class(machine, "night", 7)
    before = machine.submit(priority_class="night")
    put_class(machine, "night", 8, Preempts.LOWER)
    after = machine.submit(priority_class="night")
    assert [(job.priority, job.preempts) for job in (before, after)] == [(7, False), (8, True)]


def test_a_class_that_is_not_there_is_refused_with_those_that_are() -> None:
    machine = Machine()
    spec = JobSpec(name="job", command=("true",), priority_class="urgent")
    outcome = machine.outcome(SubmitJob(submission_id="a", actor="ada", spec=spec))
    assert outcome == Rejected(
        "unknown_priority_class", "there is no priority class urgent", "there are: high, low, medium"
    )
    job = machine.submit()
    assert machine.refusal(UpdateJob(job_id=job.id, actor="ada", priority_class="urgent")) == "unknown_priority_class"


@pytest.mark.parametrize(
    ("changes", "after"),
    [
        pytest.param({"priority": 9}, (9, "", False, "default"), id="a priority ends the class"),
        pytest.param({"priority_class": "low"}, (100, "low", False, "default"), id="another class"),
        pytest.param({"queue": "batch"}, (900, "high", True, "batch"), id="another queue, and the rest stays"),
    ],
)
def test_an_update_changes_what_it_names(changes: dict[str, Any], after: tuple[int, str, bool, str]) -> None:
    machine = Machine()
    job = machine.submit(priority_class="high")
    assert update(machine, job.id, **changes) == [JobUpdated(job.id, "bob", *after, 0, 0)]
    assert (job.priority, job.priority_class, job.preempts, job.queue) == after
    assert update(machine, job.id, **changes) == []


def test_times_can_be_moved_and_lifted() -> None:
    machine = Machine()
    job = machine.submit(not_before_after_ms=100, deadline_after_ms=1000)
    update(machine, job.id, not_before_after_ms=200, deadline_ms=T0 + 2000)
    assert not machine.wait(150).events[:-1]
    assert JobDue(job.id) in machine.wait(50).events
    assert not machine.wait(1000).events[:-1]
    update(machine, job.id, deadline_ms=0)
    assert not machine.wait(10_000).events[:-1]
    assert next_deadline(machine.state) is None
    update(machine, job.id, deadline_after_ms=5)
    assert JobDeadlineExceeded(job.id, 1, ()) in machine.wait(5).events


def test_a_job_is_let_go_at_once() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(not_before_after_ms=100)
    update(machine, job.id, not_before_ms=0)
    machine.place(job)
    assert job.active == 1
    assert machine.refusal(UpdateJob(job_id=job.id, actor="bob", not_before_after_ms=9)) == "job_started"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"deadline_ms": T0}, "deadline_passed"),
        ({"deadline_after_ms": 5, "not_before_after_ms": 5}, "deadline_passed"),
        ({"priority": 10**9}, "invalid_update"),
        ({"queue": "a b"}, "invalid_update"),
        ({"deadline_ms": -1}, "invalid_update"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any], code: str) -> None:
    machine = Machine()
    job = machine.submit()
    assert machine.refusal(UpdateJob(job_id=job.id, actor="bob", **changes)) == code


def test_what_has_ended_or_is_ending_stays_as_it_is() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit()
    assert machine.refusal(UpdateJob(job_id=99, actor="bob", priority=1)) == "no_such_job"
    machine.place(job)
    machine.cancel(job)
    assert machine.refusal(UpdateJob(job_id=job.id, actor="bob", priority=1)) == "job_ending"
    machine.end(job)
    assert machine.refusal(UpdateJob(job_id=job.id, actor="bob", priority=1)) == "job_ended"
