"""What every command gets: how to reach the cluster, and whether a person or a program reads the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hasched.model.units import parse_duration_ms

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
    """`10s`, `5m`, `1h30m`; milliseconds inside."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_duration_ms(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


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
