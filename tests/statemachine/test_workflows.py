"""Executions of workflows, one fact after the other."""

from __future__ import annotations

from random import Random
from typing import Any, get_args

import msgspec
import pytest

from hasched.model.policy import Amounts, PolicyKind, Quota
from hasched.model.spec import MAX_OUTPUT_BYTES
from hasched.model.workflow_text import Library, parse_workflow
from hasched.model.yaml_text import read_documents
from hasched.statemachine import workflow_events as w
from hasched.statemachine.commands import (
    CancelExecution,
    CancelJob,
    DecideApproval,
    DeleteExecution,
    DeleteJob,
    DeletePolicy,
    DeleteTemplate,
    ForgetMemos,
    PutPolicy,
    PutTemplate,
    RetryExecution,
    StartExecution,
    StepClock,
)
from hasched.statemachine.events import JobSubmitted, view
from hasched.statemachine.execution import Execution, RowState
from hasched.statemachine.outcomes import ExecutionAccepted, Rejected, TemplateTaken
from hasched.statemachine.queries.executions import show_task_of
from hasched.statemachine.rules import workflows
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.rules.workflow_progress import CUT
from hasched.statemachine.rules.workflows import DELAY_MS, MAX_EVENTS_PER_STEP
from hasched.statemachine.state import RETENTION_MS
from tests.statemachine.workflow_world import World


def start(world: World, text: str, library: Library | None = None, **params: Any) -> Execution:
    document = read_documents(f"name: w\n{text}", "w.yaml")[0].value
    parsed = parse_workflow(document, given=params, library=library)
    return world.execution(world.start(parsed.spec, params=tuple(parsed.values.items())))


def now(world: World, execution: Execution) -> Execution:
    return world.execution(execution.id)


def refusal(world: World, command: Any) -> str:
    outcome = world.do(command)
    assert isinstance(outcome, Rejected), outcome
    return outcome.code


def allow_queued(world: World, jobs: int) -> None:
    quota = Quota(namespace="default", nominal=Amounts(queued_jobs=jobs))
    world.do(PutPolicy(kind=PolicyKind.QUOTA, name="q", body=quota, actor="root"))


CHAIN = """
parameters: {day: monday}
tasks:
  extract: {command: [extract, "#{params.day}"]}
  transform: {after: extract, command: [transform, "#{extract.output.rows}"], env: {DAY: "on #{params.day}"}}
output: transform.output
"""


def test_what_a_task_leaves_is_passed_on() -> None:
    world = World()
    execution = start(world, CHAIN)
    assert world.job("execution/1/extract").spec.command == ("extract", "monday")
    world.end(world.job("execution/1/extract"), output=b'{"rows": 12}')
    job = world.job("execution/1/transform")
    assert (job.spec.command, job.spec.env["DAY"]) == (("transform", "12"), "on monday")
    world.end(job, output=b"done")
    execution = now(world, execution)
    assert (execution.state.name, execution.output) == ("SUCCEEDED", "done")


def test_a_value_that_is_not_there_fails_the_task_and_says_so() -> None:
    world = World()
    execution = start(world, CHAIN)
    world.end(world.job("execution/1/extract"))
    execution = now(world, execution)
    assert execution.state.name == "FAILED"
    assert "null has no 'rows'" in execution.reason


def test_a_job_is_made_once_whatever_leads() -> None:
    world = World()
    start(world, CHAIN)
    for _ in range(5):
        world.do(StepClock())
        world.fail_over(Random(1))
    made = [event.parent for event in world.events if isinstance(event, JobSubmitted)]
    assert made == ["execution/1/extract"]


def test_a_job_that_is_forgotten_has_left_its_output() -> None:
    world = World()
    start(world, CHAIN.replace("tasks:", "parallelism: 1\ntasks:\n  slow: {command: [slow]}"))
    job = world.job("execution/1/slow")
    world.end(job)
    extract = world.job("execution/1/extract")
    world.run(extract)
    world.end(extract, output=b'{"rows": 3}')
    world.do(DeleteJob(job_id=extract.id, actor="ada"))
    assert world.job("execution/1/transform").spec.command == ("transform", "3")


FAN = """
parallelism: 3
tasks:
  list: {command: [list]}
  each: {after: list, for_each: lines(list.output), command: [work, "#{item}", "#{index}"]}
  join: {after: each, command: [join, "#{join(each.outputs, '+')}"]}
"""


