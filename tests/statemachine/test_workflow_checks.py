"""`validate_resources`: what the cluster could never run fails an execution before anything of it has run."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hasched.model.policy import Amounts, PolicyKind, Quota
from hasched.model.spec import Resources
from hasched.model.states import NodeState, TaintEffect
from hasched.model.taints import Taint
from hasched.model.wire import GpuDevice, NodeInfo
from hasched.model.workflow import After, Role, TaskSpec, WorkflowSpec
from hasched.model.workflow_text import Library, parse_workflow
from hasched.model.yaml_text import read_documents
from hasched.statemachine.capacity import room_when_empty, tell_most
from hasched.statemachine.commands import (
    CancelExecution,
    PutPolicy,
    RegisterNode,
    RemoveNode,
    RetryExecution,
    SetNodeEligibility,
    SetNodeState,
    StartExecution,
    StepClock,
)
from hasched.statemachine.digest import digest
from hasched.statemachine.events import JobSubmitted
from hasched.statemachine.execution import Execution, Phase
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules import workflow_checks
from hasched.statemachine.rules.workflows import REFUSED
from hasched.statemachine.snapshot import records, restore
from tests.statemachine.golden import replay
from tests.statemachine.workflow_world import World

GIB = 2**30
HOOK = "name: w\nhooks: {pre: [validate_resources]}\n"


def parsed(text: str, library: Library | None = None) -> WorkflowSpec:
    return parse_workflow(read_documents(text, "w.yaml")[0].value, given={}, library=library).spec


def start(world: World, text: str, library: Library | None = None) -> Execution:
    return world.execution(world.start(parsed(HOOK + text, library)))


def add_node(world: World, name: str, cpu: int, **fields: Any) -> None:
    gpus = fields.pop("gpus", ())
    resources = Resources(cpu_milli=cpu * 1000, memory_bytes=64 * GIB, gpus=len(gpus), **fields.pop("offers", {}))
    info = NodeInfo(hostname=name, agent_version="1", resources=resources, gpus=gpus, **fields)
    world.do(RegisterNode(node_id=name, info=info))


def no_nodes() -> World:
    world = World()
    world.do(SetNodeState(node_id="n1", state=NodeState.DISCONNECTED, reason="gone"))
    world.do(RemoveNode(node_id="n1", actor="root"))
    return world


def cluster() -> World:
    """Two nodes of the default pool, a large one of another, and none of it busy."""
    world = no_nodes()
    add_node(world, "n2", 8, labels={"zone": "b"}, gpus=(GpuDevice("g0", "NVIDIA H100", 80 * GIB),))
    add_node(world, "n1", 4, labels={"zone": "a"}, offers={"countables": (("licence", 2),)})
    add_node(world, "big", 64, pool="batch", taints=(Taint("slow", "", TaintEffect.NO_START),))
    return world


def jobs_made(world: World) -> list[str]:
    return [event.parent for event in world.events if isinstance(event, JobSubmitted)]


@pytest.mark.parametrize(
    ("keys", "lack"),
    [
        ("resources: {cpu: 8, memory: 1Gi}", ""),
        ("resources: {cpu: 4, countables: {licence: 2}}", ""),
        ("resources: {gpus: 1, gpu_model: H100}", ""),
        ("placement: {pool: batch, tolerations: [slow]}, resources: {cpu: 64}", ""),
        ("placement: {any_of: [{cpu: 9}, {cpu: 3}]}", ""),
        ("count: 500, resources: {cpu: 8}", ""),
        (
            "resources: {cpu: 9, memory: 1Gi}",
            "no node that it may run on has 9 CPU, 1Gi memory in all; the most of each on one node is 8 CPU, 64Gi memory",
        ),
        (
            "resources: {cpu: 8, countables: {licence: 2}}",
            "no node that it may run on has 8 CPU, 2 licence in all; the most of each on one node is 8 CPU, 2 licence",
        ),
        (
            "resources: {cpu: 1, gpus: 1, gpu_model: A100}",
            "no node that it may run on has 1 CPU, 1 GPU (A100) in all; the most of each on one node is 8 CPU, 0 GPUs",
        ),
        ("placement: {pool: gpu}", "none of 3 nodes is in pool gpu"),
        (
            "placement: {pool: batch}",
            "no node of pool batch is without a taint that it doesn't tolerate; big has slow",
        ),
        (
            "placement: {constraints: ['label.zone == a', 'label.zone == b']}",
            "this holds of none of 2 nodes of pool default, with all else it asks for: label.zone == b",
        ),
        (
            "count: 3, gang: true, resources: {cpu: 5}",
            "3 of its tasks start together, and empty nodes that it may run on have room for 1",
        ),
        (
            "placement: {resource_class: huge}",
            "there is no resource class 'huge'",
        ),
        (
            "placement: {any_of: [{cpu: 99}, {cpu: 9}]}",
            "no node that it may run on has 99 CPU in all, nor what it would take instead;"
            " the most of each on one node is 8 CPU",
        ),
    ],
)
def test_what_no_node_could_ever_run_is_named(keys: str, lack: str) -> None:
    world = cluster()
    execution = start(world, f"tasks: {{first: {{command: [x]}}, train: {{command: [x], after: first, {keys}}}}}")
    if lack:
        assert (execution.state.name, execution.reason) == ("FAILED", f"validate_resources: train: {lack}")
        assert jobs_made(world) == []
    else:
        assert jobs_made(world) == ["execution/1/first"]
        assert world.states(execution.id)["validate_resources"] == "succeeded"


ALL_KINDS = """
tasks:
  first: {command: [x], compensate: {command: [undo]}}
  whatever: {command: [x], after: {first: any}}
  sorry: {command: [x], after: {first: failed}}
  train: {command: [x], after: first, resources: {gpus: 4}}
