"""What an entry costs: what is asked of a whole job doesn't cost a look at each of its tasks, or a very short one.

Counted in calls, which are the same on every machine.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest

from hasched.model.dependency import parse_dependency
from hasched.model.policy import Cap, CapSubject, Charges, FairShare, Policy, Quota, kind_of
from hasched.model.spec import JobSpec, PlacementRules, Resources
from hasched.model.states import NodeState
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import (
    Batch,
    CancelJob,
    Command,
    DeleteJob,
    PutPolicy,
    ResumeJob,
    SetNodeState,
    StepClock,
    SubmitJob,
    SuspendJob,
    UpdateJob,
)
from hasched.statemachine.limits import Limits
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules.clock import next_deadline
from tests.statemachine.machine import Machine

TASK = Resources(cpu_milli=1)


def calls_of(machine: Machine, command: Command, version: int = 2) -> int:
    """How many calls it takes to apply a command. Garbage that is collected meanwhile may have calls of its own."""
    calls = 0

    def count(_frame: object, kind: str, _what: object) -> None:
        nonlocal calls
        calls += kind == "call"

    before = sys.getprofile()
    gc.disable()
    sys.setprofile(count)
    try:
        applied = apply(machine.state, machine.state.index + 1, Batch(version, machine.now_ms, [command]))
    finally:
        sys.setprofile(before)
        gc.enable()
    assert not applied.faults and not isinstance(applied.outcomes[0], Rejected)
    return calls


def put(name: str, body: Policy) -> PutPolicy:
    return PutPolicy(kind=kind_of(body), name=name, body=body, actor="ada")


def running(tasks: int, **fields: Any) -> Machine:
    machine = Machine()
    machine.node(cpu=1000)
    machine.do(put("default", FairShare()))
    job = machine.submit(count=tasks, resources=TASK, **fields)
    machine.place(job, *range(tasks))
    assert job.active == tasks
    return machine


def by_alternatives(tasks: int) -> Machine:
    return running(tasks, placement=PlacementRules(any_of=(TASK, Resources(cpu_milli=2))))


def waiting(tasks: int) -> Machine:
    machine = Machine()
    machine.submit(count=tasks)
    return machine


@pytest.mark.parametrize(
    ("made", "command"),
    [
        pytest.param(running, UpdateJob(job_id=1, actor="ada", queue="night"), id="another queue"),
        pytest.param(
            by_alternatives, UpdateJob(job_id=1, actor="ada", queue="night"), id="another queue, alternatives"
        ),
        pytest.param(running, SuspendJob(job_id=1, actor="ada"), id="suspend"),
        pytest.param(running, ResumeJob(job_id=1, actor="ada"), id="resume"),
        pytest.param(running, CancelJob(job_id=1, actor="ada"), id="cancel what runs"),
        pytest.param(waiting, CancelJob(job_id=1, actor="ada"), id="cancel what waits"),
        pytest.param(waiting, CancelJob(job_id=1, actor="ada", indices=tuple(range(20))), id="cancel 20 that wait"),
        pytest.param(running, put("default", FairShare(charge=Charges(gpu_milli=1))), id="other charges"),
        pytest.param(running, put("all", Quota()), id="a quota"),
        pytest.param(running, put("each", Cap(units=9, subject=CapSubject.NAME)), id="a cap"),
    ],
)
def test_no_call_is_made_for_each_task(made: Callable[[int], Machine], command: Command) -> None:
    few, many = calls_of(made(40), command), calls_of(made(400), command)
    assert many < few + 40, "what is remembered of earlier calls may make a few of difference"


def test_cancelling_tasks_by_name_makes_no_call_for_each() -> None:
    some, many = (CancelJob(job_id=1, actor="ada", indices=tuple(range(tasks))) for tasks in (40, 400))
    assert calls_of(waiting(500), many) < calls_of(waiting(500), some) + 40


def test_a_lost_node_reads_the_spec_of_a_job_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = running(40)
    read = []
    job = type(machine.state.jobs[1])
    spec = job.spec
    monkeypatch.setattr(job, "spec", property(lambda self: read.append(self.id) or spec.__get__(self)))
    calls_of(machine, SetNodeState(node_id="n1", state=NodeState.DISCONNECTED, reason="silent"))
    assert read == [1]


def test_a_submission_doesnt_look_at_quotas_and_caps_of_others() -> None:
    def calls(policies: int) -> int:
        machine = Machine()
        machine.do(*(put(f"q{number}", Quota(user=f"user-{number}")) for number in range(policies)))
        machine.do(
            *(put(f"c{number}", Cap(units=1, subject=CapSubject.NAME, match=f"{number}")) for number in range(policies))
        )
        assert isinstance(machine.state.usage.limits, Limits)
        return calls_of(machine, SubmitJob(submission_id="s", actor="ada", spec=JobSpec(name="job", command=("true",))))

    assert calls(60) < calls(6) + 40


def waiting_for_one(jobs: int) -> Machine:
    """So many jobs wait for job 1, and job 3 for job 2."""
    machine = Machine()
    for _ in range(2):
        machine.submit()
    machine.submit(dependency=parse_dependency("afterok:2"))
    for _ in range(jobs):
        machine.submit(dependency=parse_dependency("afterok:1"))
    machine.wait(0)
    return machine


def test_an_end_and_the_step_after_it_cost_what_waits_for_that_job() -> None:
    """However many wait for another."""
    few, many = waiting_for_one(5), waiting_for_one(200)
    for command in (CancelJob(job_id=2, actor="ada"), StepClock()):
        assert calls_of(few, command) == calls_of(many, command)
    assert few.state.jobs[3].ended and many.state.jobs[3].ended


def test_a_task_that_ends_is_told_to_those_that_wait_for_it_alone() -> None:
    """Task by task: the size of the array makes no difference to an end, nor to the step after it."""
    calls = []
    for tasks in (10, 2000):
        machine = Machine()
        machine.submit(count=tasks)
        machine.submit(count=tasks, dependency=parse_dependency("aftercorr:1"))
        machine.wait(0)
        cancel = CancelJob(job_id=1, actor="ada", indices=(3,))
        calls.append([calls_of(machine, command) for command in (cancel, StepClock())])
    assert calls[0] == calls[1]


def waiting_for_all(jobs: int, conditions: int) -> Machine:
    """So many jobs wait, each for all of so many others, and none of these has ended."""
    machine = Machine()
    others = [machine.submit().id for _ in range(conditions)]
    for _ in range(jobs):
        machine.submit(dependency=parse_dependency(f"afterany:{':'.join(map(str, others))}"))
    return machine


@pytest.mark.parametrize("command", [CancelJob(job_id=3, actor="ada"), StepClock()], ids=["the end", "the step"])
def test_what_is_decided_of_a_job_costs_the_same_whatever_else_it_waits_for(command: Command) -> None:
    calls = []
    for conditions in (5, 200):
        machine = waiting_for_all(3, conditions)
        if isinstance(command, StepClock):
            machine.cancel(machine.state.jobs[3])
        calls.append(calls_of(machine, command))
    assert calls[0] == calls[1]


def test_what_nobody_has_begun_keeps_no_clock_going() -> None:
    machine = waiting_for_all(3, 5)
    assert next_deadline(machine.state) is None


def test_a_job_that_is_forgotten_costs_no_look_at_those_who_wait_for_it() -> None:
    calls = []
    for jobs in (5, 100):
        machine = waiting_for_all(jobs, 1)
        machine.cancel(machine.state.jobs[1])
        calls.append(calls_of(machine, DeleteJob(job_id=1, actor="ada"), version=4))
        assert list(machine.state.kept_ends) == [1]
        machine.wait(0)
        assert not machine.state.kept_ends
    assert calls[0] == calls[1]
