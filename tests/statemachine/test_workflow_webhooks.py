"""Webhooks among the hooks of a workflow: who is named is told once the hook's turn comes, in the very entry in which it does."""

from __future__ import annotations

import pytest

from hasched.model.notices import Channel, Notice
from hasched.model.policy import Namespace, Notification, PolicyKind
from hasched.model.workflow import After, Role, TaskSpec, WorkflowSpec
from hasched.model.workflow_text import Library, parse_workflow
from hasched.model.yaml_text import read_documents
from hasched.statemachine.commands import (
    CancelExecution,
    DecideApproval,
    DeletePolicy,
    PutPolicy,
    RetryExecution,
    StartExecution,
    StepClock,
)
from hasched.statemachine.digest import digest
from hasched.statemachine.execution import Execution
from hasched.statemachine.outcomes import Done, Rejected
from hasched.statemachine.snapshot import records, restore
from hasched.statemachine.workflow_events import ExecutionTaskEnded
from tests.statemachine.golden import replay
from tests.statemachine.workflow_world import World

BOTH = "hooks: {pre: [{webhook: ops, name: begun}], post: [{webhook: ops}]}\n"
DELETE = DeletePolicy(kind=PolicyKind.NOTIFICATION, name="ops", actor="root")


def parsed(text: str, library: Library | None = None) -> WorkflowSpec:
    return parse_workflow(read_documents(f"name: w\n{text}", "w.yaml")[0].value, given={}, library=library).spec


def start(world: World, text: str, library: Library | None = None) -> Execution:
    return world.execution(world.start(parsed(text, library)))


def put(world: World, name: str = "ops", namespaces: tuple[str, ...] = (), events: tuple[str, ...] = ()) -> None:
    for each in namespaces:
        world.do(PutPolicy(kind=PolicyKind.NAMESPACE, name=each, body=Namespace(), actor="root"))
    body = Notification(to=Channel.SLACK, url_file="chat.url", namespaces=namespaces, events=events)
    assert world.do(PutPolicy(kind=PolicyKind.NOTIFICATION, name=name, body=body, actor="root")) == Done()


@pytest.fixture
def world() -> World:
    world = World()
    put(world)
    return world


def notices(world: World, target: str = "ops") -> list[Notice]:
    return [each.notice for each in world.state.outbox.waiting(target).values()]


def told(world: World, target: str = "ops") -> list[tuple[str, str, str, str]]:
    return [(each.hook, each.task, each.state, each.reason) for each in notices(world, target)]


def test_it_is_told_in_the_entry_in_which_its_turn_comes(world: World) -> None:
    put(world, "other")
    put(world, "all", events=("workflow.hook",))
    world.do(StartExecution(submission_id="s", actor="ada", spec=parsed(BOTH + "tasks: {a: {command: [x]}}")))
    world.settle()
    (begun,) = notices(world)
    assert (begun.topic, begun.execution_id, begun.name, begun.actor) == ("workflow.hook", 1, "w", "ada")
    assert (begun.namespace, begun.time_ms, begun.started_ms, begun.ended_ms) == (
        "default",
        world.now_ms,
        begun.time_ms,
        0,
    )
    world.state = restore(records(world.state))
    world.end(world.job("execution/1/a"))
    assert told(world) == [("pre", "begun", "RUNNING", ""), ("post", "post-1", "SUCCEEDED", "")]
    assert world.states(1) == {"begun": "succeeded", "a": "succeeded", "post-1": "succeeded"}
    assert [world.execution(1).plan.spec.tasks[row].kind for row in range(3)] == ["webhook", "job", "webhook"]
    assert (told(world, "all"), told(world, "other")) == (told(world), [])
    assert digest(world.state) == digest(replay(world.log)) == digest(restore(records(world.state)))


def test_the_event_of_the_notice_is_the_end_of_the_hook(world: World) -> None:
    """So one is never without the other, whoever leads next."""
    world.do(StartExecution(submission_id="s", actor="ada", spec=parsed(BOTH + "tasks: {a: {approval: go?}}")))
    before = len(world.events)
    world.do(StepClock())
    (notice,) = notices(world)
    index, _, number = notice.event.partition(".")
    event = world.events[before + int(number)]
    assert int(index) == world.state.index
    assert isinstance(event, ExecutionTaskEnded) and event.task == "begun"


@pytest.mark.parametrize(
    ("approve", "ends"),
    [(True, ("SUCCEEDED", "")), (False, ("FAILED", "a: refused by bob")), (None, ("CANCELLED", ""))],
)
def test_at_the_end_it_is_told_how_it_is_about_to_end(
    world: World, approve: bool | None, ends: tuple[str, str]
) -> None:
    start(world, "hooks: {post: [{webhook: ops}]}\ntasks: {a: {approval: go?}}")
    if approve is None:
        world.do(CancelExecution(execution_id=1, actor="bob"))
        ends = ("CANCELLED", "cancelled by bob")
    else:
        world.do(DecideApproval(execution_id=1, task="a", approve=approve, actor="bob", comment=""))
    world.settle()
    assert told(world) == [("post", "post-1", *ends)]


