"""Nodes: registered, judged, removed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from hasched.model.spec import Resources
from hasched.model.states import NodeState, TaskState
from hasched.model.taints import Taint
from hasched.model.wire import AttemptKey, DeviceInfo, GpuDevice, NodeInfo
from hasched.statemachine import queries
from hasched.statemachine.commands import RegisterNode, RemoveNode, SetNodeState, WatchNodes
from hasched.statemachine.events import JobEnded, NodeRegistered
from hasched.statemachine.outcomes import Done
from hasched.statemachine.snapshot import records, restore
from tests.statemachine.machine import Machine, retries


def test_registering_again_with_the_same_inventory_writes_no_event() -> None:
    machine = Machine()
    assert [type(event) for event in machine.node().events] == [NodeRegistered]
    assert machine.node().events == []


def test_a_disconnected_node_comes_back_by_registering() -> None:
    machine = Machine()
    machine.node()
    machine.lose()
    machine.node()
    assert machine.state.nodes["n1"].state is NodeState.HEALTHY


def test_a_reconnecting_agent_keeps_its_attempts() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit()
    machine.place(job)
    machine.node(gpus=1)
    assert list(queries.desired_attempts(machine.state, "n1")) == [(job.id, 0, 1, False, False, False)]


def test_an_inventory_may_shrink_below_what_runs_and_nothing_more_fits() -> None:
    machine = Machine()
    machine.node(cpu=4)
    job = machine.submit(count=4)
    machine.place(job, 0, 1, 2)
    machine.node(cpu=2)
    assert machine.place(job, 3).events == []
    machine.end(job, 0)
    assert machine.place(job, 3).events == []
    machine.end(job, 1)
    assert len(machine.place(job, 3).events) == 1


def info(table_id: str = "") -> NodeInfo:
    return NodeInfo(hostname="n1", agent_version="1", resources=Resources(cpu_milli=4000), table_id=table_id)


def test_an_agent_that_has_forgotten_what_may_run_on_its_node_is_not_taken() -> None:
    """Its disk was lost, so it would be told to start the attempt again that its predecessor has started."""
    machine = Machine()
    machine.do(RegisterNode(node_id="n1", info=info("old")))
    job = machine.submit()
    machine.place(job)
    anew = RegisterNode(node_id="n1", info=info("new"))
    assert machine.refusal(anew) == "attempts_forgotten"
    machine.start(job)
    assert machine.refusal(anew) == "attempts_forgotten"
    machine.lose()
    assert machine.outcome(anew) == Done()
    machine.place(job)
    assert list(queries.desired_attempts(machine.state, "n1")) == [(job.id, 0, 2, False, False, False)]


def test_an_agent_whose_table_was_lost_is_taken_if_its_supervisor_knows_all_that_may_run() -> None:
    """As logs of before say it: attempt by attempt."""
    machine = Machine()
    machine.do(RegisterNode(node_id="n1", info=info("old")))
    job = machine.submit(count=2)
    machine.place(job, 0, 1)
    some, all_of_them = (tuple(AttemptKey(job.id, index, 1) for index in range(count)) for count in (1, 2))
    assert machine.refusal(RegisterNode(node_id="n1", info=info("new"), known=some)) == "attempts_forgotten"
    assert machine.outcome(RegisterNode(node_id="n1", info=info("new"), known=all_of_them)) == Done()
    assert len(machine.state.nodes["n1"].attempts) == 2


def test_an_agent_that_knew_all_that_its_node_held_is_taken_until_the_node_holds_more() -> None:
    """What was placed after the leader compared its hello with the state, or changed since, it may know nothing of."""
    machine = Machine()
    machine.do(RegisterNode(node_id="n1", info=info("old")))
    job = machine.submit(count=3)
    machine.place(job, 0, 1)

    def compared() -> RegisterNode:
        return RegisterNode(node_id="n1", info=info("new"), known_as_of=machine.state.index)

    before_placement = compared()
    machine.place(job, 2)
    assert machine.refusal(before_placement) == "attempts_forgotten"
    before_retry = compared()
    machine.lose()
    machine.do(RegisterNode(node_id="n1", info=info("old")))
    machine.place(job, 0, 1, 2)
    assert machine.refusal(before_retry) == "attempts_forgotten"
    before_end = compared()
    machine.end(job, 0, attempt=2)
    assert machine.outcome(before_end) == Done()
    assert list(queries.desired_attempts(machine.state, "n1")) == [(job.id, n, 2, False, False, False) for n in (1, 2)]


@pytest.mark.parametrize(("before", "after"), [("", "new"), ("old", ""), ("old", "old")])
def test_an_agent_that_does_not_say_or_has_its_table_still_is_taken(before: str, after: str) -> None:
    machine = Machine()
    machine.do(RegisterNode(node_id="n1", info=info(before)))
    machine.place(machine.submit())
    later = msgspec.structs.replace(info(after), hostname="renamed")
    assert machine.outcome(RegisterNode(node_id="n1", info=later)) == Done()


def test_what_shrank_matters_only_to_those_who_ask_for_it() -> None:
    machine = Machine()
    machine.node(gpus=1)
    machine.place(machine.submit(resources=Resources(gpus=1)))
    machine.node(gpus=0)
    assert len(machine.place(machine.submit()).events) == 1


def test_a_lost_node_ends_every_attempt_on_it_and_every_job_that_ended_with_them() -> None:
    machine = Machine()
    machine.node()
    again, final, mixed = (machine.submit(count=2), *(machine.submit(retries=retries(node_lost=0)) for _ in range(2)))
    machine.place(again, 0, 1)
    machine.place(final)
    machine.place(mixed)
    events = machine.lose().events
    assert [type(event).__name__ for event in events[:3]] == ["NodeStateChanged", "AttemptEnded", "AttemptEnded"]
    assert [event for event in events if isinstance(event, JobEnded)] == [
        JobEnded(final.id, TaskState.NODE_LOST),
        JobEnded(mixed.id, TaskState.NODE_LOST),
    ]
    assert again.eligible == 2


def test_only_a_disconnected_node_can_be_removed() -> None:
    machine = Machine()
    machine.node()
    assert machine.refusal(RemoveNode(node_id="n1", actor="ada")) == "node_active"
    machine.lose()
    assert machine.outcome(RemoveNode(node_id="n1", actor="ada")) == Done()
    assert machine.refusal(RemoveNode(node_id="n1", actor="ada")) == "no_such_node"


def test_what_ran_on_a_removed_node_still_names_it() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit()
    machine.place(job)
    machine.end(job)
    machine.lose()
    machine.do(RemoveNode(node_id="n1", actor="ada"))
    shown = queries.task_view(machine.state, job.id, 0)
    assert shown is not None and shown.node_id == "n1"


def test_a_state_that_the_node_is_in_already_writes_no_event() -> None:
    machine = Machine()
    machine.node()
    assert machine.do(SetNodeState(node_id="n1", state=NodeState.HEALTHY, reason="")).events == []
    assert machine.refusal(SetNodeState(node_id="n2", state=NodeState.HEALTHY, reason="")) == "no_such_node"


def test_a_verdict_on_a_node_that_has_changed_since_is_refused() -> None:
    machine = Machine()
    machine.node()
    judged = machine.state.nodes["n1"].log_index
    late = SetNodeState(node_id="n1", state=NodeState.DISCONNECTED, reason="silent", log_index=judged)
    machine.node(gpus=1)
    assert machine.refusal(late) == "node_changed"
    assert machine.do(msgspec.structs.replace(late, log_index=judged + 1)).events


def test_only_the_verdicts_of_the_latest_watch_count() -> None:
    machine = Machine()
    machine.node()
    verdict = SetNodeState(node_id="n1", state=NodeState.UNHEALTHY, reason="late", term=7)
    assert machine.refusal(verdict) == "node_changed"
    machine.do(WatchNodes(term=8))
    assert machine.do(WatchNodes(term=7)).events == machine.do(WatchNodes(term=8)).events == []
    machine.state = restore(records(machine.state))
    assert machine.refusal(verdict) == "node_changed"
    assert machine.do(msgspec.structs.replace(verdict, term=8)).events


@pytest.mark.parametrize(
    ("node_id", "resources"),
    [
        pytest.param("../etc", Resources(), id="a path for a name"),
        pytest.param("", Resources(), id="no name"),
        pytest.param("n1", Resources(cpu_milli=-1), id="less than nothing"),
        pytest.param("n1", Resources(memory_bytes=2**60), id="more than there can be"),
    ],
)
def test_an_impossible_node_is_refused(node_id: str, resources: Resources) -> None:
    info = NodeInfo(hostname="h", agent_version="1", resources=resources)
    assert Machine().refusal(RegisterNode(node_id=node_id, info=info)) == "invalid_node"


def test_an_address_that_is_none_is_refused() -> None:
    machine = Machine()
    good = NodeInfo(hostname="h", agent_version="1", resources=Resources(), address="10.0.0.7")
    machine.do(RegisterNode(node_id="n1", info=good))
    for address in ("a b", "x" * 1000):
        bad = msgspec.structs.replace(good, address=address)
        assert machine.refusal(RegisterNode(node_id="n2", info=bad)) == "invalid_node"


GPU = GpuDevice("GPU-1", "A100", 1)
DEVICE = DeviceInfo("card0", "fpga")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"resources": Resources(countables=(("a", 1), ("a", 1)))}, id="a countable twice"),
        pytest.param({"resources": Resources(countables=(("../x", 1),))}, id="a countable that names a path"),
        pytest.param(
            {"resources": Resources(countables=tuple((f"c{n:04}", 1) for n in range(1000)))}, id="very many countables"
        ),
        pytest.param({"resources": Resources(disk_bytes=-1)}, id="less than no disk"),
        pytest.param({"resources": Resources(gpus=1, gpu_memory_bytes=1)}, id="what only a request has"),
        pytest.param({"hostname": "x\nother-host slots=9"}, id="a hostname of two lines"),
        pytest.param({"hostname": "x" * 1000}, id="a long hostname"),
        pytest.param({"agent_version": "x" * 1000}, id="a long version"),
        pytest.param({"table_id": "x" * 1000}, id="a long id"),
        pytest.param({"labels": {f"l{n}": "" for n in range(1000)}}, id="very many labels"),
        pytest.param({"labels": {"a": "x" * 1000}}, id="a long label"),
        pytest.param({"attributes": {"x" * 1000: ""}}, id="an attribute of a long name"),
        pytest.param({"taints": (Taint("a", "x" * 1000),)}, id="a long taint"),
        pytest.param({"gpus": (GPU,) * 2000}, id="very many GPUs"),
        pytest.param({"gpus": (replace(GPU, model="x" * 1000),)}, id="a GPU of a long model"),
        pytest.param({"gpus": (replace(GPU, memory_bytes=2**60),)}, id="a GPU with more memory than there can be"),
        pytest.param({"gpus": (replace(GPU, numa_node=-5),)}, id="a GPU on no NUMA node that can be"),
        pytest.param({"devices": (DEVICE,) * 5000}, id="very many devices"),
        pytest.param({"devices": (replace(DEVICE, units=-1),)}, id="less than no unit of a device"),
        pytest.param({"devices": (replace(DEVICE, health="x" * 2000),)}, id="a long story about a device"),
        pytest.param({"devices": (replace(DEVICE, health="x" * 900),) * 400}, id="400 stories about devices"),
    ],
)
def test_what_an_agent_says_of_its_node_is_bounded(said: dict[str, Any]) -> None:
    machine = Machine()
    assert machine.refusal(RegisterNode(node_id="n1", info=replace(info(), **said))) == "invalid_node"
