"""The graph of a workflow, in three forms."""

from __future__ import annotations

from xml.etree import ElementTree

from hasched.cli.graphs import dot_of, levels_of, svg_of, text_of
from hasched.model.workflow_views import ExecutionTaskView, TaskBefore


def task(name: str, *after: str, **fields: object) -> ExecutionTaskView:
    before = [TaskBefore(task=each.rstrip("!"), when="failed" if each.endswith("!") else "ok") for each in after]
    return ExecutionTaskView(
        **{"name": name, "state": "waiting", "role": "main", "kind": "job", "after": before} | fields
    )  # type: ignore[arg-type]


TASKS = [
    task("a", state="succeeded"),
    task("b", "a", fans_out=True, count=3, state="running"),
    task("c", "a", "b!", kind="approval"),
    task("undo-a", role="undo"),
    task("<end>", role="final"),
]


def test_levels_are_the_longest_ways() -> None:
    assert levels_of(TASKS) == {"a": 0, "b": 1, "c": 2, "undo-a": 3, "<end>": 4}
    chain = [task(f"t{n}", *([f"t{n - 1}"] if n else [])) for n in range(5000)]
    assert levels_of(chain[::-1])["t4999"] == 4999


def test_text() -> None:
    assert text_of(TASKS) == [
        "a      succeeded",
        "  b    running, 3 items  after a",
        "    c  asks somebody  after a, b (failed)",
        "if it fails:",
        "  undo-a",
        "finally:",
        "  <end>",
    ]


def test_dot_and_svg() -> None:
    dot = dot_of('a "name"', TASKS)
    assert dot.startswith('digraph "a \\"name\\"" {')
    assert '  "b" -> "c" [label="failed"];' in dot
    svg = ElementTree.fromstring(svg_of('a "name" & <more>', TASKS))
    assert len([each for each in svg if each.tag.endswith("rect")]) == 5
    assert len([each for each in svg if each.tag.endswith("path")]) == 3
