"""`hasched node cordon|uncordon|drain|undrain|unquarantine`: which nodes get new work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hasched.cli.exits import Exit
from hasched.cli.node_choice import Choice, change_nodes, choice_of_nodes, show_nodes
from hasched.cli.settings import DurationType, Settings, json_option

if TYPE_CHECKING:
    from hasched.client.sync import Client
    from hasched.model.views import NodeView

POLL_S = 0.5

reason_option = click.option("--reason", default="", help="Why, for those who come upon the node later.")


@click.command()
@choice_of_nodes
@reason_option
@json_option
@click.pass_obj
def cordon(settings: Settings, choice: Choice, reason: str) -> None:
    """Give nodes no new work; what runs there goes on."""
    change_nodes(settings, choice, lambda client, name: client.cordon_node(name, reason))


@click.command()
@choice_of_nodes
@json_option
@click.pass_obj
def uncordon(settings: Settings, choice: Choice) -> None:
    """Take cordons back. A drain or a quarantine beside one goes on."""
    change_nodes(settings, choice, lambda client, name: client.uncordon_node(name))


@click.command()
@choice_of_nodes
@click.option(
    "--deadline",
    "deadline_ms",
    type=DurationType(),
    help="What still runs then is stopped and started elsewhere; without it, all have the time they take.",
)
@click.option("--force", is_flag=True, help="Stop what runs at once and start it elsewhere: a deadline of 0s.")
@reason_option
@click.option("--wait", is_flag=True, help="Return when nothing is left on the nodes, and say what is until then.")
@click.option("--patience", "patience_ms", type=DurationType(), help="With --wait: no longer than this; exit code 124.")
@json_option
@click.pass_obj
def drain(
    settings: Settings,
    choice: Choice,
    *,
    deadline_ms: int | None,
    force: bool,
    reason: str,
    wait: bool,
    patience_ms: int | None,
) -> int:
    """Empty nodes: no new work, and what runs there ends or, at the deadline, goes elsewhere without using a retry.

    They stay drained until `hasched node undrain`.
    """
    if force and deadline_ms:
        raise click.UsageError("--force is a deadline of 0s; give one of --force and --deadline")
    deadline_ms = 0 if force else deadline_ms
    with settings.client() as client:
        chosen = choice.find(client)
        if deadline_ms is not None and len(chosen) > 1:
            for name in chosen:  # so that nothing moves from one of them to the next
                client.drain_node(name, None, reason)
        views = [client.drain_node(name, deadline_ms, reason) for name in chosen]
        done = True
        if wait:
            views, done = _await_drained(settings, client, chosen, patience_ms)
    show_nodes(settings, views)
    return Exit.OK if done else Exit.TIMED_OUT


@click.command()
@choice_of_nodes
@json_option
@click.pass_obj
def undrain(settings: Settings, choice: Choice) -> None:
    """Let nodes that drain, or are drained, have work again. What was told to go goes nonetheless."""
    change_nodes(settings, choice, lambda client, name: client.undrain_node(name))


@click.command()
@choice_of_nodes
@json_option
@click.pass_obj
def unquarantine(settings: Settings, choice: Choice) -> None:
    """Let nodes whose launches failed have work again, and forget that they did."""
    change_nodes(settings, choice, lambda client, name: client.unquarantine_node(name))


def _await_drained(
    settings: Settings, client: Client, chosen: Sequence[str], patience_ms: int | None
) -> tuple[list[NodeView], bool]:
    """Look until all are drained, and say on stderr what is left whenever that changes. Raises Conflict if one is undrained."""
    from hasched.model.errors import Conflict

    meant = frozenset(chosen)
    end_s = time.monotonic() + patience_ms / 1000 if patience_ms is not None else None
    told = ""
    while True:
        views = [view for view in client.nodes().nodes if view.id in meant]
        for view in views:
            if view.drain is None:
                raise Conflict(f"node {view.id} does not drain any more", "somebody has undrained it")
        waiting = [view for view in views if view.drain is not None and not view.drain.drained]
        if not waiting:
            return views, True
        if end_s is not None and time.monotonic() >= end_s:
            return views, False
        left = ", ".join(f"{view.running} on {view.id}" for view in waiting)
        if left != told and not settings.as_json:
            click.echo(f"hasched: still running: {left}", err=True)
        told = left
        time.sleep(POLL_S)
