"""`hasched manager`: the daemon itself, and the set of managers: who is one, who leads, whether they agree."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hasched.cli.daemons import choose_log_format, config_option
from hasched.cli.exits import Exit
from hasched.cli.recovery import recover
from hasched.cli.settings import DurationType, Settings, json_option
from hasched.model.errors import HaschedError, NoLeader

if TYPE_CHECKING:
    from hasched.client.sync import Client
    from hasched.model.views import CheckView, ManagerPage, ManagerView

POLL_S = 0.3

wait_option = click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Return when it is so, or at once."
)
patience_option = click.option(
    "--patience",
    "patience_ms",
    type=DurationType(),
    default="10m",
    show_default=True,
    help="Wait no longer than this; exit code 124.",
)


@click.group()
def manager() -> None:
    """Run a manager, add and remove them, say who leads."""


@manager.command("start")
@config_option
@json_option
@click.pass_obj
def start_manager(settings: Settings, path: Path) -> int:
    """Run a manager in the foreground until SIGTERM. A leader that is told to stop hands over first."""
    from hasched.manager.config import load_manager_config

    choose_log_format(settings)
    config = load_manager_config(path, os.environ)
    from hasched.manager.main import run_manager

    return run_manager(config)


@manager.command("list")
@json_option
@click.pass_obj
def list_managers(settings: Settings) -> None:
    """List the managers: what each is to the cluster and what it knows, and whether their states agreed."""
    from hasched.cli.output import print_json, print_table

    with settings.client() as client:
        page = client.managers()
    if settings.as_json:
        print_json(page)
        return
    print_table(MANAGER_COLUMNS, map(manager_row, page.managers), MANAGER_SPARE)
    if page.check is not None:
        click.echo(f"\n{describe_check(page.check)}")


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


@manager.command()
@click.argument("name")
@click.option("--api", "api_url", required=True, metavar="URL", help="Where its API is reached: https://HOST:7411.")
@click.option("--raft", "raft_address", required=True, metavar="HOST:PORT", help="Where the other managers reach it.")
@wait_option
@patience_option
@json_option
@click.pass_obj
def add(settings: Settings, name: str, *, api_url: str, raft_address: str, wait: bool, patience_ms: int) -> int:
    """Add a manager; wait until it has its vote. Start it with `join: true` in its configuration, before or after."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        added = client.add_manager(name, api_url, raft_address)

        def missing(page: ManagerPage) -> str:
            nonlocal added
            found = next((each for each in page.managers if each.id == name), None)
            added = found or added
            return (
                describe_joining(found, page.leader)
                if found is not None
                else "the manager that answers does not know of it"
            )

        there = not wait or wait_until(settings, client, name, missing, patience_ms)
    if settings.as_json:
        print_json(added)
    elif not there:
        click.echo(
            f"hasched: {name} stays wanted, and gets its vote when that is done; see `hasched manager list`,"
            f" or take it back with `hasched manager remove {name}`",
            err=True,
        )
    elif wait:
        click.echo(f"manager {name} is there and votes")
    else:
        click.echo(f"manager {name} will be added")
    return Exit.OK if there else Exit.TIMED_OUT


@manager.command()
@click.argument("name")
@wait_option
@patience_option
@json_option
@click.pass_obj
def remove(settings: Settings, name: str, wait: bool, patience_ms: int) -> int:
    """Remove a manager; wait until the others go on without it. A leader hands over first."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        client.remove_manager(name)

        def missing(page: ManagerPage) -> str:
            found = next((each for each in page.managers if each.id == name), None)
            return "" if found is None else describe_leaving(found, page.leader)

        gone = not wait or wait_until(settings, client, name, missing, patience_ms)
    if settings.as_json:
        print_json({"removed": name, "done": gone and wait})
    elif not gone:
        click.echo(f"hasched: {name} goes as soon as a majority of the others can go on without it", err=True)
    elif wait:
        click.echo(f"manager {name} is removed; stop it")
    else:
        click.echo(f"manager {name} will be removed")
    return Exit.OK if gone else Exit.TIMED_OUT


@manager.command()
@click.argument("name", required=False)
@json_option
@click.pass_obj
def transfer(settings: Settings, name: str | None) -> None:
    """Hand leadership over to NAME, or to the manager that is best prepared."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        leads = client.transfer(name)
    if settings.as_json:
        print_json({"leader": leads})
    else:
        click.echo(f"manager {leads} leads")


