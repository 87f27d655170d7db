"""A submission that holds only while its plan does: what outdates a plan, and what doesn't."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hasched.model.spec import JobSpec
from hasched.model.states import NodeState
from hasched.statemachine.commands import RemoveNode, ResumeJob, SetNodeState, SubmitJob, SuspendJob
from hasched.statemachine.outcomes import JobAccepted
from hasched.statemachine.snapshot import records, restore
from tests.statemachine.machine import Machine, retries

SPEC = JobSpec(name="job", command=("true",))


def planned(if_index: int, submission_id: str = "planned") -> SubmitJob:
    return SubmitJob(submission_id=submission_id, actor="ada", spec=SPEC, if_index=if_index)


def busy() -> Machine:
    """One node with job 1, which runs, fails into a retry at once and may be tried again, and job 2, suspended."""
    machine = Machine()
    machine.node()
    running = machine.submit(count=2, retries=retries(1, initial_ms=0))
    suspended = machine.submit()
    machine.do(SuspendJob(job_id=suspended.id, actor="ada"))
    machine.place(running, 0)
    machine.start(running, 0)
    return machine


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda machine: machine.submit(), id="a new job"),
        pytest.param(lambda machine: machine.do(ResumeJob(job_id=2, actor="ada")), id="a resumed job"),
        pytest.param(lambda machine: machine.end(machine.state.jobs[1], code=1), id="a task that is tried again"),
        pytest.param(lambda machine: machine.node("n2"), id="a new node"),
        pytest.param(lambda machine: machine.node(cpu=8), id="a node with another inventory"),
        pytest.param(
            lambda machine: machine.do(SetNodeState(node_id="n1", state=NodeState.UNHEALTHY, reason="silent")),
            id="a node that is not healthy any more",
        ),
    ],
)
def test_what_outdates_a_plan(change: Callable[[Machine], object]) -> None:
    machine = busy()
    index = machine.state.index
    change(machine)
    assert machine.refusal(planned(index)) == "plan_outdated"
    assert isinstance(machine.outcome(planned(machine.state.index)), JobAccepted)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda machine: machine.place(machine.state.jobs[1], 1), id="a start that the plan counted with"),
        pytest.param(lambda machine: machine.end(machine.state.jobs[1]), id="a task that has ended"),
        pytest.param(lambda machine: machine.cancel(machine.state.jobs[1]), id="a cancelled job"),
        pytest.param(lambda machine: machine.wait(1000), id="time"),
    ],
)
def test_what_leaves_a_plan_as_good(change: Callable[[Machine], object]) -> None:
    machine = busy()
    index = machine.state.index
    change(machine)
    assert isinstance(machine.outcome(planned(index)), JobAccepted)


def test_a_node_that_held_nothing_any_more_may_go() -> None:
    machine = busy()
    machine.do(SetNodeState(node_id="n1", state=NodeState.DISCONNECTED, reason="silent"))
    index = machine.state.index
    machine.do(RemoveNode(node_id="n1", actor="ada"))
    assert isinstance(machine.outcome(planned(index)), JobAccepted)


def test_of_two_submissions_of_one_plan_the_second_comes_too_late() -> None:
    machine = busy()
    index = machine.state.index
    machine.do(planned(index, "first"))
    assert machine.refusal(planned(index, "second")) == "plan_outdated"
    assert isinstance(machine.outcome(planned(machine.state.jobs[3].submitted_index, "second")), JobAccepted)


def test_a_repeated_submission_is_answered_however_outdated() -> None:
    machine = busy()
    command = planned(machine.state.index)
    first = machine.outcome(command)
    machine.node("n2")
    again = machine.outcome(command)
    assert isinstance(first, JobAccepted) and isinstance(again, JobAccepted)
    assert (again.job_id, again.duplicate) == (first.job_id, True)


def test_a_restored_manager_judges_alike() -> None:
    machine = busy()
    machine.state = restore(records(machine.state))
    assert machine.refusal(planned(1)) == "plan_outdated"
