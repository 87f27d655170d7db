"""Workflow files: what is accepted, and what is refused with its place."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.errors import ConfigInvalid, SpecInvalid
from hasched.model.notices import NotifyRule
from hasched.model.parameters import check_template, fill_template
from hasched.model.states import BackoffKind
from hasched.model.workflow import After, OnFailure, Role, When
from hasched.model.workflow_keys import workflow_schema
from hasched.model.workflow_text import parse_workflow
from hasched.model.yaml_text import Document, read_documents


def read(text: str) -> Document:
    return read_documents(text, "w.yaml")[0]


def mistakes(text: str, **given: Any) -> list[tuple[int, str, str]]:
    """Line, path and cause of everything that is wrong."""
    document = read(text)
    try:
        parse_workflow(document.value, given=given or None, library=lambda kind, name: None)
    except SpecInvalid as error:
        return [(document.line_of(each.path), each.path, each.cause) for each in error.errors]
    return []


def test_the_pipeline_of_the_seed() -> None:
    text = """
name: data-pipeline
tasks:
  - name: extract
    job: data-extractor
    parameters: {source: database, query: SELECT * FROM users}
    success: {exit_codes: [0]}
  - name: transform
    job: data-transformer
    after: [extract]
    parameters: {input: "#{extract.output}", format: parquet}
    retries: {max: 3, backoff: {kind: linear, initial: 60s}}
  - name: load
    job: data-loader
    after: [transform]
    parameters: {input: "#{transform.output}", destination: warehouse}
    resources: {cpu: 4, memory: 16Gi}
on_failure: continue
timeout: 4h
parallelism: 2
"""
    jobs = {
        "data-extractor": {"parameters": {"source": None, "query": None}, "command": ["x", "#{params.query}"]},
        "data-transformer": {
            "parameters": {"input": None, "format": "csv"},
            "command": ["t"],
            "env": {"I": "#{params.input}"},
        },
        "data-loader": {"parameters": {"input": None, "destination": None}, "command": ["l", "#{params.input}"]},
    }
    spec = parse_workflow(read(text).value, given={}, library=lambda _, name: jobs[name]).spec
    extract, transform, load = spec.tasks
    assert (spec.on_failure, spec.timeout_ms, spec.parallelism) == (OnFailure.CONTINUE, 4 * 3_600_000, 2)
    assert extract.job is not None and transform.job is not None and load.job is not None
    assert extract.job.command == ("x", "SELECT * FROM users")
    assert transform.job.retries.backoff.kind is BackoffKind.LINEAR
    assert dict(transform.arguments or ()) == {"input": "#{extract.output}", "format": "parquet"}
    assert load.job.resources.cpu_milli == 4000
    assert [task.keeps_output for task in spec.tasks] == [True, True, False]


WRONG = """name: w
parameters: {day: {required: true, choices: [mon, tue]}, n: 3}
tasks:
  a:
    command: [echo, "#{params.day}"]
  b:
    after: {a: ok}
    for_each: lines(a.output)
    command: [echo, "#{item}"]
  c:
    after: [b]
    command: [echo, "#{b.outputs[0]}"]
