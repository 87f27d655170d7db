"""Nodes that are kept from new work: cordoned, draining, quarantined."""

from __future__ import annotations

import msgspec
import pytest

from hasched.model.states import NodeState
from hasched.statemachine import queries
from hasched.statemachine.commands import (
    Command,
    DrainNode,
    EndQuarantine,
    QuarantineNode,
    RemoveNode,
    SetNodeEligibility,
    StepClock,
    UndrainNode,
)
from hasched.statemachine.events import NodeDrained, NodeDrainExpired, NodeOnProbation
from hasched.statemachine.outcomes import Done
from hasched.statemachine.rules.clock import next_deadline
from tests.statemachine.machine import Machine

CORDON = SetNodeEligibility(node_id="n1", eligible=False, actor="ada", reason="a fan is loud")
UNCORDON = SetNodeEligibility(node_id="n1", eligible=True, actor="ada")
DRAIN = DrainNode(node_id="n1", actor="ada", reason="new disks", wait_ms=60_000)
UNDRAIN = UndrainNode(node_id="n1", actor="ada")
QUARANTINE = QuarantineNode(node_id="n1", reason="5 launches failed", wait_ms=60_000)
RELEASE = EndQuarantine(node_id="n1", actor="ada")
SEEN_TO_LAUNCH = EndQuarantine(node_id="n1")


def machine_with_a_node() -> Machine:
    machine = Machine()
    machine.node()
    return machine


def status(machine: Machine) -> str:
    return machine.state.nodes["n1"].status


@pytest.mark.parametrize(
    ("keep_away", "let_back", "word"),
    [
        pytest.param(CORDON, UNCORDON, "cordoned", id="cordon"),
        pytest.param(DRAIN, UNDRAIN, "draining", id="drain"),
        pytest.param(QUARANTINE, RELEASE, "quarantined", id="quarantine"),
    ],
)
def test_a_node_that_is_kept_from_work_gets_none_and_goes_on_with_what_it_has(
    keep_away: Command, let_back: Command, word: str
) -> None:
    machine = machine_with_a_node()
    running, waiting = machine.submit(), machine.submit()
    machine.place(running)
    machine.do(keep_away)
    assert machine.place(waiting).events == []
    assert status(machine) == f"healthy,{word}"
    assert list(queries.desired_attempts(machine.state, "n1")) == [(running.id, 0, 1, False, False, False)]
    assert machine.do(keep_away).events == [] or keep_away is DRAIN
    machine.do(let_back)
    assert status(machine) == "healthy"
    assert machine.do(let_back).events == []
    assert len(machine.place(waiting).events) == 1


@pytest.mark.parametrize("command", [CORDON, UNCORDON, DRAIN, UNDRAIN, QUARANTINE, RELEASE])
def test_a_node_that_is_not_there_can_not_be_controlled(command: Command) -> None:
    assert Machine().refusal(command) == "no_such_node"


def test_each_reason_has_its_own_way_back() -> None:
    machine = machine_with_a_node()
    machine.do(CORDON, DRAIN, QUARANTINE)
    assert status(machine) == "healthy,cordoned,drained,quarantined"
    machine.do(UNCORDON)
    assert not machine.state.nodes["n1"].takes_work
    machine.do(UNDRAIN)
    assert not machine.state.nodes["n1"].takes_work
    machine.do(RELEASE)
    assert machine.state.nodes["n1"].takes_work


def test_control_outlives_the_loss_of_a_node_and_goes_with_its_removal() -> None:
    machine = machine_with_a_node()
    machine.do(CORDON, DRAIN)
    machine.lose()
    machine.node()
    assert status(machine) == "healthy,cordoned,drained"
    machine.lose()
    machine.do(RemoveNode(node_id="n1", actor="ada"))
    assert next_deadline(machine.state) is None
    machine.node()
    assert status(machine) == "healthy"


def test_a_cordon_without_a_reason_leaves_the_first_one_standing() -> None:
    machine = machine_with_a_node()
    machine.do(CORDON)
    assert machine.do(msgspec.structs.replace(CORDON, reason="")).events == []
    machine.do(msgspec.structs.replace(CORDON, actor="bob", reason="two fans are loud"))
    cordon = machine.state.nodes["n1"].control.cordon
    assert cordon is not None and (cordon.actor, cordon.reason) == ("bob", "two fans are loud")


