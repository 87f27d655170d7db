"""What every command gets: how to reach the cluster, and whether a person or a program reads the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hasched.model.units import MAX_INTEGER, format_duration, parse_duration_ms

if TYPE_CHECKING:
    from hasched.client.sync import Client

Function = TypeVar("Function", bound=Callable[..., Any])


class Settings:
    """The global options. `client()` opens a connection to the chosen cluster; the caller closes it."""

    def __init__(self) -> None:
        self.context_name: str | None = None
        self.timeout_ms = 30_000
        self.as_json = False

    def namespace(self, given: str | None) -> str | None:
        """The namespace that was given, else the context's; None where neither names one."""
        from hasched.client.context import load_context

        return given or load_context(self.context_name).namespace or None

    def client(self, *, quiet: bool = False) -> Client:
        from hasched.client.context import load_context
        from hasched.client.sync import Client

        return Client(
            load_context(self.context_name),
            timeout_s=self.timeout_ms / 1000,
            on_silence=None if quiet or self.as_json else _say_silence,
        )


def _say_silence(told: str) -> None:
    click.echo(f"hasched: no manager answers yet: {told}", err=True)


class DurationType(click.ParamType[int]):
    """`10s`, `5m`, `1h30m`; milliseconds inside. `most_ms`: no more than that."""

    name = "duration"

    def __init__(self, most_ms: int = MAX_INTEGER) -> None:
        self._most_ms = most_ms

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            duration_ms = parse_duration_ms(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if duration_ms > self._most_ms:
            self.fail(f"{value!r} is more than the {format_duration(self._most_ms)} that are possible", param, ctx)
        return duration_ms


class JobNumberType(click.ParamType[int]):
    """The number of a job."""

    name = "job"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if text.isascii() and text.isdigit() and 0 < int(text[:20]) <= MAX_INTEGER:
            return int(text)
        self.fail(f"{text[:60]!r} is no job's number; `hasched job list` shows them", param, ctx)


def namespace_option(text: str) -> Callable[[Function], Function]:
    """`-n`/`--namespace` on a command."""
    return click.option("-n", "--namespace", metavar="NAME", help=text)


def json_option(function: Function) -> Function:
    """`--json` on a command: `settings.as_json` says whether it was given."""

    def remember(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        settings = ctx.find_object(Settings)
        if settings is not None:
            settings.as_json = settings.as_json or value

    return click.option("--json", is_flag=True, expose_value=False, callback=remember, help="Print JSON.")(function)
