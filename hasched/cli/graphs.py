"""The graph of a workflow, as lines of text, for Graphviz, and as an SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from hasched.model.workflow_views import ExecutionTaskView

_COLOURS = {
    "waiting": "#f3f4f6",
    "running": "#bfdbfe",
    "succeeded": "#bbf7d0",
    "failed": "#fecaca",
    "skipped": "#e5e7eb",
    "cancelled": "#d1d5db",
}
_ROLES = {"undo": "if it fails", "final": "finally"}
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 170, 44, 60, 18, 16


def levels_of(tasks: Sequence[ExecutionTaskView]) -> dict[str, int]:
    """For each task, how many stand before it on the longest way. What ends the execution stands after everything."""
    levels: dict[str, int] = {}
    mains = {task.name: task for task in tasks if task.role == "main"}
    waiting = {name: len(task.after) for name, task in mains.items()}
    later: dict[str, list[str]] = {}
    for task in mains.values():
        for before in task.after:
            later.setdefault(before.task, []).append(task.name)
    ready = [name for name, number in waiting.items() if not number]
    while ready:
        name = ready.pop()
        levels[name] = max((levels[before.task] + 1 for before in mains[name].after), default=0)
        for each in later.get(name, []):
            waiting[each] -= 1
            if not waiting[each]:
                ready.append(each)
    last = max(levels.values(), default=0)
    for number, role in enumerate(("undo", "final"), start=1):
        levels.update({task.name: last + number for task in tasks if task.role == role})
    return levels


def label_of(task: ExecutionTaskView) -> str:
    """What a box says under the name."""
    kind = {"approval": "asks somebody", "job": ""}.get(task.kind, task.kind)
    each = f"{task.count} items" if task.fans_out and task.count else "for each item" if task.fans_out else ""
    state = task.state if task.state != "waiting" else ""
    return ", ".join(filter(None, (state, kind, each)))


def text_of(tasks: Sequence[ExecutionTaskView]) -> list[str]:
    """A line for each task, after those that it comes after, and further in."""
    levels = levels_of(tasks)
    mains = sorted((task for task in tasks if task.role == "main"), key=lambda task: levels[task.name])
    names = [f"{'  ' * levels[task.name]}{task.name}" for task in mains]
    width = max(map(len, names), default=0)
    lines = []
    for name, task in zip(names, mains, strict=True):
        before = ", ".join(each.task + (f" ({each.when})" if each.when != "ok" else "") for each in task.after)
        said = "  ".join(filter(None, (label_of(task), f"after {before}" if before else "")))
        lines.append(f"{name.ljust(width)}  {said}".rstrip())
    for role, title in _ROLES.items():
        others = [task for task in tasks if task.role == role]
        lines += [f"{title}:"] * bool(others) + [f"  {task.name}  {label_of(task)}".rstrip() for task in others]
    return lines


def dot_of(name: str, tasks: Sequence[ExecutionTaskView]) -> str:
    """For `dot` of Graphviz."""
    lines = [f"digraph {_quoted(name)} {{", "  rankdir=LR;", '  node [shape=box, style="rounded,filled"];']
    for task in tasks:
        said = f"{task.name}\\n{label_of(task)}" if label_of(task) else task.name
        style = ', style="rounded,filled,dashed"' if task.role != "main" else ""
        lines.append(f'  {_quoted(task.name)} [label={_quoted(said)}, fillcolor="{_COLOURS[task.state]}"{style}];')
    for task in tasks:
        for each in task.after:
            label = f" [label={_quoted(each.when)}]" if each.when != "ok" else ""
            lines.append(f"  {_quoted(each.task)} -> {_quoted(task.name)}{label};")
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def svg_of(name: str, tasks: Sequence[ExecutionTaskView]) -> str:
    """A drawing: what comes first on the left, those that could run at once under each other."""
    levels = levels_of(tasks)
    filled: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for task in tasks:
        level = levels[task.name]
        row = filled.get(level, 0)
        filled[level] = row + 1
        places[task.name] = (
            _MARGIN + level * (_WIDTH + _GAP_X),
            _MARGIN + row * (_HEIGHT + _GAP_Y),
        )
    width = 2 * _MARGIN + (max(filled, default=0) + 1) * (_WIDTH + _GAP_X) - _GAP_X
    height = 2 * _MARGIN + max(filled.values(), default=1) * (_HEIGHT + _GAP_Y) - _GAP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="13" role="img" aria-label="{escape(name)}">'
    ]
    for task in tasks:
        for each in task.after:
            parts.append(_edge(places[each.task], places[task.name], each.when))
    parts += [_box(task, *places[task.name]) for task in tasks]
    return "\n".join([*parts, "</svg>"])


def _edge(start: tuple[int, int], end: tuple[int, int], when: str) -> str:
    x1, y1 = start[0] + _WIDTH, start[1] + _HEIGHT // 2
    x2, y2 = end[0], end[1] + _HEIGHT // 2
    middle = (x1 + x2) // 2
    dash = "" if when == "ok" else ' stroke-dasharray="4 3"'
    line = f'<path d="M{x1},{y1} C{middle},{y1} {middle},{y2} {x2},{y2}" fill="none" stroke="#6b7280"{dash}/>'
    return line if when == "ok" else f'{line}<text x="{middle}" y="{(y1 + y2) // 2 - 4}" font-size="10">{when}</text>'


def _box(task: ExecutionTaskView, x: int, y: int) -> str:
    dash = ' stroke-dasharray="5 3"' if task.role != "main" else ""
    shown = task.name if len(task.name) <= 22 else f"{task.name[:21]}…"
    said = escape(label_of(task)[:30])
    return (
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="{_COLOURS[task.state]}" '
        f'stroke="#374151"{dash}><title>{escape(task.reason or task.name)}</title></rect>'
        f'<text x="{x + 10}" y="{y + (18 if said else 27)}">{escape(shown)}</text>'
        + (f'<text x="{x + 10}" y="{y + 35}" font-size="11" fill="#374151">{said}</text>' if said else "")
    )