def test_a_fan_out_is_decided_when_its_turn_has_come() -> None:
    world = World()
    execution = start(world, FAN)
    world.end(world.job("execution/1/list"), output=b"a\nb\nc\nd\n")
    assert sorted(job.spec.command for job in world.jobs()) == [("work", x, str(n)) for n, x in enumerate("abc")]
    for n, x in enumerate("abcd"):
        world.end(world.job(f"execution/1/each[{n}]"), output=x.upper().encode())
    assert world.job("execution/1/join").spec.command == ("join", "A+B+C+D")
    assert world.job("execution/1/join").parent == "execution/1/join"
    assert now(world, execution).running == 1


@pytest.mark.parametrize("output", [b"", b"[]", b"7", b"{"])
def test_an_empty_fan_out_has_succeeded_and_what_is_no_list_has_failed(output: bytes) -> None:
    world = World()
    execution = start(world, FAN.replace("lines(list.output)", "list.output"))
    world.end(world.job("execution/1/list"), output=output)
    assert world.states(execution.id)["each"] == ("succeeded" if output == b"[]" else "failed")


def test_enough_instances_end_the_task_and_stop_the_others() -> None:
    world = World()
    execution = start(world, "tasks: {a: {for_each: [1, 2, 3], complete_when: any, command: [x]}}")
    world.run(world.job("execution/1/a[2]"))
    world.end(world.job("execution/1/a[1]"))
    assert world.states(execution.id) == {"a": "succeeded"}
    (left,) = world.jobs()
    assert world.stopped(left)
    assert now(world, execution).state.name == "RUNNING"  # until it has
    world.end(left, code=9)
    assert now(world, execution).state.name == "SUCCEEDED"


def test_success_is_more_than_an_exit_code() -> None:
    world = World()
    text = "tasks: {a: {for_each: [1, 2], command: [x], success: {output: 'ok*', condition: 'len(a.output) > 2'}}}"
    execution = start(world, f"on_failure: continue\n{text}")
    world.end(world.job("execution/1/a[0]"), output=b"ok!")
    world.end(world.job("execution/1/a[1]"), output=b"ok")
    assert world.states(execution.id) == {"a": "failed"}
    assert "len(a.output) > 2 does not hold" in now(world, execution).reason


def test_a_timeout_stops_and_cleans_up() -> None:
    world = World()
    text = "timeout: 1m\ntasks: {a: {command: [x], compensate: {command: [undo]}}, b: {after: a, command: [y]}}"
    execution = start(world, f"{text}\nfinally: {{c: {{command: [sweep, '#{{execution.state}}']}}}}")
    world.end(world.job("execution/1/a"))
    world.run(world.job("execution/1/b"))
    world.wait(59_999)
    assert not world.stopped(world.job("execution/1/b"))
    world.wait(1)
    world.end(world.job("execution/1/b"), code=9)
    world.end(world.job("execution/1/undo-a"))
    assert world.job("execution/1/c").spec.command == ("sweep", "timed_out")
    world.end(world.job("execution/1/c"))
    assert now(world, execution).state.name == "TIMED_OUT"


@pytest.mark.parametrize(
    ("asked", "size", "state"),
    [
        (True, MAX_OUTPUT_BYTES - 1, "succeeded"),
        (True, MAX_OUTPUT_BYTES, "failed"),
        (False, MAX_OUTPUT_BYTES, "succeeded"),
    ],
)
def test_nobody_goes_on_with_half_an_output(asked: bool, size: int, state: str) -> None:
    world = World()
    wanted = "#{len(a.output)}" if asked else "y"
    execution = start(world, f"tasks: {{a: {{command: [x]}}, b: {{after: {{a: any}}, command: ['{wanted}']}}}}")
    world.end(world.job("execution/1/a"), output=b"1" * size)
    assert world.states(1)["a"] == state
    assert now(world, execution).rows[0].reason == (CUT if state == "failed" else "")


def test_a_question_has_its_values() -> None:
    world = World()
    ask = "{approval: 'Ship #{params.v} with #{a.output}?', after: a}"
    execution = start(world, f"parameters: {{v: 1}}\ntasks: {{a: {{command: [x]}}, ask: {ask}}}")
    world.end(world.job("execution/1/a"), output=b"notes")
    view = show_task_of(now(world, execution), 1)
    assert (view.approval, view.reason) == ("Ship 1 with notes?", "")
    world.do(DecideApproval(execution_id=1, task="ask", approve=True, actor="bob"))
    assert show_task_of(now(world, execution), 1).reason == "approved by bob"


