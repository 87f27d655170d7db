"""`hasched node`: the machines that do the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hasched.cli.node_choice import Choice
from hasched.cli.node_control import cordon, drain, uncordon, undrain, unquarantine
from hasched.cli.node_properties import label_nodes, pool_nodes, reset_nodes, taint_nodes
from hasched.cli.settings import Settings, json_option

if TYPE_CHECKING:
    from hasched.model.views import NodeReservationView, NodeView
    from hasched.model.wire import DeviceInfo


@click.group()
def node() -> None:
    """Look at the machines that do the work, and say what they get."""


@node.command("list")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only with this label; of several, all.")
@click.option("--pool", default="", metavar="POOL", help="Only of this pool.")
@json_option
@click.pass_obj
def list_nodes(settings: Settings, labels: tuple[str, ...], pool: str) -> None:
    """List nodes."""
    from hasched.cli.output import natural_key, print_json, print_table
    from hasched.model.views import NodePage

    with settings.client() as client:
        page = client.nodes()
    found = Choice((), labels, pool).among(page.nodes)
    if settings.as_json:
        print_json(NodePage(nodes=found))
    else:
        nodes = sorted(found, key=lambda view: natural_key(view.id))
        print_table(NODE_COLUMNS, map(node_row, nodes), NODE_SPARE, "there are no nodes: start agents")


@node.command()
@click.argument("node_id", metavar="NODE")
@json_option
@click.pass_obj
def show(settings: Settings, node_id: str) -> None:
    """Show one node."""
    from hasched.cli.output import moment, pairs, print_fields, print_json, resources
    from hasched.model.words import short_bytes, tell_cpu

    with settings.client() as client:
        view = client.node(node_id)
    if settings.as_json:
        print_json(view)
        return
    fields = [
        ("node", view.id),
        ("status", _status(view)),
        ("reason", view.reason.text if view.reason else ""),
        ("cordoned", _cordoned(view)),
        ("drain", _drain(view)),
        ("quarantine", _quarantine(view)),
        ("reserved", "\n".join(map(_reserved, view.reservations))),
        ("connected", "yes" if view.connected else "no"),
        ("host", view.hostname),
        ("agent", view.agent_version),
        ("isolation", view.isolation),
        ("total", resources(view.total)),
        ("allocated", resources(view.allocated)),
        ("running", _running(view)),
        ("GPUs", _gpus(view)),
        ("pool", view.pool),
        ("devices", "\n".join(map(_device, view.devices))),
        ("labels", pairs(view.labels)),
        ("taints", ", ".join(view.taints)),
        ("attributes", pairs(view.attributes)),
        ("registered", moment(view.registered_ms)),
        ("changed", moment(view.changed_ms)),
    ]
    if view.usage is not None and view.usage.disk_free_bytes:  # of a simulated node nothing is known
        used = f"{tell_cpu(view.usage.cpu_milli)}, {short_bytes(view.usage.memory_bytes)} memory"
        fields.append(("in use", f"{used}; {short_bytes(view.usage.disk_free_bytes)} disk free"))
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


def _running(view: NodeView) -> str:
    """`2: tasks 7.0, 12.3`; all have `--json`."""
    shown = view.tasks[:SHOWN_TASKS]
    more = ", …" if view.running > len(shown) else ""
    return f"{view.running}: {'task' if view.running == 1 else 'tasks'} {', '.join(shown)}{more}" if shown else "0"


def _reserved(reservation: NodeReservationView) -> str:
    """`power-works: for nobody from … to …`."""
    from hasched.cli.output import moment

    whom = [f"namespace {name}" for name in reservation.namespaces] + [f"user {name}" for name in reservation.users]
    when = f"{'since' if reservation.begun else 'from'} {moment(reservation.start_ms)} to {moment(reservation.end_ms)}"
    return f"{reservation.name}: for {', '.join(whom) or 'nobody'}, {when}"


def _gpus(view: NodeView) -> str:
    """`8 x NVIDIA A100-SXM4-80GB (80Gi)`, a line for each kind."""
    from hasched.model.words import short_bytes

    kinds: dict[str, int] = {}
    for gpu in view.gpus:
        kind = f"{gpu.model or 'unknown'} ({short_bytes(gpu.memory_bytes)})"
        kinds[kind] = kinds.get(kind, 0) + 1
    return "\n".join(f"{number} x {kind}" for kind, number in kinds.items())


def _device(device: DeviceInfo) -> str:
    """`MIG-1 mig-1g.10gb (10Gi)`, and why it isn't offered."""
    from hasched.model.words import short_bytes

    units = f" × {device.units}" if device.units > 1 else ""
    memory = f" ({short_bytes(device.memory_bytes)})" if device.memory_bytes else ""
    return f"{device.id}  {device.kind}{units}{memory}{f'  not offered: {device.health}' if device.health else ''}"


def _cordoned(view: NodeView) -> str:
    from hasched.cli.output import moment

    cordon = view.cordon
    return f"since {moment(cordon.since_ms)} by {_who(cordon.actor, cordon.reason)}" if cordon is not None else ""


def _drain(view: NodeView) -> str:
    """Since when, by whom, until when, and how far it is."""
    from hasched.cli.output import moment

    drain = view.drain
    if drain is None:
        return ""
    if drain.drained:
        progress = "nothing is left"
    elif drain.deadline_ms:
        verb = "was" if drain.expired else "is"
        progress = f"{view.running} to go, the deadline {verb} {moment(drain.deadline_ms)}"
    else:
        progress = f"{view.running} to go, without a deadline"
    return f"{progress}; since {moment(drain.since_ms)} by {_who(drain.actor, drain.reason)}"


def _quarantine(view: NodeView) -> str:
    from hasched.cli.output import moment

    quarantine = view.quarantine
    if quarantine is None:
        return ""
    state = "on probation until a launch succeeds" if quarantine.probation else f"until {moment(quarantine.until_ms)}"
    again = f", for the {quarantine.times}. time in a row" if quarantine.times > 1 else ""
    return f"{state}{again}: {quarantine.reason}"


def _who(actor: str, reason: str) -> str:
    return f"{actor}: {reason}" if reason else actor


def _status(view: NodeView) -> str:
    """As the managers say it, and whether a reservation has the node now."""
    reserved = any(reservation.begun for reservation in view.reservations)
    return f"{view.status or view.state}{',reserved' if reserved else ''}"


SHOWN_TASKS = 20
NODE_COLUMNS = ("node", "status", "connected", "running", "allocated", "total", "pool", "isolation", "agent", "labels")
NODE_SPARE = ("agent", "isolation", "pool", "labels", "connected")


def node_row(view: NodeView) -> tuple[str, ...]:
    """A node as a row under `NODE_COLUMNS`."""
    from hasched.cli.output import pairs, resources

    return (
        view.id,
        _status(view),
        "yes" if view.connected else "no",
        str(view.running),
        resources(view.allocated, disk=False),
        resources(view.total, disk=False),
        view.pool,
        view.isolation,
        view.agent_version,
        pairs(view.labels),
    )


for command in (
    cordon,
    uncordon,
    drain,
    undrain,
    unquarantine,
    label_nodes,
    taint_nodes,
    pool_nodes,
    reset_nodes,
):
    node.add_command(command)
