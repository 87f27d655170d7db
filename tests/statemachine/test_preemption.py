"""Preemption: the room is taken back and nothing is lost, whatever else happens while a task makes ready for its end."""

from __future__ import annotations

import pytest

from hasched.model.states import EndKind, RestartPolicy, TaskState
from hasched.model.wire import AttemptKey
from hasched.statemachine import queries
from hasched.statemachine.commands import PreemptAttempts, PreemptTasks
from hasched.statemachine.events import LateReportRefused
from hasched.statemachine.outcomes import AttemptsPreempted
from hasched.statemachine.snapshot import capture, restore
from hasched.statemachine.state import Job
from tests.statemachine.machine import Machine, retries


def two_jobs(machine: Machine, **fields: object) -> tuple[Job, Job]:
    """One that runs and fills the node, and a more urgent one that waits."""
    machine.node(cpu=1)
    victim = machine.submit(**{"restart": RestartPolicy.NEVER, **fields})
    urgent = machine.submit(priority_class="high")
    machine.place(victim)
    machine.start(victim)
    return victim, urgent


def preempted(machine: Machine) -> tuple[Job, Job]:
    victim, urgent = two_jobs(machine)
    command = PreemptAttempts(attempts=(AttemptKey(victim.id, 0, 1),), for_job=urgent.id, reason="it is more urgent")
    assert machine.outcome(command) == AttemptsPreempted(1, 0)
    return victim, urgent


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"kind": EndKind.STOPPED}, id="by TERM or KILL"),
        pytest.param({"kind": EndKind.SIGNALED, "code": 10}, id="of the warning's signal"),
        pytest.param({"kind": EndKind.EXITED, "code": 1}, id="by itself, in failure"),
        pytest.param({"kind": EndKind.TIMED_OUT}, id="at its timeout"),
        pytest.param({"kind": EndKind.OUT_OF_MEMORY}, id="out of memory"),
        pytest.param({"kind": EndKind.LOST}, id="in a way that can't be known"),
    ],
)
def test_whatever_end_it_comes_to_the_task_waits_again_at_once(how: dict[str, object]) -> None:
    machine = Machine()
    victim, urgent = preempted(machine)
    assert machine.state.nodes["n1"].attempts, "it keeps its room until it has ended"
    machine.end(victim, **how)
    assert victim.is_eligible(0) and not machine.state.nodes["n1"].attempts
    history = victim.history_of(0)
    assert history is not None and (history.own_failures, history.node_losses) == (0, 0)
    shown = queries.task_view(machine.state, victim.id, 0)
    assert shown is not None and shown.attempts[0].state == "PREEMPTED"
    assert shown.attempts[0].reason is not None
    assert shown.attempts[0].reason.code == "preempted"
    assert shown.attempts[0].reason.text == f"preempted for job {urgent.id}: it is more urgent"
    machine.place(victim)
    machine.end(victim, attempt=2)
    assert victim.state is TaskState.SUCCEEDED


def test_a_success_in_time_counts() -> None:
    machine = Machine()
    victim, _ = preempted(machine)
    machine.end(victim)
    assert victim.state is TaskState.SUCCEEDED and victim.yields is None


def test_a_report_that_crosses_the_preemption_wins() -> None:
    machine = Machine()
    victim, urgent = two_jobs(machine)
    machine.end(victim)
    command = PreemptAttempts(attempts=(AttemptKey(victim.id, 0, 1),), for_job=urgent.id)
    assert machine.outcome(command) == AttemptsPreempted(0, 1)


def test_a_node_that_is_lost_meanwhile_costs_no_budget() -> None:
    machine = Machine()
    victim, _ = preempted(machine)
    machine.lose()
    assert victim.is_eligible(0)
    machine.node()
    refused = machine.end(victim)
    assert isinstance(refused.events[0], LateReportRefused), "its attempt is given up, whatever it came to"
    assert victim.is_eligible(0)


def test_a_cancel_meanwhile_is_the_end() -> None:
    machine = Machine()
    for indices in ((), (0,)):
        victim, _ = preempted(machine)
        machine.cancel(victim, *indices)
        machine.end(victim, kind=EndKind.STOPPED)
        assert victim.state is TaskState.CANCELLED
        shown = queries.task_view(machine.state, victim.id, 0)
        assert shown is not None and shown.reason is not None and shown.reason.code == "cancelled"


def test_what_is_being_cancelled_is_not_preempted() -> None:
    machine = Machine()
    victim, _ = two_jobs(machine)
    machine.cancel(victim)
    assert machine.refusal(PreemptTasks(job_id=victim.id, actor="ada")) == "nothing_to_preempt"


