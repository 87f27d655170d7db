"""Attempts: placed once, fenced by their number, recorded once, tried again as the job asks."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.spec import MAX_JOB_OUTPUT_BYTES, MAX_OUTPUT_BYTES, Backoff, Resources
from hasched.model.states import BackoffKind, EndKind, NodeState, RestartPolicy, TaskState
from hasched.model.views import Reason
from hasched.model.wire import AttemptEnded, AttemptKey, AttemptReport, AttemptStarted, Usage
from hasched.statemachine import queries
from hasched.statemachine.commands import Placement, PlacePlan, ReportAttempts, SetNodeState
from hasched.statemachine.digest import digest
from hasched.statemachine.events import JobEnded, LateReportRefused
from hasched.statemachine.invariants import check
from hasched.statemachine.job import FIRST_ATTEMPTS_KEPT, LATEST_ATTEMPTS_KEPT
from hasched.statemachine.outcomes import PlanTaken, ReportsTaken
from hasched.statemachine.rules.ends import OUTPUT_DROPPED, backoff_ms
from hasched.statemachine.snapshot import capture, records, restore
from hasched.statemachine.state import Job
from tests.statemachine.machine import GIB, Machine, retries

TAKEN = ReportsTaken(())


def placed(**fields: object) -> tuple[Machine, Job]:
    machine = Machine()
    machine.node()
    job = machine.submit(**fields)
    machine.place(job)
    return machine, job


def refused(applied_job: Job, attempt: int = 1) -> ReportsTaken:
    return ReportsTaken((AttemptKey(applied_job.id, 0, attempt),))


# ── Placement ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("resources", "scheduled"),
    [
        pytest.param(Resources(cpu_milli=1000), 4, id="as many as there are cores"),
        pytest.param(Resources(cpu_milli=1500), 2, id="no fraction of a task"),
        pytest.param(Resources(cpu_milli=10, memory_bytes=6 * GIB), 2, id="memory"),
        pytest.param(Resources(gpus=1), 2, id="GPUs"),
        pytest.param(Resources(countables=(("licence", 2),)), 1, id="countables"),
        pytest.param(Resources(countables=(("scanner", 1),)), 0, id="a countable that the node hasn't"),
        pytest.param(Resources(), 6, id="nothing asked"),
    ],
)
def test_a_node_takes_what_fits_and_the_rest_of_the_plan_is_refused(resources: Resources, scheduled: int) -> None:
    machine = Machine()
    machine.node(cpu=4, gpus=2, countables=(("licence", 3),))
    job = machine.submit(count=6, resources=resources)
    applied = machine.place(job, *range(6))
    assert applied.outcomes == [PlanTaken(scheduled, 6 - scheduled)]
    assert list(job.pending_indices()) == list(range(scheduled, 6))


def test_two_plans_that_cross_do_not_start_a_task_twice() -> None:
    machine = Machine()
    machine.node("n1")
    machine.node("n2")
    job = machine.submit(count=2)
    one = PlacePlan(placements=(Placement(job.id, "n1", (0, 1)),))
    other = PlacePlan(placements=(Placement(job.id, "n2", (1, 0)),))
    assert machine.do(one, other).outcomes == [PlanTaken(2, 0), PlanTaken(0, 2)]


def test_placements_of_one_plan_see_each_other() -> None:
    machine = Machine()
    machine.node(cpu=1)
    first, second = machine.submit(), machine.submit()
    plan = PlacePlan(placements=(Placement(first.id, "n1", (0, 0)), Placement(second.id, "n1", (0,))))
    assert machine.do(plan).outcomes == [PlanTaken(1, 2)]


def test_max_running_is_kept() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=4, max_running=2)
    assert machine.place(job, 0, 1, 2).outcomes == [PlanTaken(2, 1)]
    machine.end(job, 0)
    assert machine.place(job, 2, 3).outcomes == [PlanTaken(1, 1)]


@pytest.mark.parametrize("state", [NodeState.UNHEALTHY, NodeState.DISCONNECTED])
def test_only_a_healthy_node_gets_work(state: NodeState) -> None:
    machine = Machine()
    machine.node()
    machine.do(SetNodeState(node_id="n1", state=state, reason="silent"))
    assert machine.place(machine.submit()).outcomes == [PlanTaken(0, 1)]


@pytest.mark.parametrize(
    "placement",
    [
        pytest.param(Placement(9, "n1", (0,)), id="no such job"),
        pytest.param(Placement(1, "n9", (0,)), id="no such node"),
        pytest.param(Placement(1, "n1", (1,)), id="no such task"),
        pytest.param(Placement(1, "n1", (-1,)), id="a negative index"),
    ],
)
def test_nonsense_in_a_plan_is_refused(placement: Placement) -> None:
    machine = Machine()
    machine.node()
    machine.submit()
    assert machine.do(PlacePlan(placements=(placement,))).outcomes == [PlanTaken(0, 1)]


# ── Ends ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "code", "state"),
    [
        pytest.param(EndKind.EXITED, 0, TaskState.SUCCEEDED, id="a clean exit"),
        pytest.param(EndKind.EXITED, 7, TaskState.SUCCEEDED, id="a code that the job calls success"),
        pytest.param(EndKind.EXITED, 1, TaskState.FAILED, id="any other code"),
        pytest.param(EndKind.SIGNALED, 9, TaskState.FAILED, id="a signal"),
        pytest.param(EndKind.LAUNCH_FAILED, 0, TaskState.FAILED, id="no such command"),
        pytest.param(EndKind.TIMED_OUT, 0, TaskState.TIMED_OUT, id="too long"),
        pytest.param(EndKind.OUT_OF_MEMORY, 0, TaskState.OUT_OF_MEMORY, id="too big"),
        pytest.param(EndKind.LOST, 0, TaskState.NODE_LOST, id="the node rebooted"),
        pytest.param(EndKind.STOPPED, 0, TaskState.NODE_LOST, id="the lease ran out"),
    ],
)
def test_how_an_attempt_ends_is_what_its_task_becomes(kind: EndKind, code: int, state: TaskState) -> None:
    machine, job = placed(success_exit_codes=(0, 7), retries=retries(node_lost=0))
    applied = machine.end(job, kind=kind, code=code)
    assert applied.outcomes == [TAKEN]
    assert applied.events[-1] == JobEnded(job.id, state)
    assert machine.state.nodes["n1"].allocated == Resources()


@pytest.mark.parametrize("kind", list(EndKind))
def test_whatever_ends_a_cancelled_attempt_it_is_cancelled(kind: EndKind) -> None:
    machine, job = placed(retries=retries(5))
    machine.cancel(job)
    assert machine.end(job, kind=kind, code=15).events[-1] == JobEnded(job.id, TaskState.CANCELLED)


@pytest.mark.parametrize(
    ("code", "failures_before", "state"),
    [
        pytest.param(0, 0, TaskState.SUCCEEDED, id="a clean exit finishes the task"),
        pytest.param(1, 0, TaskState.PENDING, id="a first failure is tried again"),
        pytest.param(1, 1, TaskState.PENDING, id="and a second"),
        pytest.param(1, 2, TaskState.FAILED, id="the last failure is final"),
        pytest.param(0, 2, TaskState.SUCCEEDED, id="the last attempt may succeed"),
    ],
)
def test_a_failed_task_is_tried_again_as_often_as_its_job_asks(
    code: int, failures_before: int, state: TaskState
) -> None:
    machine, job = placed(retries=retries(2))
    for attempt in range(1, failures_before + 1):
        machine.end(job, attempt=attempt, code=1)
        machine.place(job)
    machine.end(job, attempt=failures_before + 1, code=code)
    assert job.task_state(0) is state


def test_lost_nodes_draw_on_their_own_budget_and_never_wait() -> None:
    machine, job = placed(retries=retries(1, node_lost=1, initial_ms=1000))
    machine.lose()
    assert list(job.pending_indices()) == [0]
    machine.node()
    machine.place(job)
    machine.end(job, attempt=2, code=1)
    assert list(job.pending_indices()) == [] and job.task_state(0) is TaskState.PENDING
    machine.wait(1000)
    machine.place(job)
    assert machine.lose().events[-1] == JobEnded(job.id, TaskState.NODE_LOST)


def test_restart_never_means_one_attempt_whatever_happens() -> None:
    machine, job = placed(retries=retries(5), restart=RestartPolicy.NEVER)
    assert machine.lose().events[-1] == JobEnded(job.id, TaskState.NODE_LOST)


def test_a_task_in_backoff_is_not_placed_before_its_time() -> None:
    machine, job = placed(retries=retries(2, initial_ms=1000))
    machine.end(job, code=1)
    machine.wait(999)
    assert machine.place(job).events == []
    machine.wait(1)
    assert machine.place(job).outcomes == [PlanTaken(1, 0)]
    attempt = job.attempt_of(0)
    assert attempt is not None and attempt.attempt == 2


@pytest.mark.parametrize(
    ("backoff", "waits_ms"),
    [
        pytest.param(Backoff(BackoffKind.LINEAR, 10, 35), (10, 20, 30, 35, 35), id="linear"),
        pytest.param(Backoff(BackoffKind.EXPONENTIAL, 10, 75, 2000), (10, 20, 40, 75, 75), id="exponential"),
        pytest.param(Backoff(BackoffKind.EXPONENTIAL, 10, 75, 1500), (10, 15, 22, 33, 49), id="by half as much"),
        pytest.param(Backoff(BackoffKind.EXPONENTIAL, 10, 75, 1000), (10, 10, 10, 10, 10), id="never longer"),
        pytest.param(Backoff(BackoffKind.EXPONENTIAL, 0, 75), (0, 0, 0, 0, 0), id="none"),
    ],
)
def test_backoff(backoff: Backoff, waits_ms: tuple[int, ...]) -> None:
    assert tuple(backoff_ms(backoff, retry) for retry in range(1, 6)) == waits_ms
    assert backoff_ms(backoff, 10**9) == max(waits_ms) or backoff.multiplier_milli == 1500


def test_output_is_kept_and_capped() -> None:
    machine, job = placed()
    machine.end(job, output=b"x" * (MAX_OUTPUT_BYTES + 1))
    assert job.outputs == {0: b"x" * MAX_OUTPUT_BYTES}


def test_the_outputs_of_a_job_are_capped_together_and_what_is_dropped_is_said() -> None:
    machine = Machine()
    fits = MAX_JOB_OUTPUT_BYTES // MAX_OUTPUT_BYTES
    machine.node(cpu=fits + 3)
    job = machine.submit(count=fits + 3)
    machine.place(job, *range(fits + 3))
    full = b"x" * MAX_OUTPUT_BYTES
    machine.report(*(machine.ended(job, index, output=full) for index in range(fits)))
    machine.state = restore(records(machine.state))
    job = machine.state.jobs[job.id]
    machine.report(
        machine.ended(job, fits, output=b"1"),
        machine.ended(job, fits + 1, output=b"1", code=3),
        machine.ended(job, fits + 2, output=b"1", kind=EndKind.TIMED_OUT, reason="too slow"),
    )
    machine.state = restore(records(machine.state))
    assert check(machine.state) == []
    kept, dropped, failed, late = (
        queries.task_view(machine.state, job.id, index) for index in range(fits - 1, fits + 3)
    )
    assert kept and (kept.output, kept.reason) == (full.decode(), None)
    assert dropped and dropped.reason and (dropped.output, dropped.reason.code) == (None, "output_dropped")
    assert dropped.state == "SUCCEEDED" and machine.state.jobs[job.id].plain_end_of(fits) is not None
    assert failed and failed.reason and failed.reason.text == f"exited with code 3; {OUTPUT_DROPPED}"
    assert late and late.reason and late.reason.text == f"too slow; {OUTPUT_DROPPED}"


# ── Reports ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_repeated_report_is_taken_and_changes_nothing() -> None:
    machine, job = placed(retries=retries(1))
    for report in (machine.started(job), machine.ended(job, code=1)):
        assert machine.report(report).outcomes == [TAKEN]
        repeated = machine.report(report)
        assert (repeated.outcomes, repeated.events) == ([TAKEN], [])
    machine.place(job)
    machine.end(job, attempt=2)
    for report in (machine.ended(job, code=1), machine.ended(job, attempt=2)):
        repeated = machine.report(report)
        assert (repeated.outcomes, repeated.events) == ([TAKEN], [])


@pytest.mark.parametrize(
    "impossible",
    [
        pytest.param({"kind": EndKind.SIGNALED, "code": 2**64 - 1}, id="a signal"),
        pytest.param({"code": -(2**63)}, id="an exit code"),
        pytest.param({"usage": Usage(2**63, 0)}, id="CPU time"),
        pytest.param({"usage": Usage(0, -1)}, id="memory"),
    ],
)
def test_a_report_of_impossible_numbers_is_refused(impossible: dict[str, Any]) -> None:
    machine, job = placed()
    assert machine.end(job, **impossible).outcomes == [refused(job)]
    machine.lose()
    assert machine.end(job, **impossible).events == []
    assert list(capture(machine.state).next_chunk() or b"")


@pytest.mark.parametrize("time_ms", [-1, 2**64 - 1])
def test_a_report_of_impossible_times_is_refused(time_ms: int) -> None:
    machine, job = placed()
    assert machine.report(AttemptStarted(job.id, 0, 1, time_ms)).outcomes == [refused(job)]
    assert machine.report(AttemptEnded(job.id, 0, 1, 5, time_ms, EndKind.EXITED)).outcomes == [refused(job)]


def test_a_repeat_of_a_plain_end_is_taken() -> None:
    machine, job = placed()
    machine.end(job)
    assert machine.end(job).outcomes == [TAKEN]


def test_start_and_end_may_come_in_one_batch() -> None:
    machine, job = placed()
    applied = machine.report(machine.started(job), machine.ended(job))
    assert [type(event).__name__ for event in applied.events] == ["AttemptStarted", "AttemptEnded", "JobEnded"]


def test_a_start_that_is_known_outlives_a_report_that_does_not_know_it() -> None:
    machine, job = placed()
    machine.report(machine.started(job))
    began_ms = machine.now_ms
    lost = AttemptEnded(job.id, 0, 1, 0, began_ms + 50, EndKind.LOST, reason="the node rebooted")
    machine.report(lost)
    assert job.history_of(0).attempts[0].started_ms == began_ms


def test_a_lost_attempt_has_no_say_and_its_late_report_is_shown() -> None:
    machine, job = placed()
    machine.lose("n1")
    machine.node("n2")
    machine.place(job, node_id="n2")
    applied = machine.end(job, attempt=1, node_id="n1")
    assert applied.outcomes == [refused(job)]
    assert applied.events == [LateReportRefused(job.id, 0, 1, "n1", TaskState.SUCCEEDED, EndKind.EXITED, 0)]
    assert job.task_state(0) is TaskState.SCHEDULED
    again = machine.end(job, attempt=1, node_id="n1")
    assert (again.outcomes, again.events) == ([refused(job)], [])
    machine.end(job, attempt=2, node_id="n2", code=1)
    shown = queries.task_view(machine.state, job.id, 0)
    assert shown is not None
    assert [attempt.state for attempt in shown.attempts] == ["NODE_LOST", "FAILED"]
    assert shown.attempts[0].late_report is not None and shown.attempts[0].late_report.state == "SUCCEEDED"


@pytest.mark.parametrize("how", [{}, {"reason": "in words"}], ids=["kept plainly", "kept in full"])
def test_only_the_node_that_ran_an_attempt_can_repeat_its_end(how: dict[str, str]) -> None:
    machine, job = placed()
    machine.node("n2")
    machine.end(job, **how)
    assert machine.end(job, node_id="n2", **how).outcomes == [refused(job)]
    assert machine.end(job, node_id="n1", **how).outcomes == [TAKEN]


def test_a_lost_attempt_that_says_it_started_is_refused() -> None:
    machine, job = placed()
    machine.lose()
    assert machine.start(job).outcomes == [refused(job)]


def nonsense(machine: Machine, job: Job) -> dict[str, tuple[AttemptReport, str]]:
    other = machine.submit()
    return {
        "from another node": (machine.ended(job), "n2"),
        "of an attempt to come": (machine.ended(job, attempt=2), "n1"),
        "of attempt 0": (machine.ended(job, attempt=0), "n1"),
        "of no task": (machine.ended(job, index=5), "n1"),
        "of a negative task": (machine.ended(job, index=-1), "n1"),
        "of a task that never started": (machine.ended(other), "n1"),
    }


@pytest.mark.parametrize("what", list(nonsense(*placed())))
def test_a_report_that_nobody_can_make_is_refused(what: str) -> None:
    machine, job = placed()
    machine.node("n2")
    report, node_id = nonsense(machine, job)[what]
    applied = machine.do(ReportAttempts(node_id=node_id, reports=(report,)))
    assert applied.outcomes == [ReportsTaken((AttemptKey(report.job_id, report.index, report.attempt),))]
    assert applied.events == []


def test_a_cancelled_attempt_on_a_lost_node_is_cancelled_and_not_tried_again() -> None:
    machine, job = placed()
    machine.cancel(job)
    assert machine.lose().events[-1] == JobEnded(job.id, TaskState.CANCELLED)


def test_an_unhealthy_node_may_still_report() -> None:
    machine, job = placed()
    machine.do(SetNodeState(node_id="n1", state=NodeState.UNHEALTHY, reason="late"))
    assert machine.end(job).outcomes == [TAKEN]


def test_who_has_lost_a_device_is_tried_again_on_the_nodes_budget_and_says_why() -> None:
    machine = Machine()
    machine.node(gpus=1)
    job = machine.submit(resources=Resources(gpus=1), retries=retries(node_lost=1))
    for attempt, state in ((1, TaskState.PENDING), (2, TaskState.NODE_LOST)):
        machine.place(job)
        machine.end(job, attempt=attempt, kind=EndKind.DEVICE_LOST, reason="a GPU that it held is gone: GPU-A")
        assert job.task_state(0) is state
    shown = queries.task_view(machine.state, job.id, 0)
    assert shown is not None
    assert [attempt.reason for attempt in shown.attempts] == [
        Reason(code="device_lost", text="a GPU that it held is gone: GPU-A")
    ] * 2


def preempted_often(times: int) -> tuple[Machine, Job]:
    machine, job = placed(restart=RestartPolicy.NEVER)
    for attempt in range(1, times + 1):
        machine.start(job, attempt=attempt)
        machine.preempt(job)
        machine.end(job, attempt=attempt, kind=EndKind.STOPPED)
        machine.place(job)
    return machine, job


def test_of_very_many_attempts_the_first_few_and_the_latest_are_kept() -> None:
    machine, job = preempted_often(40)
    shown = queries.task_view(machine.state, job.id, 0)
    assert shown is not None
    assert [attempt.attempt for attempt in shown.attempts] == [1, 2, 3, 4, *range(29, 42)]
    assert (shown.attempt, shown.attempts_dropped) == (41, 24)
    assert digest(restore(records(machine.state))) == digest(machine.state)
    machine.end(job, attempt=41)
    shown = queries.task_view(machine.state, job.id, 0)
    assert shown is not None and shown.state == "SUCCEEDED"
    assert (shown.attempts[-1].attempt, shown.attempts_dropped) == (41, 25)


def test_a_task_never_holds_more_attempts_than_are_kept() -> None:
    machine, job = preempted_often(3)
    sizes = []
    for attempt in range(4, 30):
        machine.preempt(job)
        machine.end(job, attempt=attempt, kind=EndKind.STOPPED)
        machine.place(job)
        history = job.history_of(0)
        assert history is not None and history.made == attempt
        sizes.append(len(history.attempts))
    assert max(sizes) == FIRST_ATTEMPTS_KEPT + LATEST_ATTEMPTS_KEPT == sizes[-1]


@pytest.mark.parametrize(
    ("attempt", "taken"),
    [
        pytest.param(2, True, id="one of the first, again"),
        pytest.param(5, False, id="one that isn't kept"),
        pytest.param(39, True, id="one of the latest, again"),
        pytest.param(42, False, id="one to come"),
    ],
)
def test_reports_of_past_attempts_find_the_one_that_they_are_about(attempt: int, taken: bool) -> None:
    machine, job = preempted_often(40)
    refusal = ReportsTaken((AttemptKey(job.id, 0, attempt),))
    assert machine.end(job, attempt=attempt, kind=EndKind.STOPPED).outcomes == [TAKEN if taken else refusal]


def test_a_late_report_stands_at_its_attempt_though_others_are_dropped() -> None:
    machine, job = preempted_often(40)
    machine.lose()
    machine.node()
    assert machine.end(job, attempt=41).events == [
        LateReportRefused(job.id, 0, 41, "n1", TaskState.SUCCEEDED, EndKind.EXITED, 0)
    ]
    shown = queries.task_view(machine.state, job.id, 0)
    assert shown is not None
    assert [attempt.attempt for attempt in shown.attempts if attempt.late_report] == [41]
