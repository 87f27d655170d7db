"""`hasched node label|taint|pool|reset`: what operators say of nodes over what their agents do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hasched.cli.node_choice import Choice, change_nodes, choice_of_nodes
from hasched.cli.settings import Settings, json_option

if TYPE_CHECKING:
    from hasched.model.taints import Taint


@click.command("label")
@choice_of_nodes
@click.option("--set", "given", multiple=True, metavar="KEY=VALUE", help="Give them this label; may be repeated.")
@click.option("--remove", "removed", multiple=True, metavar="KEY", help="Take this label away; may be repeated.")
@json_option
@click.pass_obj
def label_nodes(settings: Settings, choice: Choice, given: tuple[str, ...], removed: tuple[str, ...]) -> None:
    """Set labels of nodes, over what their agents say."""
    from hasched.cli.specs import read_pairs

    labels: dict[str, str | None] = {**dict.fromkeys(removed), **read_pairs(given, "--set")}
    if not labels:
        raise click.UsageError("say what to change, with --set or --remove")
    change_nodes(settings, choice, lambda client, name: client.set_node_properties(name, labels=labels))


@click.command("taint")
@choice_of_nodes
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="KEY[=VALUE][:avoid]",
    help="Keep jobs away that don't tolerate this, or with :avoid while others will do; may be repeated.",
)
@click.option("--remove", "removed", multiple=True, metavar="KEY", help="Take this taint away; may be repeated.")
@json_option
@click.pass_obj
def taint_nodes(settings: Settings, choice: Choice, given: tuple[str, ...], removed: tuple[str, ...]) -> None:
    """Set taints of nodes, over what their agents say. What runs there goes on."""
    from hasched.model.taints import parse_taint

    taints: dict[str, Taint | None] = dict.fromkeys(removed)
    for text in given:
        try:
            taint = parse_taint(text)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--set") from None
        taints[taint.key] = taint
    if not taints:
        raise click.UsageError("say what to change, with --set or --remove")
    change_nodes(settings, choice, lambda client, name: client.set_node_properties(name, taints=taints))


@click.command("pool")
@choice_of_nodes
@click.option("--set", "to_pool", required=True, metavar="POOL", help="Where they belong from now on.")
@json_option
@click.pass_obj
def pool_nodes(settings: Settings, choice: Choice, to_pool: str) -> None:
    """Move nodes to a pool, over what their agents say. What runs there goes on."""
    change_nodes(settings, choice, lambda client, name: client.set_node_properties(name, pool=to_pool))


@click.command("reset")
@choice_of_nodes
@json_option
@click.pass_obj
def reset_nodes(settings: Settings, choice: Choice) -> None:
    """Let labels, taints and pool of nodes be again what their agents say."""
    change_nodes(settings, choice, lambda client, name: client.set_node_properties(name, reset=True))