finally: {sweep: {command: [x]}}
"""


def test_nothing_at_all_runs_of_what_can_not_run_whole() -> None:
    world = cluster()
    hooks = "name: w\nhooks: {pre: [{command: [before]}, validate_resources], post: [{command: [after]}]}\n"
    execution = world.execution(world.start(parsed(hooks + ALL_KINDS + "on_failure: continue\n")))
    states = world.states(execution.id)
    assert execution.state.name == "FAILED"
    assert states.pop("validate_resources") == "failed"
    assert states == dict.fromkeys(
        ("pre-1", "first", "whatever", "sorry", "train", "undo-first", "sweep", "post-1"), "skipped"
    )
    assert {row.reason for row in execution.rows if row.reason} == {REFUSED, execution.reason.partition(": ")[2]}
    assert jobs_made(world) == []


@pytest.mark.parametrize(
    "keys", ["compensate: {command: [x], resources: {cpu: 99}}", "condition: 'false', resources: {cpu: 99}"]
)
def test_every_job_is_looked_at_whether_or_not_its_turn_would_come(keys: str) -> None:
    assert start(cluster(), f"tasks: {{a: {{command: [x], {keys}}}}}").state.name == "FAILED"


def test_a_task_of_an_inner_workflow_is_named_by_both() -> None:
    inner = {"name": "inner", "tasks": {"fit": {"command": ["x"], "resources": {"cpu": "99"}}}}
    execution = start(cluster(), "tasks: {each: {workflow: inner}}", lambda kind, name: inner)
    assert execution.reason.startswith("validate_resources: each.fit: no node that it may run on has 99 CPU")


def test_a_node_that_is_away_may_come_back() -> None:
    world = cluster()
    world.do(SetNodeState(node_id="n2", state=NodeState.DISCONNECTED, reason="silent"))
    world.do(SetNodeEligibility(node_id="n1", eligible=False, actor="root"))
    start(
        world,
        "tasks: {a: {command: [x], resources: {cpu: 8}}, b: {command: [x], resources: {countables: {licence: 1}}}}",
    )
    assert jobs_made(world) == ["execution/1/a", "execution/1/b"]


def test_a_cluster_without_nodes_runs_nothing() -> None:
    world = no_nodes()
    execution = start(world, "tasks: {a: {command: [x]}}")
    assert execution.reason == "validate_resources: a: there is no node yet: no agent has come"


def test_a_quota_that_never_lets_it_start_fails_it_and_one_in_use_does_not() -> None:
    world = cluster()
    world.do(
        PutPolicy(
            kind=PolicyKind.QUOTA,
            name="q",
            body=Quota(namespace="default", nominal=Amounts(cpu_milli=4000, queued_jobs=1)),
            actor="root",
        )
    )
    execution = start(world, "tasks: {a: {command: [x], resources: {cpu: 5}}}")
    assert execution.reason == (
        "validate_resources: a: quota q: 5 CPU asked for, 0 of 4 in use, 1 too little; it could never start"
    )
    execution = start(world, "tasks: {a: {command: [x], resources: {cpu: 4}}, b: {command: [x], resources: {cpu: 4}}}")
    assert jobs_made(world) == ["execution/2/a"]
    execution = start(world, "tasks: {c: {command: [x]}}")
    assert world.states(execution.id) == {"validate_resources": "succeeded", "c": "running"}
    assert jobs_made(world) == ["execution/2/a"]


def test_begun_again_it_is_looked_at_again() -> None:
    world = cluster()
    execution = start(world, "tasks: {a: {command: [x], resources: {cpu: 32}}}")
    assert execution.state.name == "FAILED"
    add_node(world, "n3", 32)
    world.do(RetryExecution(execution_id=execution.id, actor="bob"))
    world.settle()
    assert jobs_made(world) == ["execution/1/a"]
    assert world.states(execution.id) == {"validate_resources": "succeeded", "a": "running"}


def test_one_that_is_cancelled_before_was_not_looked_at() -> None:
    world = cluster()
    spec = parsed(HOOK + "tasks: {a: {command: [x], resources: {cpu: 99}}}\nfinally: {sweep: {command: [x]}}")
    world.do(StartExecution(submission_id="s", actor="ada", spec=spec))
    world.do(CancelExecution(execution_id=1, actor="bob"))
    world.settle()
    assert world.states(1) == {"validate_resources": "cancelled", "a": "cancelled", "sweep": "running"}


def test_a_long_look_is_taken_in_steps_by_whoever_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Managers that have read a snapshot hold their nodes in another order, and come to the same after as many looks."""
    monkeypatch.setattr(workflow_checks, "MAX_LOOKS_PER_STEP", 5)
    monkeypatch.setattr(workflow_checks, "LOOKS_OF_JOB", 0)
    world = cluster()
    rows = "".join(f"  t{row}: {{command: [x], resources: {{cpu: {1 + row % 8}}}}}\n" for row in range(20))
    spec = parsed(HOOK + "tasks:\n" + rows)
    world.do(StartExecution(submission_id="long", actor="ada", spec=spec))
    world.do(StartExecution(submission_id="other", actor="ada", spec=parsed("name: o\ntasks: {o: {command: [x]}}")))
    seen = [0]
    while world.state.executions[1].validating and len(seen) < 30:
        world.do(StepClock())
        seen.append(world.state.executions[1].rows[0].count(Phase.SUCCEEDED))
        world.state = restore(records(world.state))
    assert digest(world.state) == digest(replay(world.log))
    assert 5 < len(seen) < 30
    assert seen == sorted(dict.fromkeys(seen))  # each step has looked at more
    assert "execution/2/o" in jobs_made(world)[:1]  # the other didn't wait for it
    world.settle()
    assert len(jobs_made(world)) == 21
    assert world.execution(1).instances == 20