"""


def test_a_right_one() -> None:
    assert mistakes(WRONG) == []
    assert mistakes(WRONG, day="mon") == []


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "cause"),
    [
        ("after: {a: ok}", "after: {c: ok}", 7, "tasks.b.after", "tasks wait for each other: b after c after b"),
        ("after: {a: ok}", "after: {d: ok}", 7, "tasks.b.after", "there is no task d"),
        ("after: {a: ok}", "after: {a: okay}", 7, "tasks.b.after.a", "must be one of ok, failed, any, not 'okay'"),
        ("lines(a.output)", "lines(c.output)", 8, "tasks.b.for_each", "at character 7: c does not come before it"),
        (
            "lines(a.output)",
            "lines(a.output",
            8,
            "tasks.b.for_each",
            "at character 15: ')' must stand here, not 'the end'",
        ),
        ("lines(a.output)", "item", 8, "tasks.b.for_each", "at character 1: item is of tasks with for_each"),
        ('"#{item}"', '"#{itm}"', 9, "tasks.b.command[1]", "at character 1: there is no task itm"),
        ('"#{item}"', '"#{item"', 9, "tasks.b.command[1]", "at character 1: `#{` has no `}`"),
        (
            "b.outputs[0]",
            "b.output",
            12,
            "tasks.c.command[1]",
            "at character 1: b has an output of each item: write b.outputs",
        ),
        ("b.outputs[0]", "c.output", 12, "tasks.c.command[1]", "at character 1: c is the task itself"),
        ("b.outputs[0]", "params.m", 12, "tasks.c.command[1]", "at character 1: there is no parameter m"),
        ("  c:", "  item:", 10, "tasks.item", "means something else in expressions"),
        ("  c:", "  a.b:", 10, "tasks.a.b", "can't be the name of a task"),
        ("    after: [b]", "    memory: 3", 11, "tasks.c.memory", "unknown key"),
        ("    after: [b]", "    resources: {memory: 3Q}", 11, "tasks.c.resources.memory", None),
        (
            "    after: [b]",
            "    resources: {memory: '#{item}'}",
            11,
            "tasks.c.resources.memory",
            "asks for what is known only when a task starts",
        ),
        ("    after: [b]", "    job: nothing", 11, "tasks.c.job", "there is no job template nothing"),
        ("    after: [b]", "    workflow: w", 10, "tasks.c", "`workflow` excludes a job and its keys"),
        ("    after: [b]", "    complete_when: 2", 11, "tasks.c.complete_when", "is of tasks with for_each"),
        (
            "    after: [b]",
            "    for_each: [1, 2]\n    complete_when: 3",
            12,
            "tasks.c.complete_when",
            "asks for more than the 2 instances that there are",
        ),
        ("    after: [b]", "    memo: {key: '#{d.output}'}", 11, "tasks.c.memo.key", None),
        (
            "    after: [b]",
            "    memo: {}\n    compensate: {command: [x]}",
            11,
            "tasks.c.memo",
            "and `compensate` exclude each other",
        ),
        ("    after: [b]", "    parallelism: 0", 11, "tasks.c.parallelism", "must be from 1 to 20000, not 0"),
        (
            "name: w\n",
            "name: w\nhooks: {pre: [notify_completion]}\n",
            2,
            "hooks.pre[0]",
            "must be a job, webhook or one of check_dependencies, cleanup_resources, validate_resources, not 'notify_completion'",
        ),
        (
            "name: w\n",
            "name: w\nhooks:\n  pre: [check_dependencies]\n  post:\n  - validate_resources\n",
            5,
            "hooks.post[0]",
            "must be a job, webhook or one of check_dependencies, cleanup_resources, notify_completion, not 'validate_resources'",
        ),
        (
            "name: w\n",
            "name: w\nhooks:\n  pre:\n  - validate_resources\n  - validate_resources\n",
            5,
            "hooks.pre[1]",
            "validate_resources stands twice",
        ),
        (
            "name: w\n",
            "name: w\nhooks:\n  post: [notify_completion]\n",
            3,
            "hooks.post[0]",
            "nobody is named who is to be told",
        ),
        (
            "name: w\n",
            "name: w\nnotify:\n  targets: [ops]\n  events: [job.failed]\n",
            4,
            "notify.events[0]",
            "'job.failed' is no event that is told",
        ),
        ("name: w\n", "name: w\nnotify: {events: [workflow.failed]}\n", 2, "notify.targets", "is missing"),
        ("name: w\n", "name: w\nhooks: {pre_execute: []}\n", 2, "hooks.pre_execute", "unknown key"),
        (
            "name: w\n",
            "name: w\nhooks:\n  pre:\n  - webhook: https://example.com/in\n",
            4,
            "hooks.pre[0].webhook",
            "must name a notification policy, not 'https://example.com/in'",
        ),
        ("name: w\n", "name: w\nhooks: {pre: [{webhook: a b}]}\n", 2, "hooks.pre[0].webhook", "'a b' is not a name"),
        (
            "name: w\n",
            "name: w\nhooks:\n  post:\n  - webhook: ops\n    command: [x]\n",
            5,
            "hooks.post[0].command",
            "unknown key",
        ),
        (
            "name: w\n",
            "name: w\nhooks:\n  pre:\n  - {webhook: ops, name: a}\n",
            7,
            "tasks.a",
            "there is a task a already",
        ),
        (
            "name: w\n",
            "name: w\nhooks:\n  post:\n  - webhook: ops\n    condition: z.state == 'failed'\n",
            5,
            "hooks.post[0].condition",
            "at character 1: there is no task z",
        ),
        ("n: 3}", "n: {default: 3, max: 2}}", 2, "parameters.n.default", "must be at most 2, not 3"),
        ("n: 3}", "n: 0.5}", 2, "parameters.n.default", "must not be a fraction"),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str, line: int, path: str, cause: str | None) -> None:
    assert old in WRONG
    found = mistakes(WRONG.replace(old, new))
    assert (line, path, cause or found[0][2]) in found


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("a.outpt", "did you mean 'output'?"),
        ("execution.slt", "did you mean 'slot'?"),
        ("params.da", "did you mean 'day'?"),
        ("aa.output", "did you mean 'a'?"),
        ("item", ""),
    ],
)
def test_a_name_that_means_nothing_is_told_the_nearest_that_does(written: str, hint: str) -> None:
    tasks = {"a": {"command": ["x"]}, "b": {"after": "a", "condition": written, "command": ["x"]}}
    with pytest.raises(SpecInvalid) as raised:
        parse_workflow({"name": "w", "parameters": {"day": "mon"}, "tasks": tasks})
    assert [each.hint for each in raised.value.errors] == [hint]


@pytest.mark.parametrize(
    ("given", "path", "cause"),
    [
        ({"n": 1}, "parameters.day", "must be given"),
        ({"day": "wed"}, "parameters.day", "must be one of mon, tue, not 'wed'"),
        ({"day": "mon", "n": "x"}, "parameters.n", "must be a whole number, not 'x'"),
        ({"day": "mon", "m": "x"}, "parameters.m", "there is no such parameter"),
    ],
)
def test_parameters_are_checked(given: dict[str, Any], path: str, cause: str) -> None:
    assert [each[1:] for each in mistakes(WRONG, **given)] == [(path, cause)]


def test_parameters_stand_for_any_value() -> None:
    text = """name: w
