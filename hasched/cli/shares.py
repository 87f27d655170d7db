"""`hasched fairshare`: who has used how much of what is due to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from hasched.cli.settings import Settings, json_option

if TYPE_CHECKING:
    from hasched.client.sync import Client
    from hasched.model.views import FairShareView, ShareView

_COLUMNS = ("account", "weight", "due", "used", "factor", "core-hours", "cores now")


@click.group()
def fairshare() -> None:
    """See who has used how much of what is due to them."""


@fairshare.command()
@click.option("--namespace", help="Only this namespace and its users.")
@click.option("--queues", is_flag=True, help="The queues instead.")
@json_option
@click.pass_obj
def show(settings: Settings, namespace: str | None, queues: bool) -> None:
    """Show namespaces and their users, whose work starts first at the top.

    DUE is an account's part of its namespace, or of everything, by weight, and USED the part that it has used, with the
    half-life. FACTOR is 1 for who has used nothing, a half for who has used what is his due, and falls towards 0.
    """
    from hasched.cli.output import print_fields, print_json, print_table
    from hasched.model.units import format_duration

    with settings.client() as client:
        view = client.fair_share()
        if namespace is not None and namespace not in (each.name for each in view.namespaces):
            _need_namespace(client, namespace)
    if settings.as_json:
        print_json(view)
        return
    if not view.enabled:
        click.echo("fair share is off: the policy fair_share/default turns it on")
        return
    ageing = f"a point of priority for each {format_duration(view.ageing_ms)} of waiting" if view.ageing_ms else ""
    print_fields([("half-life", format_duration(view.half_life_ms)), ("ageing", ageing)])
    click.echo()
    print_table(_COLUMNS, _rows(view.queues) if queues else _tree(view, namespace), empty="nobody has used anything")


def _need_namespace(client: Client, name: str) -> None:
    """Raises NotFound where there is no such namespace; one that has used nothing has no row."""
    from hasched.model.errors import NotFound
    from hasched.model.kinds import suggest_name

    there = [view.name for view in client.policies("namespace").policies]
    if name not in there:
        raise NotFound(f"there is no namespace {name!r}", suggest_name(name, there), code="unknown_namespace")


def _tree(view: FairShareView, namespace: str | None) -> Iterator[tuple[str, ...]]:
    for each in view.namespaces:
        if namespace in (None, each.name):
            yield from _rows([each])
            yield from _rows(each.users, "  ")


def _rows(views: list[ShareView], indent: str = "") -> Iterator[tuple[str, ...]]:
    for view in views:
        yield (
            f"{indent}{view.name}",
            f"{view.weight_milli / 1000:g}",
            f"{view.due:.1%}",
            f"{view.used:.1%}",
            f"{view.factor:.3f}",
            f"{view.usage_core_s / 3600:.1f}",
            f"{view.running_milli / 1000:g}",
        )