def test_nothing_is_told_where_its_condition_does_not_hold_and_the_tasks_go_on(world: World) -> None:
    hooks = (
        "hooks: {pre: [{webhook: ops, condition: 'false'}], post: [{webhook: ops, condition: a.state == 'failed'}]}\n"
    )
    start(world, hooks + "tasks: {a: {command: [x]}}")
    world.end(world.job("execution/1/a"))
    assert world.states(1) == {"pre-1": "skipped", "a": "succeeded", "post-1": "skipped"}
    assert told(world) == []
    start(world, hooks + "tasks: {a: {command: [x]}}")
    world.end(world.job("execution/2/a"), code=1)
    assert told(world) == [("post", "post-1", "FAILED", "a: job 2 failed (exit code 1)")]


def test_begun_again_the_end_is_told_again_and_the_beginning_is_not(world: World) -> None:
    start(world, BOTH + "tasks: {a: {command: [x]}}")
    world.end(world.job("execution/1/a"), code=1)
    world.do(RetryExecution(execution_id=1, actor="bob"))
    world.settle()
    world.end(world.job("execution/1/a"))
    assert [each[:3] for each in told(world)] == [
        ("pre", "begun", "RUNNING"),
        ("post", "post-1", "FAILED"),
        ("post", "post-1", "SUCCEEDED"),
    ]
    assert len({each.event for each in notices(world)}) == 3


def test_what_could_never_run_tells_of_neither(world: World) -> None:
    hooks = "hooks: {pre: [{webhook: ops}, validate_resources], post: [{webhook: ops}]}\n"
    start(world, hooks + "tasks: {a: {command: [x], resources: {gpus: 64}}}")
    assert set(world.states(1).values()) == {"failed", "skipped"}
    assert told(world) == []
    start(world, hooks + "tasks: {a: {command: [x]}}")
    assert told(world) == [("pre", "pre-1", "RUNNING", "")]


def test_one_that_is_ended_whole_tells_nothing_more(world: World) -> None:
    start(world, BOTH + "tasks: {a: {command: [x], compensate: {command: [y]}}, b: {after: a, approval: go?}}")
    world.end(world.job("execution/1/a"))
    for _ in range(2):
        world.do(CancelExecution(execution_id=1, actor="bob"))
        world.settle()
    assert world.states(1)["post-1"] == "skipped"
    assert [each[0] for each in told(world)] == ["pre"]


@pytest.mark.parametrize("target", ["nobody", "red"])
@pytest.mark.parametrize("when", ["pre", "post"])
def test_only_a_target_that_is_there_for_it_can_be_named(world: World, target: str, when: str) -> None:
    """Also by a workflow within another, which begins only later."""
    put(world, "red", namespaces=("red",))
    text = f"hooks: {{{when}: [{{webhook: {target}}}]}}\ntasks: {{a: {{command: [x]}}}}"
    outer = WorkflowSpec(name="outer", tasks=(TaskSpec(name="inner", workflow=parsed(text)),))
    for spec in (parsed(text), outer):
        refused = world.do(StartExecution(submission_id="s", actor="ada", spec=spec))
        assert isinstance(refused, Rejected) and refused.code == "unknown_notification"
    assert not world.state.executions
    start(world, text.replace(target, "red") + "\nnamespace: red")


def test_a_target_stays_while_executions_that_have_not_ended_name_it(world: World) -> None:
    inner = {"name": "inner", "tasks": {"x": {"command": ["x"]}}, "hooks": {"post": [{"webhook": "ops"}]}}
    start(world, "tasks: {a: {approval: go?}, b: {after: a, workflow: inner}}", lambda kind, name: inner)
    for _ in range(2):
        refused = world.do(DELETE)
        assert isinstance(refused, Rejected)
        assert (refused.code, refused.cause) == (
            "policy_in_use",
            "notification/ops is used by 1 execution still to end",
        )
        world.state = restore(records(world.state))
    world.do(DecideApproval(execution_id=1, task="a", approve=True, actor="bob", comment=""))
    world.settle()
    world.end(world.job("execution/2/x"))
    assert [(each.execution_id, each.name) for each in notices(world)] == [(2, "inner")]
    assert world.do(DELETE) == Done()


@pytest.mark.parametrize(
    "tasks",
    [
        (TaskSpec(name="a", tells="ops", approval="?"),),
        (TaskSpec(name="a", tells="ops", items=(1, 2), fans_out=True),),
        (TaskSpec(name="a", approval="?"), TaskSpec(name="b", tells="ops", role=Role.UNDO)),
        (TaskSpec(name="a", validates=True), TaskSpec(name="b", tells="ops", validates=True, after=(After(0),))),
    ],
)
def test_it_is_nothing_else(world: World, tasks: tuple[TaskSpec, ...]) -> None:
    refused = world.do(StartExecution(submission_id="s", actor="ada", spec=WorkflowSpec(name="w", tasks=tasks)))
    assert isinstance(refused, Rejected) and refused.code == "invalid_workflow"
