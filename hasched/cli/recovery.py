"""`hasched manager recover`: the last resort, which says what it costs before it does anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hasched.cli.daemons import choose_log_format, config_option
from hasched.cli.exits import Exit
from hasched.cli.settings import Settings, json_option
from hasched.model.errors import Conflict

if TYPE_CHECKING:
    from hasched.manager.config import ManagerConfig
    from hasched.manager.recovery import DiskState


@click.command()
@config_option
@click.option("--cluster", metavar="NAME", help="The cluster's name, to confirm it; otherwise it is asked for.")
@click.option("--dry-run", is_flag=True, help="Say what the directory holds, and change nothing.")
@click.option("--accept-incomplete", is_flag=True, help="Go on even with a disk that was wiped and not filled again.")
@json_option
@click.pass_obj
def recover(settings: Settings, path: Path, *, cluster: str | None, dry_run: bool, accept_incomplete: bool) -> int:
    """Go on with this manager's disk alone, after a majority of the disks was lost. What it lacks is lost for ever.

    Run it on the machine of a manager that is stopped. It becomes the only member of the cluster; the others, started with
    empty disks, are taken in again.
    """
    from hasched.cli.output import print_json
    from hasched.client.daemon import configure_logs
    from hasched.manager.config import load_manager_config
    from hasched.manager.recovery import examine_manager, recover_manager

    choose_log_format(settings)
    configure_logs("error")
    config = load_manager_config(path, os.environ)
    found = examine_manager(config)
    if not settings.as_json:
        click.echo(describe_disk(config, found), err=True)
    elif dry_run:
        print_json(found)
    if dry_run:
        return Exit.OK
    if cluster is None and not settings.as_json:
        cluster = click.prompt(f"To go on with this alone, type the cluster's name ({config.cluster})", err=True)
    if cluster != config.cluster:
        raise Conflict(
            f"nothing was changed: {cluster or ''!r} is not the name of this cluster, {config.cluster!r}",
            "confirm it with --cluster NAME",
            code="not_confirmed",
        )
    recovered = recover_manager(config, accept_incomplete=accept_incomplete)
    if settings.as_json:
        print_json(recovered)
    else:
        click.echo(f"manager {config.name} is the only member of cluster {config.cluster}: start it")
        click.echo("Then start the others with EMPTY data directories; they are taken in again by themselves.")
        if recovered.lost:
            click.echo(f"Remove who won't come back ({', '.join(recovered.lost)}): hasched manager remove NAME")
    return Exit.OK


def describe_disk(config: ManagerConfig, found: DiskState) -> str:
    """What a recovery would go on with, and what that may cost."""
    from hasched.cli.output import moment

    when = f", of {moment(found.last_ms)}" if found.last_ms else ""
    voters = [member.manager_id for member in found.members if member.voter] or [each.name for each in config.members]
    lines = [
        f"{config.data_dir} of manager {config.name} holds the log up to entry {found.last_index} of term"
        f" {found.last_term}{when}.",
        f"Votes had: {', '.join(voters)}.",
        "WHATEVER WAS ACKNOWLEDGED AFTER THAT ENTRY WILL BE LOST. Choose the manager with the latest one.",
        "If a majority of these disks is still there, don't do this: start those managers instead.",
    ]
    if not found.complete:
        lines.insert(
            1, "THIS DISK WAS WIPED AND NOT FILLED AGAIN: it may lack anything. Use it only if there is no other."
        )
    return "\n".join(lines)
