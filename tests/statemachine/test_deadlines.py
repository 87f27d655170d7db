"""Deadlines and times before which nothing starts: kept by the clock alone, for any number of jobs."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasched.model.spec import JobSpec
from hasched.model.states import TaskState
from hasched.statemachine import state as tables
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import SubmitJob, UpdateJob, decode_batch
from hasched.statemachine.digest import digest
from hasched.statemachine.events import JobDeadlineExceeded, JobDue
from hasched.statemachine.rules import deadlines
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.snapshot import _job_decoder, _pack_job, capture, restore
from hasched.statemachine.state import State
from tests.statemachine.machine import T0, Machine


@pytest.mark.parametrize(
    ("fields", "not_before_ms", "deadline_ms"),
    [
        pytest.param({"not_before_ms": T0 + 5, "deadline_ms": T0 + 9}, T0 + 5, T0 + 9, id="times"),
        pytest.param({"not_before_after_ms": 5, "deadline_after_ms": 9}, T0 + 5, T0 + 9, id="after the submission"),
        pytest.param({"not_before_ms": T0}, 0, 0, id="a start that has come"),
    ],
)
def test_a_job_knows_its_times(fields: dict[str, int], not_before_ms: int, deadline_ms: int) -> None:
    machine = Machine()
    job = machine.submit(**fields)
    assert (job.not_before_ms, job.deadline_ms) == (not_before_ms, deadline_ms)
    assert next_deadline(machine.state) == (not_before_ms or deadline_ms or None)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"deadline_ms": T0}, id="a deadline that has passed"),
        pytest.param({"deadline_after_ms": 5, "not_before_after_ms": 5}, id="no time in between"),
        pytest.param({"deadline_after_ms": 5, "not_before_ms": T0 + 6}, id="no time in between, told in two ways"),
    ],
)
def test_what_could_never_run_is_refused(fields: dict[str, int]) -> None:
    spec = JobSpec(name="job", command=("true",), **fields)
    assert Machine().refusal(SubmitJob(submission_id="a", actor="ada", spec=spec)) == "deadline_passed"


def test_a_repeated_submission_is_not_refused_because_time_went_on() -> None:
    machine = Machine()
    first = machine.submit("a", deadline_ms=T0 + 5)
    machine.wait(10)
    assert first.state is TaskState.DEADLINE_EXCEEDED
    assert machine.submit("a", deadline_ms=T0 + 5) is first


def test_a_step_does_a_bounded_number_of_jobs_and_the_rest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "MAX_JOBS_PER_STEP", 2)
    machine = Machine()
    jobs = [machine.submit(deadline_after_ms=ms) for ms in (30, 10, 20, 10, 5000)]
    machine.wait(1000)
    assert [job.id for job in jobs if job.ended] == [2, 4]
    assert next_deadline(machine.state) == T0 + 20
    machine.wait(0)
    assert [job.id for job in jobs if job.ended] == [1, 2, 3, 4]
    assert machine.wait(4000).events[0] == JobDeadlineExceeded(5, 1, ())


def test_times_of_jobs_that_are_gone_mean_nothing() -> None:
    machine = Machine()
    machine.cancel(machine.submit(not_before_after_ms=10, deadline_after_ms=20))
    assert not [event for event in machine.wait(50).events if isinstance(event, JobDue | JobDeadlineExceeded)]
    assert machine.state.job_timers == []


def test_a_time_that_a_job_had_before_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "MAX_JOBS_PER_STEP", 2)
    machine = Machine()
    jobs = [machine.submit(deadline_after_ms=ms) for ms in (50, 51, 10)]
    machine.do(UpdateJob(job_id=3, actor="ada", deadline_ms=T0 + 90))
    captured = capture(machine.state)
    restored = restore(iter(captured.next_chunk, None))
    machine.wait(100)
    apply(restored, machine.state.index, decode_batch(machine.log[-1]))
    assert [job.id for job in jobs if job.ended] == [1, 2]
    assert digest(machine.state) == digest(restored)


def test_times_that_mean_nothing_more_are_sorted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "STALE_TIMERS", 10)
    machine = Machine()
    job = machine.submit(deadline_ms=T0 + 1000)
    for priority in range(5):
        machine.do(UpdateJob(job_id=job.id, actor="ada", priority=priority))
    assert machine.state.job_timers == [(T0 + 1000, job.id)], "its times are what they were"
    for number in range(100):
        machine.do(UpdateJob(job_id=job.id, actor="ada", deadline_ms=T0 + 2000 + number % 50))
        machine.cancel(machine.submit(not_before_after_ms=100, deadline_after_ms=3000))
        assert len(machine.state.job_timers) <= 2 * 3 + 10
    assert JobDeadlineExceeded(job.id, 1, ()) in machine.wait(2049).events


TIMES = st.tuples(st.integers(0, 40), st.integers(0, 40)).filter(lambda times: not times[1] or times[1] > times[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(TIMES, min_size=1, max_size=8), st.lists(st.integers(0, 15), max_size=8))
def test_nothing_is_late_and_nothing_is_early_however_the_clock_is_stepped(
    jobs: list[tuple[int, int]], waits: list[int]
) -> None:
    machine = Machine()
    all_jobs = [(machine.submit(not_before_after_ms=start, deadline_after_ms=end), start, end) for start, end in jobs]
    for wait_ms in [*waits, 50]:
        captured = capture(machine.state)
        machine.state = restore(iter(captured.next_chunk, None))
        machine.wait(wait_ms)
        after_ms = machine.now_ms - T0
        for submitted, start, end in all_jobs:
            job = machine.state.jobs[submitted.id]
            over = 0 < end <= after_ms
            assert (job.state is TaskState.DEADLINE_EXCEEDED) is over
            assert bool(job.not_before_ms) is (not over and start > after_ms)
        assert next_deadline(machine.state) is None or next_deadline(machine.state) > machine.now_ms  # type: ignore[operator]


class TestSnapshotsOfEarlierVersions:
    def test_a_job_that_uses_nothing_new_is_written_as_it_was(self) -> None:
        job = Machine().submit(count=3)
        assert len(msgspec.msgpack.decode(_pack_job(job))) == 28
        assert len(msgspec.msgpack.decode(_pack_job(job))[16]) == 9

    def test_and_what_was_written_then_is_read(self) -> None:
        machine = Machine()
        machine.submit(count=3)
        machine.submit(count=2, deadline_after_ms=10)
        machine.wait(20)
        captured = capture(machine.state)
        restored = restore(iter(captured.next_chunk, None))
        assert digest(restored) == digest(machine.state)
        assert list(restored.jobs[1].counts) == list(machine.state.jobs[1].counts)
        assert restored.task_counts == machine.state.task_counts

    def test_what_stands_between_two_that_are_left_out_is_kept(self) -> None:
        job = Machine().submit(deadline_after_ms=10)
        assert _job_decoder.decode(_pack_job(job)) == job

    def test_an_empty_state_has_no_timers(self) -> None:
        assert State().job_timers == []
