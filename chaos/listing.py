"""What the commands print that is no report: the registry, a schedule, what was healed."""

from __future__ import annotations

from collections.abc import Sequence

import click

from chaos.planning import Planned, grouped
from chaos.registry import Registry
from chaos.safety.healing import Healed
from hasched.cli.output import print_json, print_table


def print_registry(registry: Registry, *, as_json: bool) -> None:
    """Everything that can be named on the command line."""
    nemeses = [
        {
            "name": each.name,
            "family": each.family.value,
            "summary": each.summary,
            "needs": [need.value for need in each.needs],
        }
        for each in registry.nemeses.values()
    ]
    workloads = [
        {"name": each.name, "summary": each.summary, "clients": each.clients} for each in registry.workloads.values()
    ]
    drills = [
        {"name": each.name, "happened": each.happened, "expects": each.expects} for each in registry.drills.values()
    ]
    if as_json:
        print_json({"nemeses": nemeses, "workloads": workloads, "drills": drills})
        return
    by_family = sorted(registry.nemeses.values(), key=lambda each: (each.family.value, each.name))
    print_table(
        ("nemesis", "family", "what it does"), [(each.name, each.family.value, each.summary) for each in by_family]
    )
    click.echo()
    print_table(
        ("workload", "clients", "what it does"),
        [(each.name, str(each.clients), each.summary) for each in registry.workloads.values()],
    )
    click.echo()
    print_table(
        ("drill", "what happened to others"),
        [(each.name, each.happened) for each in registry.drills.values()],
    )


def print_plan(seed: int, plan: Sequence[Planned], left_out: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"seed": seed, "strikes": plan, "left_out": left_out})
        return
    click.echo(f"seed {seed}; whom a strike hits is drawn when it comes\n")
    print_table(
        ("at", "for", "nemesis", "family"),
        [(f"{each.at_s:.1f} s", f"{each.seconds:.1f} s", each.nemesis, each.family) for each in plan],
    )
    for sentence in grouped(left_out):
        click.echo(f"left out: {sentence}")


def print_healed(healed: Healed, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json(healed)
        return
    for sentence in healed.done:
        click.echo(f"{'would undo' if dry_run else 'undone'}: {sentence}")
    for sentence in healed.left:
        click.echo(f"left alone: {sentence}")
    for sentence in healed.failed:
        click.echo(f"not undone: {sentence}", err=True)
    if not (healed.done or healed.left or healed.failed):
        click.echo("there is nothing to undo")