def test_nothing_gives_way_to_an_equal_or_to_what_does_not_wait() -> None:
    machine = Machine()
    victim, urgent = two_jobs(machine, priority=900)
    command = PreemptAttempts(attempts=(AttemptKey(victim.id, 0, 1),), for_job=urgent.id)
    assert machine.outcome(command) == AttemptsPreempted(0, 1)
    machine.cancel(urgent)
    assert machine.refusal(command) == "preemption_moot"


def test_a_priority_without_a_class_that_preempts_drives_nobody_out() -> None:
    machine = Machine()
    victim, _ = two_jobs(machine)
    larger = machine.submit(priority=1000)
    command = PreemptAttempts(attempts=(AttemptKey(victim.id, 0, 1),), for_job=larger.id)
    assert machine.outcome(command) == AttemptsPreempted(0, 1)


def test_a_second_preemption_finds_nothing_to_do() -> None:
    machine = Machine()
    victim, urgent = preempted(machine)
    command = PreemptAttempts(attempts=(AttemptKey(victim.id, 0, 1),), for_job=urgent.id)
    assert machine.outcome(command) == AttemptsPreempted(0, 1)
    assert machine.refusal(PreemptTasks(job_id=victim.id, actor="ada")) == "nothing_to_preempt"


def test_an_operator_preempts_some_tasks_or_all() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=4)
    machine.place(job, 0, 1, 2)
    assert machine.outcome(PreemptTasks(job_id=job.id, actor="ada", indices=(1, 3))) == AttemptsPreempted(1, 0)
    assert machine.outcome(PreemptTasks(job_id=job.id, actor="ada")) == AttemptsPreempted(2, 0)
    machine.end(job, 1, kind=EndKind.STOPPED)
    shown = queries.task_view(machine.state, job.id, 1)
    assert shown is not None and shown.attempts[0].reason is not None
    assert shown.attempts[0].reason.text == "preempted by ada"
    assert machine.refusal(PreemptTasks(job_id=job.id, actor="ada", indices=(4,))) == "no_such_task"
    assert machine.refusal(PreemptTasks(job_id=99, actor="ada")) == "no_such_job"


def test_a_suspended_job_thaws_for_its_end() -> None:
    machine = Machine()
    victim, _ = two_jobs(machine)
    machine.do(PreemptTasks(job_id=victim.id, actor="ada"))
    assert [each[3:] for each in queries.desired_attempts(machine.state, "n1")] == [(False, True, False)]
    shown = queries.task_view(machine.state, victim.id, 0)
    assert shown is not None and shown.stopping and shown.reason is not None and shown.reason.code == "stopping"


def test_a_checkpoint_outlives_its_attempt_and_goes_with_the_task() -> None:
    machine = Machine()
    victim, _ = two_jobs(machine, retries=retries(1), restart=RestartPolicy.ON_FAILURE)
    machine.report(machine.checkpointed(victim))
    first_ms = machine.now_ms
    machine.preempt(victim)
    machine.now_ms += 500
    machine.end(victim, kind=EndKind.STOPPED, checkpoint_ms=first_ms + 100)
    assert victim.checkpoint_of(0) == first_ms + 100
    (resume,) = queries.resumed_tasks(victim, (0,))
    assert (resume.checkpoint_ms, resume.preempted_from) == (first_ms + 100, "n1")
    machine.place(victim)
    machine.end(victim, attempt=2, code=1)
    assert victim.checkpoint_of(0) == first_ms + 100, "a failure loses no checkpoint either"
    (resume,) = queries.resumed_tasks(victim, (0,))
    assert resume.preempted_from == ""
    machine.place(victim)
    machine.end(victim, attempt=3)
    assert victim.checkpoints is None


def test_an_older_checkpoint_changes_nothing() -> None:
    machine = Machine()
    victim, _ = two_jobs(machine)
    report = machine.checkpointed(victim)
    assert machine.report(report).events
    assert not machine.report(report).events


def test_a_snapshot_knows_who_has_to_yield() -> None:
    machine = Machine()
    victim, _ = preempted(machine)
    machine.report(machine.checkpointed(victim))
    captured = capture(machine.state)
    machine.state = restore(iter(captured.next_chunk, None))
    again = machine.state.jobs[victim.id]
    assert again.yield_of(0) == victim.yield_of(0) and again.checkpoint_of(0)
    machine.end(again, kind=EndKind.STOPPED)
    assert again.is_eligible(0)