def test_a_question_without_its_values_is_not_asked() -> None:
    world = World()
    execution = start(world, "tasks: {a: {command: [x]}, ask: {approval: 'Ship #{a.output}?', after: a}}")
    world.end(world.job("execution/1/a"))
    row = now(world, execution).rows[1]
    assert (row.state, row.reason) == (RowState.FAILED, "a.output is null")


@pytest.mark.parametrize("approved", [True, False])
def test_a_question_counts_as_kept_while_it_is_asked(approved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values may be long, and questions many. One that has no room is asked as it is written."""
    monkeypatch.setattr(workflows, "MAX_KEPT_BYTES", 300)
    world = World()
    asks = "".join(f"  ask{number}: {{approval: 'Ship #{{a.output}}?', after: a}}\n" for number in range(3))
    execution = start(world, "tasks:\n  a: {command: [x]}\n" + asks)
    before = world.state.execution_bytes
    world.end(world.job("execution/1/a"), output=("é" * 40).encode())
    shown = [show_task_of(now(world, execution), row).approval for row in (1, 2, 3)]
    assert shown == [f"Ship {'é' * 40}?"] * 2 + ["Ship #{a.output}?"]
    assert world.state.execution_bytes - before == 80 + 2 * 86
    world.fail_over(Random(1))
    world.do(DecideApproval(execution_id=1, task="ask0", approve=approved, actor="bob"))
    assert world.state.execution_bytes - before == 80 + 86
    world.do(CancelExecution(execution_id=1, actor="bob"))
    world.settle()
    assert (now(world, execution).ended, world.state.execution_bytes - before) == (True, 80)


def test_an_approval_waits_for_somebody() -> None:
    world = World()
    execution = start(world, "tasks: {ask: {approval: Really?}, go: {after: ask, command: [x]}}")
    assert next_deadline(world.state) is None
    assert refusal(world, DecideApproval(execution_id=1, task="go", approve=True, actor="bob")) == "no_approval"
    assert refusal(world, DecideApproval(execution_id=1, task="aks", approve=True, actor="bob")) == "no_such_task"
    world.do(DecideApproval(execution_id=1, task="ask", approve=True, actor="bob", comment="fine"))
    world.settle()
    assert refusal(world, DecideApproval(execution_id=1, task="ask", approve=False, actor="eve")) == "not_asked"
    assert now(world, execution).rows[0].reason == "approved by bob: fine"
    world.end(world.job("execution/1/go"))
    assert now(world, execution).state.name == "SUCCEEDED"


def test_what_asks_is_cancelled_too() -> None:
    world = World()
    execution = start(world, "tasks: {ask: {approval: Really?}, go: {after: ask, command: [x]}}")
    world.do(CancelExecution(execution_id=1, actor="bob", reason="no"))
    world.settle()
    assert (now(world, execution).state.name, now(world, execution).reason) == ("CANCELLED", "cancelled by bob: no")


def inner_library(kind: str, name: str) -> dict[str, Any] | None:
    documents = {
        ("workflow", "inner"): {
            "name": "inner",
            "parameters": {"x": {"required": True}},
            "tasks": {"work": {"command": ["work", "#{params.x}"], "success": "true"}},
            "output": "work.output + params.x",
        },
        ("job", "tool"): {
            "parameters": {"input": {"required": True}, "size": 3},
            "command": ["tool", "#{quote(params.input)}", "#{params.size}"],
        },
    }
    return documents.get((kind, name))


NESTED = """
tasks:
  first: {command: [first]}
  sub: {after: first, for_each: [a, b], workflow: inner, parameters: {x: "#{item}-#{first.output}"}}
  last: {after: sub, job: tool, parameters: {input: "#{join(sub.outputs, ' ')}"}}
"""


def test_workflows_within_workflows_and_jobs_that_are_named() -> None:
    world = World()
    execution = start(world, NESTED, inner_library)
    world.end(world.job("execution/1/first"), output=b"#{1}")
    assert world.job("execution/2/work").spec.command == ("work", "a-#{1}")
    assert world.execution(3).parent == "execution/1/sub[1]"
    for number in (3, 2):
        world.end(world.job(f"execution/{number}/work"), output=b"out:")
    assert world.job("execution/1/last").spec.command == ("tool", "'out:a-#{1} out:b-#{1}'", "3")
    world.end(world.job("execution/1/last"))
    assert now(world, execution).state.name == "SUCCEEDED"


def test_an_inner_execution_is_stopped_and_begun_again_with_its_outer_one() -> None:
    world = World()
    start(world, NESTED, inner_library)
    world.end(world.job("execution/1/first"), output=b"1")
    world.run(world.job("execution/2/work"))
    world.do(CancelExecution(execution_id=1, actor="bob"))
    world.settle()
    assert world.execution(3).state.name == "CANCELLED"  # its job only waited
    assert refusal(world, RetryExecution(execution_id=3, actor="bob")) == "execution_inner"
    world.end(world.job("execution/2/work"), code=9)
    assert world.execution(1).state.name == "CANCELLED"
    world.do(RetryExecution(execution_id=1, actor="bob"))
    world.settle()
    assert [job.parent for job in world.jobs()] == ["execution/4/work", "execution/5/work"]


def test_only_what_has_failed_is_run_again() -> None:
    world = World()
    execution = start(world, FAN.replace("parallelism: 3", "on_failure: continue"))
    world.end(world.job("execution/1/list"), output=b"a\nb\nc")
    for n, code in enumerate((0, 7, 0)):
        world.end(world.job(f"execution/1/each[{n}]"), code=code, output=b"ABC"[n : n + 1])
    assert now(world, execution).reason == "each: 1 of 3 failed: job 3 failed (exit code 7)"
    world.do(RetryExecution(execution_id=1, actor="bob"))
    world.settle()
    assert [job.parent for job in world.jobs()] == ["execution/1/each[1]"]
    world.end(world.job("execution/1/each[1]"), output=b"x")
    assert world.job("execution/1/join").spec.command == ("join", "A+x+C")


def test_a_job_that_somebody_cancels_fails_its_task() -> None:
    world = World()
    execution = start(world, "tasks: {a: {command: [x]}}")
    world.do(CancelJob(job_id=world.job("execution/1/a").id, actor="eve"))
    world.settle()
    assert (now(world, execution).state.name, now(world, execution).reason) == ("FAILED", "a: job 1 cancelled")


def test_a_quota_makes_an_execution_wait() -> None:
    world = World()
    world.do(
        PutPolicy(
            kind=PolicyKind.QUOTA,
            name="q",
            body=Quota(namespace="default", nominal=Amounts(queued_jobs=1)),
            actor="root",
        )
    )
    execution = start(world, "tasks: {a: {for_each: [1, 2], command: [x]}}")
    assert [job.parent for job in world.jobs()] == ["execution/1/a[0]"]
    assert now(world, execution).wake_ms == world.now_ms + DELAY_MS
    assert "quota" in now(world, execution).reason
    world.do(DeletePolicy(kind=PolicyKind.QUOTA, name="q", actor="root"))
    world.fail_over(Random(3))
    world.wait(DELAY_MS)
    assert len(world.jobs()) == 2
    assert now(world, execution).reason == ""


def test_a_step_makes_a_bounded_number_of_jobs_of_every_execution() -> None:
    world = World()
    document = {"name": "w", "tasks": {"a": {"for_each": "range(2000)", "command": ["x"]}}}
    spec = parse_workflow(document, given={}).spec
    for number in range(2):
        world.do(StartExecution(submission_id=str(number), actor="ada", spec=spec))
    world.do(StepClock())
    assert len(world.jobs()) < MAX_EVENTS_PER_STEP
    assert {job.parent.split("/")[1] for job in world.jobs()} == {"1", "2"}
    world.settle()
    assert len(world.jobs()) == 4000


def test_a_cap_on_all_tasks_holds_whatever_ends() -> None:
    for seed in range(20):
        dice, world = Random(seed), World()
        text = "parallelism: 2\non_failure: continue\ntasks:\n" + "".join(
            f"  t{row}: {{for_each: range({dice.randrange(4)}), command: [x]{', after: t0' if row > 2 else ''}}}\n"
            for row in range(6)
        )
        execution = start(world, text)  # the invariants count what runs
        while jobs := world.jobs():
            assert len(jobs) <= 2
            world.end(dice.choice(jobs), code=dice.choice((0, 0, 1)))
            if dice.random() < 0.3:
                world.fail_over(dice)
        assert now(world, execution).ended


def test_a_submission_that_is_repeated_has_its_first_outcome() -> None:
    world = World()
    start(world, CHAIN)
    spec = world.execution(1).plan.spec
    outcome = world.do(StartExecution(submission_id=world.execution(1).submission_id, actor="ada", spec=spec))
    assert outcome == ExecutionAccepted(1, duplicate=True)


def test_an_execution_is_forgotten_after_its_retention_or_when_somebody_says_so() -> None:
    world = World()
    for _ in range(2):
        start(world, "tasks: {a: {command: [x]}}")
    assert refusal(world, DeleteExecution(execution_id=1, actor="ada")) == "execution_active"
    for number in (1, 2):
        world.end(world.job(f"execution/{number}/a"))
    world.do(DeleteExecution(execution_id=1, actor="ada"))
    assert list(world.state.executions) == [2]
    world.wait(RETENTION_MS)
    assert not world.state.executions
    assert refusal(world, CancelExecution(execution_id=2, actor="ada")) == "no_such_execution"


def test_a_bug_ends_one_execution_and_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    bad = start(world, CHAIN)
    good = start(world, CHAIN)
    rules = "hasched.statemachine.rules.workflows.fill_job"

    def fill(task: Any, scope: Any, execution: Execution, row: int, instance: int) -> Any:
        if execution.id == 1:
            raise KeyError("a bug")
        return msgspec.structs.replace(task.job, command=("filled",))

    monkeypatch.setattr(rules, fill)
    for number in (1, 2):
        world.end(world.job(f"execution/{number}/extract"))
    assert now(world, bad).state.name == "FAILED"
    assert "a bug in hasched" in now(world, bad).reason
    assert world.job(f"execution/{good.id}/transform").spec.command == ("filled",)


def test_templates_have_versions() -> None:
    world = World()
    put = PutTemplate(kind="job", name="t", document=b'{"command":["a"]}', actor="ada")
    assert world.do(put) == TemplateTaken(1)
    assert world.do(put) == TemplateTaken(1)
    changed = msgspec.structs.replace(put, document=b"{}", if_version=0)
    assert refusal(world, changed) == "template_changed"
    assert world.do(msgspec.structs.replace(changed, if_version=1)) == TemplateTaken(2)
    assert [each.version for each in world.state.templates["job", "t"].versions] == [1, 2]
    world.fail_over(Random(1))
    world.do(DeleteTemplate(kind="job", name="t", actor="ada"))
    assert refusal(world, DeleteTemplate(kind="job", name="t", actor="ada")) == "no_such_template"
    assert refusal(world, msgspec.structs.replace(put, kind="x")) == "invalid_template"


def test_every_event_can_be_shown() -> None:
    """They are met in a life of all that stands above."""
    world = World()
    world.do(PutTemplate(kind="job", name="t", document=b"{}", actor="ada"))
    world.do(DeleteTemplate(kind="job", name="t", actor="ada"))
    test = "tasks: {ask: {approval: Really?}, a: {for_each: [1], command: [x], success: 'false', compensate: {command: [y]}}}"
    start(world, f"{test}\nfinally: {{c: {{command: [z]}}}}")
    world.do(DecideApproval(execution_id=1, task="ask", approve=True, actor="bob"))
    world.end(world.job("execution/1/a[0]"))
    world.end(world.job("execution/1/c"))
    world.do(RetryExecution(execution_id=1, actor="bob"))
    world.settle()
    world.run(world.job("execution/1/a[0]"))
    world.do(CancelExecution(execution_id=1, actor="bob"))
    world.settle()
    for _ in range(2):
        world.end(world.jobs()[0])
    world.do(
        PutPolicy(
            kind=PolicyKind.QUOTA,
            name="q",
            body=Quota(namespace="default", nominal=Amounts(queued_jobs=0)),
            actor="root",
        )
    )
    start(world, "tasks: {a: {command: [x]}}")
    world.do(CancelExecution(execution_id=2, actor="bob"))
    world.settle()
    world.do(DeletePolicy(kind=PolicyKind.QUOTA, name="q", actor="root"))
    for _ in range(2):
        start(world, "tasks: {a: {command: [x], memo: {}}}")
        for job in world.jobs():
            world.end(job)
    world.do(ForgetMemos(namespace="default", workflow="w", actor="bob"))
    world.do(DeleteExecution(execution_id=2, actor="bob"))
    world.wait(RETENTION_MS)
    missing = [kind for kind in get_args(w.WorkflowEvent) if not any(isinstance(event, kind) for event in world.events)]
    assert not missing
    for number, event in enumerate(world.events):
        msgspec.json.encode(view(event, 5, number, 17))
