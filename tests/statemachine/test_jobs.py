"""Jobs: submitted once, suspended, resumed, cancelled, deleted."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.spec import MAX_TASKS, Backoff, JobSpec, Resources, Retries
from hasched.model.states import EndKind, TaskState
from hasched.statemachine.commands import CancelJob, DeleteJob, ResumeJob, SubmitJob, SuspendJob
from hasched.statemachine.events import JobCancelRequested, JobEnded
from hasched.statemachine.outcomes import Done, JobAccepted, ReportsTaken
from hasched.statemachine.state import SUBMISSION_MEMORY_MS
from tests.statemachine.machine import Machine, retries

SPEC = JobSpec(name="job", command=("true",))


def submission(submission_id: str) -> SubmitJob:
    return SubmitJob(submission_id=submission_id, actor="ada", spec=SPEC)


def test_jobs_are_numbered_in_the_order_of_the_log() -> None:
    machine = Machine()
    applied = machine.do(submission("a"), submission("b"))
    assert applied.outcomes == [JobAccepted(1, False, 1), JobAccepted(2, False, 1)]


def test_a_repeated_submission_gets_the_first_outcome() -> None:
    machine = Machine()
    machine.do(submission("a"))
    applied = machine.do(submission("a"), submission("b"), submission("b"))
    assert applied.outcomes == [JobAccepted(1, True, 1), JobAccepted(2, False, 2), JobAccepted(2, True, 2)]


def test_a_submission_is_remembered_for_a_day_after_its_job_was_deleted() -> None:
    machine = Machine()
    job = machine.submit("a")
    machine.cancel(job)
    machine.do(DeleteJob(job_id=job.id, actor="ada"))
    machine.wait(SUBMISSION_MEMORY_MS - 1)
    assert machine.outcome(submission("a")) == JobAccepted(1, True, 1)
    machine.wait(1)
    assert machine.outcome(submission("a")) == JobAccepted(2, False, machine.state.index)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(JobSpec(name="job", count=0), id="no task"),
        pytest.param(JobSpec(name="job", count=MAX_TASKS + 1), id="too many tasks"),
        pytest.param(JobSpec(name="job", resources=Resources(memory_bytes=-1)), id="negative memory"),
        pytest.param(
            JobSpec(name="job", resources=Resources(countables=(("b", 1), ("a", 1)))), id="unsorted countables"
        ),
        pytest.param(JobSpec(name="job", resources=Resources(countables=(("a", 0),))), id="none of a countable"),
        pytest.param(JobSpec(name="j" * 300), id="an endless name"),
        pytest.param(JobSpec(name="job", input=b"x" * 300_000), id="a huge input"),
    ],
)
def test_a_spec_that_no_edge_would_let_through_is_refused(spec: JobSpec) -> None:
    assert Machine().refusal(SubmitJob(submission_id="a", actor="ada", spec=spec)) == "invalid_spec"


@pytest.mark.parametrize("submission_id", ["", "x" * 257])
def test_a_submission_id_has_1_to_256_characters(submission_id: str) -> None:
    assert Machine().refusal(submission(submission_id)) == "invalid_spec"


def test_a_suspended_job_starts_nothing_and_keeps_its_resources() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=2)
    machine.place(job, 0)
    assert machine.outcome(SuspendJob(job_id=job.id, actor="ada")) == Done()
    assert machine.outcome(SuspendJob(job_id=job.id, actor="ada")) == Done()
    assert machine.place(job, 1).events == []
    assert machine.state.nodes["n1"].allocated_cpu_milli == 1000
    assert machine.outcome(ResumeJob(job_id=job.id, actor="ada")) == Done()
    assert len(machine.place(job, 1).events) == 1


def test_cancelling_ends_what_waits_at_once_and_the_rest_when_its_agent_says_so() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=3)
    machine.place(job, 0, 1)
    machine.start(job, 0)
    applied = machine.cancel(job)
    assert applied.events == [JobCancelRequested(job.id, "bob", "not needed", (), 1, (0, 1))]
    assert [job.task_state(index).name for index in range(3)] == ["RUNNING", "SCHEDULED", "CANCELLED"]
    assert machine.cancel(job).outcomes == [Done()]
    machine.end(job, 0, kind=EndKind.STOPPED)
    assert machine.end(job, 1, kind=EndKind.SIGNALED, code=15).events[-1] == JobEnded(job.id, TaskState.CANCELLED)


def test_success_before_the_stop_struck_counts() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit()
    machine.place(job)
    machine.cancel(job)
    assert machine.end(job).events[-1] == JobEnded(job.id, TaskState.SUCCEEDED)


def test_single_tasks_can_be_cancelled() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=4)
    machine.place(job, 0, 1)
    applied = machine.cancel(job, 3, 1, 1)
    assert applied.events == [JobCancelRequested(job.id, "bob", "not needed", (1, 3), 1, (1,))]
    assert not job.cancelling
    assert machine.cancel(job, 1, 3).events == []
    machine.end(job, 0)
    machine.end(job, 1, kind=EndKind.STOPPED)
    machine.place(job, 2)
    assert machine.end(job, 2).events[-1] == JobEnded(job.id, TaskState.CANCELLED)


def test_a_job_whose_last_waiting_task_is_cancelled_has_ended() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=2)
    machine.place(job, 0)
    machine.end(job, 0)
    assert machine.cancel(job, 1).events[-1] == JobEnded(job.id, TaskState.CANCELLED)


def test_a_retry_in_backoff_is_cancelled_like_any_waiting_task() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(retries=retries(1, initial_ms=1000))
    machine.place(job)
    machine.end(job, code=1)
    assert machine.cancel(job).events[-1] == JobEnded(job.id, TaskState.CANCELLED)
    assert [type(event).__name__ for event in machine.wait(2000).events] == ["ClockStepped"]


def test_cancelling_a_hundred_thousand_waiting_tasks_leaves_no_record_of_each() -> None:
    machine = Machine()
    job = machine.submit(count=100_000)
    machine.do(CancelJob(job_id=job.id, actor="bob"))
    assert job.ended
    assert job.histories is None and job.finished is None


def test_only_an_ended_job_can_be_deleted() -> None:
    machine = Machine()
    job = machine.submit()
    assert machine.refusal(DeleteJob(job_id=job.id, actor="ada")) == "job_active"
    machine.cancel(job)
    assert machine.outcome(DeleteJob(job_id=job.id, actor="ada")) == Done()
    assert machine.refusal(DeleteJob(job_id=job.id, actor="ada")) == "no_such_job"
    assert not any(machine.state.task_counts)


@pytest.mark.parametrize("command", [CancelJob, SuspendJob, ResumeJob, DeleteJob])
def test_a_job_that_never_was_is_said_so(command: type[CancelJob]) -> None:
    assert Machine().refusal(command(job_id=9, actor="ada")) == "no_such_job"


@pytest.mark.parametrize("command", [CancelJob, SuspendJob, ResumeJob])
def test_a_job_that_has_ended_by_itself_can_no_longer_be_changed(command: type[CancelJob]) -> None:
    machine = Machine()
    machine.node()
    job = machine.submit()
    machine.place(job)
    machine.end(job)
    assert machine.refusal(command(job_id=job.id, actor="ada")) == "job_ended"


def test_a_job_that_is_being_cancelled_is_not_suspended() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit()
    machine.place(job)
    machine.cancel(job)
    assert machine.refusal(SuspendJob(job_id=job.id, actor="ada")) == "job_cancelling"


def test_a_task_that_the_job_does_not_have_cannot_be_cancelled() -> None:
    machine = Machine()
    job = machine.submit(count=2)
    assert machine.refusal(CancelJob(job_id=job.id, actor="ada", indices=(0, 2))) == "no_such_task"
    assert machine.refusal(CancelJob(job_id=job.id, actor="ada", indices=(-1,))) == "no_such_task"


def test_deleted_jobs_take_no_reports() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit()
    machine.place(job)
    machine.end(job)
    machine.do(DeleteJob(job_id=job.id, actor="ada"))
    outcome = machine.end(job).outcomes[0]
    assert isinstance(outcome, ReportsTaken) and len(outcome.refused) == 1


@pytest.mark.parametrize(
    ("ends", "state", "exit_code"),
    [
        pytest.param((0, 0), TaskState.SUCCEEDED, 0, id="all succeeded"),
        pytest.param((0, 3), TaskState.FAILED, 3, id="one failed"),
        pytest.param((4, 3), TaskState.FAILED, 4, id="the first that failed gives the exit code"),
    ],
)
def test_a_job_ends_as_the_most_telling_of_its_tasks(ends: tuple[int, int], state: TaskState, exit_code: int) -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=2)
    machine.place(job, 0, 1)
    for index, code in enumerate(ends):
        machine.end(job, index, code=code)
    assert (job.state, job.exit_code) == (state, exit_code)


def test_a_cancelled_job_is_cancelled_whatever_its_tasks_did_before() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=3)
    machine.place(job, 0, 1)
    machine.end(job, 0, code=1)
    machine.end(job, 1)
    assert machine.cancel(job).events[-1] == JobEnded(job.id, TaskState.CANCELLED)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"timeout_ms": 2**62}, id="a time limit"),
        pytest.param({"kill_grace_ms": -1}, id="a grace"),
        pytest.param({"retries": Retries(max=2**62)}, id="retries"),
        pytest.param({"retries": Retries(backoff=Backoff(initial_ms=2**62))}, id="a backoff"),
        pytest.param({"retries": Retries(backoff=Backoff(multiplier_milli=-1))}, id="a multiplier"),
    ],
)
def test_numbers_that_no_snapshot_could_hold_are_refused(fields: dict[str, Any]) -> None:
    spec = JobSpec(name="job", command=("true",), **fields)
    assert Machine().refusal(SubmitJob(submission_id="a", actor="ada", spec=spec)) == "invalid_spec"