LONG = " or ".join(f"label.rack == r{number}" for number in range(7))


@pytest.mark.parametrize(("most", "refused"), [(8, True), (7, False)])
def test_constraints_that_would_hold_up_a_step_are_not_looked_at(
    most: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are long, or there are many nodes: what one job costs has a bound."""
    monkeypatch.setattr(workflow_checks, "MAX_LOOKS_OF_CONSTRAINTS", most)
    world = World()  # with one node
    start(world, f"tasks: {{a: {{command: [x], placement: {{constraints: ['{LONG}']}}}}}}")
    assert world.states(1)["validate_resources"] == ("failed" if refused else "succeeded")


@pytest.mark.parametrize(("constraint", "passed"), [("label.a != x", 9), (f"not ({LONG})", 1)])
def test_long_constraints_count_like_many_looks(constraint: str, passed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_checks, "MAX_LOOKS_PER_STEP", 9)
    monkeypatch.setattr(workflow_checks, "LOOKS_OF_JOB", 0)
    world = World()  # with one node
    job = f"command: [x], placement: {{constraints: ['{constraint}']}}, resources: {{cpu: 0."
    spec = parsed(HOOK + "tasks:\n" + "".join(f"  t{row}: {{{job}{row}}}}}\n" for row in range(1, 10)))
    world.do(StartExecution(submission_id="s", actor="ada", spec=spec))
    world.do(StepClock())
    assert world.state.executions[1].rows[0].count(Phase.SUCCEEDED) == passed


@pytest.mark.parametrize(
    "tasks",
    [
        (TaskSpec(name="c", validates=True), TaskSpec(name="a", approval="?")),
        (TaskSpec(name="a", approval="?"), TaskSpec(name="c", validates=True, after=(After(0),))),
        (TaskSpec(name="c", validates=True), TaskSpec(name="d", validates=True, after=(After(0),))),
        (TaskSpec(name="a", approval="?"), TaskSpec(name="c", validates=True, role=Role.FINAL)),
        (TaskSpec(name="c", validates=True, approval="?"), TaskSpec(name="a", approval="?", after=(After(0),))),
    ],
)
def test_a_check_stands_before_all_other_tasks(tasks: tuple[TaskSpec, ...]) -> None:
    outcome = World().do(StartExecution(submission_id="s", actor="ada", spec=WorkflowSpec(name="w", tasks=tasks)))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "invalid_workflow"


def test_gpus_of_a_task_are_alike() -> None:
    world = World()
    kinds = (GpuDevice("g0", "A100", 40 * GIB), GpuDevice("g1", "A100", 40 * GIB), GpuDevice("g2", "T4", 16 * GIB))
    add_node(world, "mixed", 8, gpus=kinds)
    node, request = world.state.nodes["mixed"], Resources(gpus=3)
    assert room_when_empty(node, request, 1) == 0
    assert room_when_empty(node, msgspec.structs.replace(request, gpus=2), 1) == 1
    assert tell_most(request, [node]) == "the most of each on one node is 2 GPUs"
