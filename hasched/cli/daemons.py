"""`hasched manager` and `hasched agent`: the daemons themselves, and a look at the managers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hasched.cli.exits import Exit
from hasched.cli.settings import Settings, json_option

if TYPE_CHECKING:
    from hasched.model.views import ManagerView

config_option = click.option(
    "--config",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The configuration file; `hasched config validate` checks it.",
)


@click.group()
def manager() -> None:
    """Run a manager, or list them."""


@manager.command("start")
@config_option
@json_option
@click.pass_obj
def start_manager(settings: Settings, path: Path) -> int:
    """Run a manager in the foreground until SIGTERM."""
    from hasched.manager.config import load_manager_config

    _choose_log_format(settings)
    config = load_manager_config(path, os.environ)
    from hasched.manager.main import run_manager

    return run_manager(config)


@manager.command("list")
@json_option
@click.pass_obj
def list_managers(settings: Settings) -> None:
    """List the managers and what each knows."""
    from hasched.cli.output import print_json, print_table

    with settings.client() as client:
        page = client.managers()
    if settings.as_json:
        print_json(page)
    else:
        print_table(MANAGER_COLUMNS, map(manager_row, page.managers), MANAGER_SPARE)


@manager.command()
@json_option
@click.pass_obj
def leader(settings: Settings) -> int:
    """Print the name of the leading manager; exit code 75 if nobody leads."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        page = client.managers()
    if settings.as_json:
        print_json({"leader": page.leader})
    elif page.leader is not None:
        click.echo(page.leader)
    else:
        click.echo("no manager leads at the moment", err=True)
    return Exit.OK if page.leader is not None else Exit.TEMPORARY


@click.group()
def agent() -> None:
    """Run an agent: the daemon of a machine that does work."""


@agent.command("start")
@config_option
@json_option
@click.pass_obj
def start_agent(settings: Settings, path: Path) -> int:
    """Run an agent in the foreground until SIGTERM. Its tasks go on without it, and it finds them when it starts again."""
    from hasched.agent.config import load_agent_config

    _choose_log_format(settings)
    config = load_agent_config(path, os.environ)
    from hasched.agent.main import run_agent

    return run_agent(config)


def _choose_log_format(settings: Settings) -> None:
    """--json means the logs, here."""
    if settings.as_json:
        os.environ["HASCHED_LOG_FORMAT"] = "json"


MANAGER_COLUMNS = ("manager", "role", "term", "applied", "lag", "api", "raft", "version")
MANAGER_SPARE = ("raft", "version", "api")


def manager_row(view: ManagerView) -> tuple[str, ...]:
    """A manager as a row under `MANAGER_COLUMNS`. Of one that doesn't answer nothing is known but where it should be."""
    return (
        view.id,
        view.role if view.reachable else "unreachable",
        str(view.term) if view.reachable else "",
        str(view.applied_index) if view.reachable else "",
        "" if view.lag is None else str(view.lag),
        view.api_url,
        view.raft_address,
        view.version,
    )
