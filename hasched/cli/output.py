"""How results look: JSON for programs, rich tables on a terminal, plain aligned columns in a pipe."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import click
import msgspec

from hasched.model.spec import Resources
from hasched.model.words import short_bytes, tell_resources

_OF_SCHEDULE = re.compile(r"schedule/(.+)@([0-9]{1,15})")
_OF_EXECUTION = re.compile(r"execution/([0-9]+)/(.+)")

STYLES = {
    "PENDING": "yellow",
    "SCHEDULED": "cyan",
    "RUNNING": "bright_blue",
    "SUCCEEDED": "green",
    "FAILED": "red",
    "TIMED_OUT": "red",
    "OUT_OF_MEMORY": "red",
    "CANCELLED": "bright_black",
    "NODE_LOST": "red",
    "DEADLINE_EXCEEDED": "red",
    "healthy": "green",
    "unhealthy": "yellow",
    "disconnected": "red",
    "leader": "green",
    "unreachable": "red",
}
_WRAPPED = (
    "name",
    "tasks",
    "allocated",
    "total",
    "labels",
    "managers",
    "late report",
    "reason",
    "content",
    "limits",
    "description",
)  # Prose, of any length.
_WRAPPED_WIDTH = 16  # what such a column is worth before others give way
_GAP = 2  # between columns


def print_json(value: Any) -> None:
    """One JSON document, indented for people on a terminal, on one line for programs."""
    encoded = msgspec.json.encode(value)
    click.echo(msgspec.json.format(encoded, indent=2) if sys.stdout.isatty() else encoded)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], spare: Sequence[str] = (), empty: str = ""
) -> None:
    """Rows under a heading. In a pipe every cell is there and whole, so `awk` can rely on it.

    A terminal isn't shown empty columns and, if it is too narrow for all, gets on without those of `spare`, in that order. Where
    there are no rows it is told so by `empty`, and what to do about it.
    """
    if sys.stdout.isatty():
        from rich import get_console

        shown = list(rows)
        if empty and not shown:
            click.echo(empty)
        else:
            get_console().print(rich_table(columns, shown, spare))
        return
    lines = [[column.upper() for column in columns], *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def rich_table(columns: Sequence[str], rows: Iterable[Sequence[str]], spare: Sequence[str] = ()) -> Any:
    """The same as a rich renderable for the terminal as wide as it is now, states in colour."""
    from rich import box, get_console
    from rich.table import Table
    from rich.text import Text

    cells = [[printable(cell) for cell in row] for row in rows]
    shown = _fitting(columns, cells, spare, get_console().width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for number in shown:
        table.add_column(columns[number], no_wrap=columns[number] not in _WRAPPED)
    for row in cells:
        table.add_row(*(Text(row[number], style=_style_of(row[number])) for number in shown))
    return table


def _style_of(cell: str) -> str:
    """A state's colour; a node that is well and kept from work (`healthy,cordoned`) is shown as one to look at."""
    state, comma, _ = cell.partition(",")
    style = STYLES.get(state, "")
    return "yellow" if comma and style == STYLES["healthy"] else style


def _fitting(columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], room: int) -> list[int]:
    """The numbers of the columns to show: those that say something, and of `spare` what there is room for."""
    from rich.cells import cell_len

    widths = {}
    for number, column in enumerate(columns):
        if not rows or any(row[number] for row in rows):
            width = max(cell_len(text) for text in (column, *(row[number] for row in rows)))
            widths[number] = min(width, _WRAPPED_WIDTH) if column in _WRAPPED else width
    for column in spare:
        if sum(widths.values()) + _GAP * (len(widths) - 1) <= room:
            break
        widths.pop(columns.index(column), None)
    return list(widths)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """`name  value` lines; empty values are left out, and the later lines of a long one stand below its first."""
    kept = [(name, value) for name, value in fields if value]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        first, *more = value.split("\n")
        click.echo(f"{name.ljust(width)}  {printable(first)}")
        for line in more:
            click.echo(f"{' ' * width}  {printable(line)}".rstrip())


def origin(parent: str) -> str:
    """What has made a job or an execution: `schedule tick, slot 2026-12-24T18:00:00Z`, `execution 7, task a[2]`."""
    from hasched.model.times import format_time

    if (slot := _OF_SCHEDULE.fullmatch(parent)) is not None:
        return f"schedule {slot[1]}, slot {format_time(int(slot[2]))}"
    if (task := _OF_EXECUTION.fullmatch(parent)) is not None:
        return f"execution {task[1]}, task {task[2]}"
    return parent


def printable(text: str) -> str:
    """What others chose may steer the reader's terminal; here it only shows: ESC as `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else "    " if char == "\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def counts(numbers: dict[str, int]) -> str:
    """`3 RUNNING, 5 SUCCEEDED`."""
    return ", ".join(f"{number} {name}" for name, number in numbers.items() if number)


def pairs(mapping: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(mapping.items()))


def resources(amount: Resources, disk: bool = True) -> str:
    """`2 CPU, 512Mi memory, 1 GPU (A100 or H100, 40Gi), 10Gi disk`; `0 CPU` for nothing."""
    return tell_resources(amount, size=short_bytes, disk=disk) or "0 CPU"


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts names as people do: n2 before n10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def age(then_ms: int, now_ms: int | None = None) -> str:
    """How long ago: `12s`, `5m`, `3h`, `2d`; empty for a time that has not come."""
    if not then_ms:
        return ""
    return span((time.time() * 1000 if now_ms is None else now_ms) - then_ms)


def span(duration_ms: float) -> str:
    """A duration in its largest fitting unit."""
    seconds = max(0, int(duration_ms / 1000))
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def wait(duration_ms: float) -> str:
    """A duration that is still to come, to a tenth or better: `45s`, `2m59s`, `35m`, `2h59m`, `12h`, `1d4h`."""
    seconds = max(0, int(duration_ms / 1000))
    for (unit, length), (finer, part) in pairwise((("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))):
        whole, rest = divmod(seconds, length)
        if whole:
            return f"{whole}{unit}" if whole >= 10 or rest < part else f"{whole}{unit}{rest // part}{finer}"
    return f"{seconds}s"


def took(begun_ms: int, ended_ms: int) -> str:
    """How long something ran: `12ms`, `3.4s`, `5m`; empty unless it began and ended."""
    if not begun_ms or not ended_ms:
        return ""
    duration_ms = max(0, ended_ms - begun_ms)
    if duration_ms < 1000:
        return f"{duration_ms}ms"
    return f"{duration_ms / 1000:.1f}s" if duration_ms < 120_000 else span(duration_ms)


def moment(time_ms: int) -> str:
    """A date and time in the reader's zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(time_ms / 1000)) if time_ms else ""


def clock(time_ms: int, now_ms: int | None = None) -> str:
    """A time for a table: `06:24:05`, after its date if that isn't today's."""
    if not time_ms:
        return ""
    then = time.localtime(time_ms / 1000)
    today = time.localtime(None if now_ms is None else now_ms / 1000)
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M:%S", then)