@manager.command()
@wait_option
@patience_option
@json_option
@click.pass_obj
def check(settings: Settings, wait: bool, patience_ms: int) -> int:
    """Have the managers compare their states; exit code 70 if one differs."""
    from hasched.cli.output import print_json

    result: CheckView | None = None
    with settings.client() as client:
        index = client.check_managers()

        def missing(page: ManagerPage) -> str:
            nonlocal result
            result = page.check if page.check is not None and page.check.log_index >= index else None
            return "" if result is not None else f"the managers compute the digest of entry {index}"

        if wait and not wait_until(settings, client, "check", missing, patience_ms):
            return Exit.TIMED_OUT
    if settings.as_json:
        print_json(result if result is not None else {"log_index": index})
    else:
        click.echo(describe_check(result) if result is not None else f"the states are compared as of entry {index}")
    return Exit.INTERNAL if result is not None and (result.differing or not result.agreed) else Exit.OK


manager.add_command(recover)


# --- waiting ---


def wait_until(
    settings: Settings, client: Client, name: str, missing: Callable[[ManagerPage], str], patience_ms: int
) -> bool:
    """Look until nothing is `missing`, and say on stderr what is, whenever that changes. Whether it came to that in time."""
    deadline = time.monotonic() + patience_ms / 1000
    told = ""
    while told := _tell(settings, name, _look(client, missing), told):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def _look(client: Client, missing: Callable[[ManagerPage], str]) -> str:
    """A cluster that can't be asked for a while is what there is to wait for."""
    try:
        return missing(client.managers())
    except HaschedError as error:
        if error.status != NoLeader.status:
            raise
        return error.cause


def _tell(settings: Settings, name: str, what: str, told: str) -> str:
    if what and what != told and not settings.as_json:
        click.echo(f"hasched: {name}: {what}", err=True)
    return what


def describe_joining(manager: ManagerView, leads: str | None) -> str:
    """What a new manager still lacks; nothing once it votes."""
    if leads is None:
        return "no manager leads at the moment"
    if manager.membership == "voter":
        return ""
    if manager.membership == "joining":
        return "waiting until the leader takes it in"
    if manager.membership in ("leaving", "removed"):
        return "it is no longer wanted"
    if not manager.connected:
        return f"not connected yet; start it with `join: true`, reachable at {manager.raft_address}"
    if not manager.filled:
        return "connected; its disk is being filled"
    return "filled; it gets its vote as soon as it has caught up"


def describe_leaving(manager: ManagerView, leads: str | None) -> str:
    """What keeps a manager that is to go; nothing once it is out."""
    if manager.membership in ("removed", "joining"):
        return ""
    if leads is None:
        return "no manager leads at the moment"
    return "it leads, and hands over first" if manager.id == leads else "waiting until the others can go on without it"


# --- showing ---


MANAGER_COLUMNS = ("manager", "role", "vote", "term", "applied", "lag", "api", "raft", "version")
MANAGER_SPARE = ("raft", "version", "api")


def manager_row(view: ManagerView) -> tuple[str, ...]:
    """A manager as a row under `MANAGER_COLUMNS`. Of one that doesn't answer nothing is known but where it should be."""
    return (
        view.id,
        view.role if view.reachable else "unreachable",
        describe_vote(view),
        str(view.term) if view.reachable else "",
        str(view.applied_index) if view.reachable else "",
        "" if view.lag is None else str(view.lag),
        view.api_url,
        view.raft_address,
        view.version,
    )


def describe_vote(view: ManagerView) -> str:
    """`yes`, `filling` where its disk was lost, or why it has none."""
    if view.membership != "voter":
        return view.membership
    return "filling" if view.filled is False else "yes"


def describe_check(check: CheckView) -> str:
    from hasched.cli.output import moment

    when = f"as of entry {check.log_index} ({moment(check.time_ms)})"
    silent = f"; {', '.join(check.silent)} did not answer" if check.silent else ""
    if not check.agreed:
        told = ", ".join(check.differing) or "nobody"
        return f"NO MAJORITY has the same state {when}: {told} differ{silent}; see docs/troubleshooting.md"
    if check.differing:
        return (
            f"THE STATE of {', '.join(check.differing)} DIFFERS {when}{silent}; it is rebuilt when it is started again"
        )
    return f"the managers' states agree {when}{silent}"
