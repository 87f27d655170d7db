"""Nodes that are kept from new work: cordoned, draining, quarantined."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hasched.model.spec import Resources
from hasched.model.states import EndKind, NodeState, RestartPolicy, TaskState
from hasched.model.taints import Taint
from hasched.model.wire import NodeInfo
from hasched.statemachine import queries
from hasched.statemachine.commands import (
    Command,
    DrainNode,
    EndQuarantine,
    QuarantineNode,
    RegisterNode,
    RemoveNode,
    SetNodeEligibility,
    SetNodeProperties,
    StepClock,
    UndrainNode,
)
from hasched.statemachine.events import NodeDrained, NodeDrainExpired, NodeOnProbation, TasksPreempted
from hasched.statemachine.outcomes import Done
from hasched.statemachine.rules.clock import next_deadline
from tests.statemachine.machine import Machine, retries

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


def test_what_runs_at_the_deadline_starts_elsewhere_without_using_a_retry() -> None:
    machine = machine_with_a_node()
    machine.node("n2")
    job = machine.submit(count=2, retries=retries(node_lost=0), restart=RestartPolicy.NEVER)
    machine.place(job, 0, 1)
    machine.start(job, 0)
    machine.do(DRAIN)
    events = machine.wait(60_000).events
    assert events[:2] == [
        NodeDrainExpired("n1", 2),
        TasksPreempted(job.id, (0, 1), 0, "ada", "node n1 is drained: new disks"),
    ]
    for index in (0, 1):
        machine.end(job, index, kind=EndKind.SIGNALED, code=15)
    assert status(machine) == "healthy,drained"
    machine.place(job, 0, 1, node_id="n2")
    machine.end(job, 0, attempt=2, node_id="n2")
    machine.end(job, 1, attempt=2, node_id="n2")
    assert job.state is TaskState.SUCCEEDED


def test_a_forced_drain_moves_what_runs_at_once() -> None:
    machine = machine_with_a_node()
    job = machine.submit()
    machine.place(job)
    events = machine.do(msgspec.structs.replace(DRAIN, wait_ms=0, reason="")).events
    assert events[1:] == [NodeDrainExpired("n1", 1), TasksPreempted(job.id, (0,), 0, "ada", "node n1 is drained")]
    assert next_deadline(machine.state) is None


def test_what_was_cancelled_before_the_deadline_stays_so() -> None:
    machine = machine_with_a_node()
    job = machine.submit()
    machine.place(job)
    machine.cancel(job)
    machine.do(DRAIN)
    assert not any(isinstance(event, TasksPreempted) for event in machine.wait(60_000).events)
    machine.end(job, kind=EndKind.STOPPED)
    assert job.state is TaskState.CANCELLED


def test_what_was_told_to_go_goes_though_the_node_is_undrained() -> None:
    machine = machine_with_a_node()
    job = machine.submit()
    machine.place(job)
    machine.do(msgspec.structs.replace(DRAIN, wait_ms=0))
    machine.do(UNDRAIN)
    machine.end(job, kind=EndKind.STOPPED)
    assert job.task_state(0) is TaskState.PENDING


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


def test_what_operators_say_of_a_node_stands_over_what_its_agent_says() -> None:
    machine = Machine()
    said = NodeInfo(
        hostname="n1",
        agent_version="1",
        resources=Resources(cpu_milli=4000),
        labels={"rack": "r1", "zone": "a"},
        taints=(Taint("old"),),
    )
    register = RegisterNode(node_id="n1", info=said)
    machine.do(register)
    overrule = SetNodeProperties(
        node_id="n1",
        actor="ada",
        pool="lab",
        labels={"rack": "r2", "zone": None, "none": None},
        taints={"old": None, "loud": Taint("loud", "fan")},
    )
    machine.do(overrule)
    info = machine.state.nodes["n1"].info
    assert (info.pool, info.labels, info.taints) == ("lab", {"rack": "r2"}, (Taint("loud", "fan"),))
    assert machine.do(register).events == [], "the agent has nothing new to say"
    machine.do(RegisterNode(node_id="n1", info=msgspec.structs.replace(said, hostname="renamed", pool="other")))
    info = machine.state.nodes["n1"].info
    assert (info.hostname, info.pool, info.labels) == ("renamed", "lab", {"rack": "r2"})
    machine.do(SetNodeProperties(node_id="n1", actor="ada", labels={"rack": "r3"}, reset=True))
    info = machine.state.nodes["n1"].info
    assert (info.pool, info.labels, info.taints) == ("other", {"rack": "r3", "zone": "a"}, (Taint("old"),))


def test_saying_what_the_agent_says_overrules_nothing() -> None:
    machine = machine_with_a_node()
    assert machine.do(SetNodeProperties(node_id="n1", actor="ada", pool="default", labels={"rack": None})).events == []


@pytest.mark.parametrize(
    "fields",
    [
        {"pool": "a pool"},
        {"labels": {"a label": "x"}},
        {"labels": {"rack": "x" * 513}},
        {"taints": {"loud": Taint("quiet")}},
        {"labels": {f"l{number}": "x" for number in range(65)}},
    ],
)
def test_properties_that_can_not_be_are_refused(fields: dict[str, Any]) -> None:
    machine = machine_with_a_node()
    assert machine.refusal(SetNodeProperties(node_id="n1", actor="ada", **fields)) == "invalid_properties"


def test_a_taint_keeps_jobs_away_that_do_not_tolerate_it() -> None:
    machine = machine_with_a_node()
    machine.do(SetNodeProperties(node_id="n1", actor="ada", taints={"loud": Taint("loud")}))
    job = machine.submit()
    assert machine.place(job).events == []
    machine.do(SetNodeProperties(node_id="n1", actor="ada", reset=True))
    assert len(machine.place(job).events) == 1
