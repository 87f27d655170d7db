"""How results look: JSON for programs, rich tables on a terminal, plain aligned columns in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec

from hasched.model.spec import Resources
from hasched.model.units import format_bytes, format_cpu

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
    "healthy": "green",
    "unhealthy": "yellow",
    "disconnected": "red",
    "leader": "green",
    "unreachable": "red",
}


def print_json(value: Any) -> None:
    """One JSON document, indented for people on a terminal, on one line for programs."""
    encoded = msgspec.json.encode(value)
    click.echo(msgspec.json.format(encoded, indent=2) if sys.stdout.isatty() else encoded)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under a heading. In a pipe every cell is kept whole, so `awk` can rely on it."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(rich_table(columns, rows))
        return
    lines = [[column.upper() for column in columns], *(list(row) for row in rows)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def rich_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Any:
    """The same as a rich renderable, states in colour."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    return table


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """`name  value` lines; empty values are left out."""
    kept = [(name, value) for name, value in fields if value]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        click.echo(f"{name.ljust(width)}  {value}")


def counts(numbers: dict[str, int]) -> str:
    """`3 RUNNING, 5 SUCCEEDED`."""
    return ", ".join(f"{number} {name}" for name, number in numbers.items() if number)


def pairs(mapping: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(mapping.items()))


def resources(amount: Resources) -> str:
    """`2 CPU, 512Mi, 1 GPU`."""
    parts = [f"{format_cpu(amount.cpu_milli)} CPU"]
    if amount.memory_bytes:
        parts.append(short_bytes(amount.memory_bytes))
    if amount.gpus:
        parts.append(f"{amount.gpus} GPU")
    parts += [f"{number} {name}" for name, number in amount.countables]
    return ", ".join(parts)


def short_bytes(size_bytes: int) -> str:
    """A size to one decimal for people: 16777216000 as `15.6Gi`."""
    exact = format_bytes(size_bytes)
    if not exact.isdigit() and len(exact) <= 5:
        return exact
    size = float(size_bytes)
    for unit in ("", "Ki", "Mi", "Gi", "Ti"):
        if size < 1024:
            return f"{size:.1f}{unit}" if unit else str(size_bytes)
        size /= 1024
    return f"{size:.1f}Pi"


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


def took(begun_ms: int, ended_ms: int) -> str:
    """How long something ran: `12ms`, `3.4s`, `5m`; empty unless it began and ended."""
    if not begun_ms or not ended_ms:
        return ""
    duration_ms = max(0, ended_ms - begun_ms)
    if duration_ms < 1000:
        return f"{duration_ms}ms"
    return f"{duration_ms / 1000:.1f}s" if duration_ms < 120_000 else span(duration_ms)


def moment(time_ms: int) -> str:
    """A time of day in the reader's zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(time_ms / 1000)) if time_ms else ""