def test_a_node_is_drained_when_nothing_runs_there_any_more() -> None:
    machine = machine_with_a_node()
    job = machine.submit(count=2)
    machine.place(job, 0, 1)
    machine.do(DRAIN)
    assert NodeDrained("n1") not in machine.end(job, 0).events
    assert status(machine) == "healthy,draining"
    assert NodeDrained("n1") in machine.end(job, 1).events
    assert status(machine) == "healthy,drained"


def test_a_node_that_is_lost_while_it_drains_is_drained() -> None:
    machine = machine_with_a_node()
    machine.place(machine.submit())
    machine.do(DRAIN)
    assert machine.lose().events[-1] == NodeDrained("n1")


def test_a_drain_of_an_idle_node_is_done_at_once() -> None:
    machine = machine_with_a_node()
    assert machine.do(DRAIN).events[-1] == NodeDrained("n1")


def test_a_deadline_comes_once() -> None:
    machine = machine_with_a_node()
    machine.place(machine.submit())
    machine.do(DRAIN)
    assert next_deadline(machine.state) == machine.now_ms + 60_000
    assert NodeDrainExpired("n1", 1) not in machine.wait(59_999).events
    assert NodeDrainExpired("n1", 1) in machine.wait(1).events
    assert next_deadline(machine.state) is None
    assert NodeDrainExpired("n1", 1) not in machine.wait(60_000).events


def test_a_later_drain_replaces_the_deadline() -> None:
    machine = machine_with_a_node()
    machine.place(machine.submit())
    machine.do(DRAIN)
    machine.do(msgspec.structs.replace(DRAIN, wait_ms=120_000))
    assert next_deadline(machine.state) == machine.now_ms + 120_000
    machine.do(msgspec.structs.replace(DRAIN, wait_ms=None))
    assert next_deadline(machine.state) is None


@pytest.mark.parametrize("wait_ms", [-1, 2**60])
def test_a_deadline_that_can_not_be_is_refused(wait_ms: int) -> None:
    machine = machine_with_a_node()
    assert machine.refusal(msgspec.structs.replace(DRAIN, wait_ms=wait_ms)) == "invalid_deadline"
    assert machine.refusal(msgspec.structs.replace(QUARANTINE, wait_ms=wait_ms)) == "invalid_deadline"


def test_quarantine_ends_in_probation_and_counts_until_a_launch_succeeds() -> None:
    machine = machine_with_a_node()
    machine.do(QUARANTINE)
    assert machine.do(SEEN_TO_LAUNCH).events == [], "that was placed before"
    assert machine.wait(60_000).events[0] == NodeOnProbation("n1")
    assert status(machine) == "healthy,on_probation" and machine.state.nodes["n1"].takes_work
    machine.do(QUARANTINE)
    quarantine = machine.state.nodes["n1"].control.quarantine
    assert quarantine is not None and quarantine.times == 2
    machine.wait(60_000)
    assert machine.outcome(SEEN_TO_LAUNCH) == Done()
    assert machine.state.nodes["n1"].control.quarantine is None
    machine.do(QUARANTINE)
    quarantine = machine.state.nodes["n1"].control.quarantine
    assert quarantine is not None and quarantine.times == 1


def test_the_clock_goes_by_the_first_node_that_something_comes_due_for() -> None:
    machine = machine_with_a_node()
    machine.node("n2")
    for node_id in ("n1", "n2"):
        machine.place(machine.submit(), node_id=node_id)
    machine.do(DRAIN, msgspec.structs.replace(DRAIN, node_id="n2", wait_ms=1_000))
    assert next_deadline(machine.state) == machine.now_ms + 1_000
    machine.now_ms += 1_000
    machine.do(StepClock())
    assert next_deadline(machine.state) == machine.now_ms + 59_000


def test_a_node_that_drains_may_be_judged_and_keeps_draining() -> None:
    machine = machine_with_a_node()
    machine.do(DRAIN)
    machine.lose()
    assert machine.state.nodes["n1"].state is NodeState.DISCONNECTED
    assert status(machine) == "disconnected,drained"