parameters: {memory: {required: true}, tasks: {type: integer, required: true}, dir: {required: true}}
defaults: {working_dir: "#{params.dir}", retries: {backoff: {initial: 1s}}, env: {A: "1"}}
tasks:
  a:
    {command: [x, "#{params.tasks}"], count: "#{params.tasks}", resources: {memory: "#{params.memory}"}, retries: 2, env: {B: c}}
"""
    assert mistakes(text) == []
    spec = parse_workflow(read(text).value, given={"memory": "1Gi", "tasks": "4", "dir": "/d"}).spec
    job = spec.tasks[0].job
    assert job is not None
    assert (job.resources.memory_bytes, job.count, job.command[1], job.working_dir) == (2**30, 4, "4", "/d")
    assert (job.retries.max, job.retries.backoff.initial_ms, job.env) == (2, 1000, {"A": "1", "B": "c"})
    assert mistakes(text, memory="1Gi", tasks=0, dir="/d") == [(6, "tasks.a.count", "must be from 1 to 1000000, not 0")]


def test_rows_of_all_roles() -> None:
    text = """name: w
tasks: {a: {command: [x], compensate: {command: [u]}}, b: {command: [y], after: {a: failed}}}
finally: {c: {command: [z]}}
hooks: {pre: [{command: [p]}, check_dependencies], post: [{command: [q]}]}
"""
    tasks = parse_workflow(read(text).value, given={}).spec.tasks
    assert [(task.name, task.role) for task in tasks] == [
        ("pre-1", Role.MAIN),
        ("a", Role.MAIN),
        ("b", Role.MAIN),
        ("undo-a", Role.UNDO),
        ("c", Role.FINAL),
        ("post-1", Role.FINAL),
    ]
    assert [tuple(each) for task in tasks[1:3] for each in [(after.row, after.when) for after in task.after]] == [
        (0, When.OK),
        (1, When.FAILED),
    ]
    assert tasks[3].of == 1


def test_a_check_stands_before_all_that_has_a_job() -> None:
    text = """name: w
tasks: {a: {command: [x]}, b: {command: [y], after: a}}
finally: {c: {command: [z]}}
hooks: {pre: [{command: [p]}, validate_resources, {command: [q]}]}
"""
    spec = parse_workflow(read(text).value, given={}).spec
    names = [task.name for task in spec.tasks]
    before = {task.name: [names[after.row] for after in task.after] for task in spec.tasks}
    assert before == {
        "pre-1": ["validate_resources"],
        "validate_resources": [],
        "pre-3": ["validate_resources"],
        "a": ["pre-1", "pre-3"],
        "b": ["a"],
        "c": [],
    }
    assert [task.kind for task in spec.tasks[:2]] == ["job", "check"]
    alone = parse_workflow(read(text.replace("{command: [p]}, ", "").replace(", {command: [q]}", "")).value).spec
    assert [task.after for task in alone.tasks[:2]] == [(), (After(0),)]


def test_webhooks_are_rows_that_no_task_waits_for() -> None:
    text = """name: w
tasks: {a: {command: [x]}, b: {command: [y], after: told}}
hooks:
  pre: [{command: [p]}, {webhook: ops, name: told}, validate_resources]
  post: [{webhook: ops, condition: a.state == "failed", about: it went wrong}]
