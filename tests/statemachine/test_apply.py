"""`apply`: commands of one entry see each other, bugs in a decision are contained, bugs in `evolve` are not."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hasched.model.spec import JobSpec
from hasched.model.states import TaskState
from hasched.model.wire import AttemptKey, AttemptStarted
from hasched.statemachine.apply import apply, evolve
from hasched.statemachine.commands import (
    Batch,
    CancelJob,
    Command,
    Placement,
    PlacePlan,
    ReportAttempts,
    SubmitJob,
)
from hasched.statemachine.events import JobEnded
from hasched.statemachine.outcomes import Done, JobAccepted, PlanTaken, Rejected, ReportsTaken
from hasched.statemachine.state import State
from tests.statemachine.machine import T0, Machine, content

BROKEN = cast(Any, None)  # what no decoder lets through, in the place of a bug


def test_a_command_sees_what_the_entry_did_before_it() -> None:
    machine = Machine()
    machine.node()
    submit = SubmitJob(submission_id="a", actor="ada", spec=JobSpec(name="job", command=("true",)))
    outcomes = machine.do(
        submit, PlacePlan(placements=(Placement(1, "n1", (0,)),)), CancelJob(job_id=1, actor="ada")
    ).outcomes
    assert outcomes == [JobAccepted(1, False, 2), PlanTaken(1, 0), Done()]
    attempt = machine.state.jobs[1].attempt_of(0)
    assert attempt is not None and attempt.stopping


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (SubmitJob(submission_id="b", actor="ada", spec=BROKEN), None),
        (PlacePlan(placements=(Placement(cast(Any, []), "n1", (0, 1)),)), PlanTaken(0, 2)),
        (
            ReportAttempts(node_id="n1", reports=(AttemptStarted(1, BROKEN, 1, T0),)),
            ReportsTaken((AttemptKey(1, BROKEN, 1),)),
        ),
    ],
    ids=["a submission", "a plan", "a report"],
)
def test_a_decision_that_raises_refuses_its_command_and_is_told(command: Command, outcome: object) -> None:
    machine = Machine()
    machine.submit("a")
    before = content(machine.state)
    applied = apply(machine.state, 2, Batch(1, T0, [command]))
    assert content(machine.state) == before
    assert len(applied.faults) == 1 and applied.faults[0].startswith(type(command).__name__)
    if outcome is None:
        assert isinstance(applied.outcomes[0], Rejected) and applied.outcomes[0].code == "internal"
    else:
        assert applied.outcomes == [outcome]


def test_an_evolve_that_raises_stops_the_manager() -> None:
    with pytest.raises(KeyError):
        evolve(State(), JobEnded(1, TaskState.SUCCEEDED))
