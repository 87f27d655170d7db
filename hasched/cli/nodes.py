"""`hasched node`: the machines that do the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hasched.cli.settings import Settings, json_option

if TYPE_CHECKING:
    from hasched.model.views import NodeView


@click.group()
def node() -> None:
    """Look at the machines that do the work."""


@node.command("list")
@json_option
@click.pass_obj
def list_nodes(settings: Settings) -> None:
    """List nodes."""
    from hasched.cli.output import print_json, print_table

    with settings.client() as client:
        page = client.nodes()
    if settings.as_json:
        print_json(page)
    else:
        print_table(NODE_COLUMNS, map(node_row, page.nodes), NODE_SPARE)


@node.command()
@click.argument("node_id", metavar="NODE")
@json_option
@click.pass_obj
def show(settings: Settings, node_id: str) -> None:
    """Show one node."""
    from hasched.cli.output import moment, pairs, print_fields, print_json, resources, short_bytes
    from hasched.model.units import format_cpu

    with settings.client() as client:
        view = client.node(node_id)
    if settings.as_json:
        print_json(view)
        return
    fields = [
        ("node", view.id),
        ("state", view.state),
        ("reason", view.reason.text if view.reason else ""),
        ("connected", "yes" if view.connected else "no"),
        ("host", view.hostname),
        ("agent", view.agent_version),
        ("isolation", view.isolation),
        ("total", resources(view.total)),
        ("allocated", resources(view.allocated)),
        ("running", str(view.running)),
        ("GPUs", ", ".join(f"{gpu.model} ({short_bytes(gpu.memory_bytes)})" for gpu in view.gpus)),
        ("labels", pairs(view.labels)),
        ("registered", moment(view.registered_ms)),
        ("changed", moment(view.changed_ms)),
    ]
    if view.usage is not None:
        used = f"{format_cpu(view.usage.cpu_milli)} CPU, {short_bytes(view.usage.memory_bytes)}"
        fields.append(("in use", f"{used}; {short_bytes(view.usage.disk_free_bytes)} of disk free"))
    print_fields(fields)


@node.command()
@click.argument("node_id", metavar="NODE")
@json_option
@click.pass_obj
def remove(settings: Settings, node_id: str) -> None:
    """Forget a disconnected node; it comes back if its agent does."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        client.remove_node(node_id)
    if settings.as_json:
        print_json({"removed": node_id})
    else:
        click.echo(f"node {node_id} removed")


NODE_COLUMNS = ("node", "state", "connected", "running", "allocated", "total", "isolation", "agent", "labels")
NODE_SPARE = ("agent", "isolation", "labels", "connected")


def node_row(view: NodeView) -> tuple[str, ...]:
    """A node as a row under `NODE_COLUMNS`."""
    from hasched.cli.output import pairs, resources

    return (
        view.id,
        view.state,
        "yes" if view.connected else "no",
        str(view.running),
        resources(view.allocated),
        resources(view.total),
        view.isolation,
        view.agent_version,
        pairs(view.labels),
    )