"""
    tasks = parse_workflow(read(text).value, given={}).spec.tasks
    names = [task.name for task in tasks]
    before = {task.name: [names[after.row] for after in task.after] for task in tasks}
    assert before == {
        "pre-1": ["validate_resources"],
        "told": ["validate_resources"],
        "validate_resources": [],
        "a": ["pre-1"],
        "b": ["told"],
        "post-1": [],
    }
    assert [(task.tells, task.kind, task.role) for task in (tasks[1], tasks[5])] == [
        ("ops", "webhook", Role.MAIN),
        ("ops", "webhook", Role.FINAL),
    ]
    assert tasks[5].condition == 'a.state == "failed"'


ENDS = ("workflow.cancelled", "workflow.failed", "workflow.succeeded")


@pytest.mark.parametrize(
    ("keys", "events"),
    [
        ("notify: {targets: [ops]}", ("workflow.failed", "workflow.succeeded")),
        ("notify: {targets: [ops], events: [workflow.approval]}", ("workflow.approval",)),
        ("notify: {targets: [ops]}\nhooks: {post: [notify_completion]}", ENDS),
        (
            "notify: {targets: [ops], events: [workflow.approval]}\nhooks: {post: [notify_completion]}",
            ("workflow.approval", *ENDS),
        ),
    ],
)
def test_who_is_told_of_an_execution(keys: str, events: tuple[str, ...]) -> None:
    spec = parse_workflow(read(f"name: w\ntasks: {{a: {{command: [x]}}}}\n{keys}\n").value).spec
    assert spec.notify == NotifyRule(("ops",), events)
    assert [task.name for task in spec.tasks] == ["a"]


def test_workflows_that_are_within_each_other_are_refused() -> None:
    def library(kind: str, name: str) -> dict[str, Any]:
        return {"name": name, "tasks": {"t": {"workflow": "b" if name == "a" else "a"}}}

    with pytest.raises(SpecInvalid, match="would be within itself"):
        parse_workflow(library("workflow", "a"), given={}, library=library)


def test_a_list_that_a_comment_swallows_is_explained() -> None:
    text = "name: w\nparameters: {x: 1}\ntasks:\n  a:\n    command: [echo, #{params.x}]\n    script: 'not # #{this}'\n"
    with pytest.raises(ConfigInvalid) as caught:
        read_documents(text, "w.yaml", fillable=True)
    assert [each.hint for each in caught.value.errors] == ["line 5: a text with `#{…}` goes in quotes"]
    with pytest.raises(ConfigInvalid) as caught:
        read_documents("a: [b", "w.yaml", fillable=True)
    assert [each.hint for each in caught.value.errors] == [""]


def test_a_forgotten_quote_is_not_a_comment() -> None:
    with pytest.raises(ConfigInvalid, match=r"w\.yaml:2: a comment begins with"):
        read_documents("a: 1\nb: cat #{x.output}\n", "w.yaml", fillable=True)
    read_documents("a: 1 # a comment\nb: 'cat #{x.output}' # too\n# #{x}\nc: |\n  x #{y}\n", "w.yaml", fillable=True)


def test_job_templates() -> None:
    document = {
        "parameters": {"n": 2, "memory": {"required": True}},
        "command": ["x", "#{params.n}", "##{y}"],
        "count": "#{params.n}",
        "resources": {"memory": "#{params.memory}"},
    }
    assert check_template(document) == []
    filled = fill_template(document, {"memory": "1Gi", "n": "3"})
    assert filled == {"command": ["x", "3", "#{y}"], "count": 3, "resources": {"memory": "1Gi"}}
    for key, value, path in (
        ("count", "#{params.m}", "count"),
        ("script", "x", "command"),
        ("env", {"A": "#{item}"}, "env.A"),
        ("timeout", "soon", "timeout"),
    ):
        assert [each.path for each in check_template({**document, key: value})] == [path]
    with pytest.raises(SpecInvalid, match="must be given"):
        fill_template(document, {})


def test_the_schema_knows_every_key() -> None:
    schema = workflow_schema()
    assert {"tasks", "finally", "parameters", "on_failure"} <= set(schema["properties"])
    assert {"after", "for_each", "command", "resources"} <= set(schema["$defs"]["task"]["properties"])


@pytest.mark.parametrize(
    "document",
    [None, [], 3, {}, {"name": "w", "tasks": []}, {"name": "w", "tasks": {"a": 3}}, {"name": "w", "tasks": {"a": {}}}],
)
def test_what_is_no_workflow(document: Any) -> None:
    with pytest.raises(SpecInvalid):
        parse_workflow(document)
