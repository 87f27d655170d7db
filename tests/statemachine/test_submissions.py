"""Jobs that the cluster submits itself."""

from __future__ import annotations

import msgspec
import pytest

from hasched.model.policy import Amounts, PolicyKind, Quota
from hasched.model.spec import JobSpec
from hasched.statemachine.apply import evolve
from hasched.statemachine.commands import DeleteJob, PutPolicy
from hasched.statemachine.events import JobSubmitted, view
from hasched.statemachine.invariants import check
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.queries.jobs import job_view
from hasched.statemachine.rules.submissions import Submissions
from hasched.statemachine.snapshot import capture, restore
from tests.statemachine.machine import Machine

SPEC = JobSpec(name="job", command=("true",), count=2)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def made(machine: Machine, *specs: JobSpec) -> list[JobSubmitted | Rejected]:
    """What one decision makes of the specs."""
    submissions = Submissions(machine.state)
    return [
        submissions.submit(spec, f"test {machine.state.index} {number}", "ada", f"test/{number}")
        for number, spec in enumerate(specs)
    ]


def perform(machine: Machine, outcomes: list[JobSubmitted | Rejected]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, JobSubmitted):
            evolve(machine.state, outcome)
    assert check(machine.state) == []


def test_several_in_one_decision_have_ids_one_after_the_other(machine: Machine) -> None:
    machine.submit()
    outcomes = made(machine, SPEC, SPEC, SPEC)
    perform(machine, outcomes)
    assert [job.parent for job in machine.state.jobs.values()] == ["", "test/0", "test/1", "test/2"]
    shown = job_view(machine.state, 3)
    assert shown is not None and (shown.parent, shown.actor) == ("test/1", "ada")


def test_each_counts_what_those_before_it_will_have_waiting(machine: Machine) -> None:
    quota = Quota(namespace="default", nominal=Amounts(queued_tasks=5))
    machine.do(PutPolicy(kind=PolicyKind.QUOTA, name="few", body=quota, actor="root"))
    outcomes = made(machine, SPEC, SPEC, SPEC, msgspec.structs.replace(SPEC, count=1))
    assert [type(each) for each in outcomes] == [JobSubmitted, JobSubmitted, Rejected, JobSubmitted]
    assert isinstance(outcomes[2], Rejected) and outcomes[2].code == "quota_exceeded"
    perform(machine, outcomes)
    assert [type(each) for each in made(machine, SPEC)] == [Rejected]


def test_what_no_job_may_be_is_refused_here_too(machine: Machine) -> None:
    machine.wait(0)
    nowhere, late = msgspec.structs.replace(SPEC, namespace="nowhere"), msgspec.structs.replace(SPEC, deadline_ms=1)
    codes = [each.code for each in made(machine, nowhere, late) if isinstance(each, Rejected)]
    assert codes == ["unknown_namespace", "deadline_passed"]


def test_the_same_is_not_made_twice(machine: Machine) -> None:
    submissions = Submissions(machine.state)
    first, again = (submissions.submit(SPEC, "test 1", "ada", "test/1") for _ in range(2))
    assert isinstance(first, JobSubmitted) and isinstance(again, Rejected)
    perform(machine, [first])
    assert isinstance(Submissions(machine.state).submit(SPEC, "test 1", "ada", "test/1"), Rejected)


def test_a_snapshot_tells_whose_job_it_is_and_nothing_is_left_of_it_when_it_is_gone(machine: Machine) -> None:
    perform(machine, made(machine, SPEC))
    job = machine.state.jobs[1]
    captured = capture(machine.state)
    assert restore(iter(captured.next_chunk, None)).jobs[1].parent == "test/0"
    machine.cancel(job)
    machine.do(DeleteJob(job_id=1, actor="ada"))
    assert not machine.state.tombstones


def test_only_the_events_of_such_jobs_name_a_parent() -> None:
    shown = [view(JobSubmitted(1, "test 1", "ada", SPEC, parent), 1, 0, 0).data for parent in ("", "test/1")]
    assert ["parent" in data for data in shown] == [False, True]
