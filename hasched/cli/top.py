"""`hasched top`: the whole cluster on one screen."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from hasched.cli.settings import DurationType, Settings, json_option
from hasched.model.errors import HaschedError

if TYPE_CHECKING:
    from hasched.client.sync import Client
    from hasched.model.views import ClusterView, JobView, ManagerPage, NodePage

JOBS_SHOWN = 15


@click.command()
@click.option("--once", is_flag=True, help="Print it once; this is what happens when nobody watches (a pipe, --json).")
@click.option(
    "--interval", "interval_ms", type=DurationType(), default="1s", show_default=True, help="How often to look."
)
@json_option
@click.pass_obj
def top(settings: Settings, once: bool, interval_ms: int) -> None:
    """Watch the cluster: managers, nodes, and the newest jobs. Ctrl-C ends it."""
    with settings.client() as client:
        if settings.as_json:
            from hasched.cli.output import print_json

            screen = _Screen(client)
            parts = {"cluster": screen.cluster, "managers": screen.managers, "nodes": screen.nodes, "jobs": screen.jobs}
            print_json(parts)
        elif once or not sys.stdout.isatty():
            _print_once(_Screen(client))
        else:
            _watch(client, max(interval_ms, 100) / 1000)


class _Screen:
    """What one look at the cluster finds."""

    def __init__(self, client: Client) -> None:
        import itertools

        self.cluster: ClusterView = client.cluster()
        self.managers: ManagerPage = client.managers()
        self.nodes: NodePage = client.nodes()
        self.jobs: list[JobView] = list(itertools.islice(client.jobs(limit=JOBS_SHOWN), JOBS_SHOWN))


def _watch(client: Client, interval_s: float) -> None:
    from rich.live import Live

    with Live(_render(_Screen(client)), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            try:
                live.update(_render(_Screen(client)), refresh=True)
            except HaschedError as error:  # A fail-over is something to watch, not a reason to leave.
                live.update(f"{error.cause}; trying again", refresh=True)


def _print_once(screen: _Screen) -> None:
    from hasched.cli.managers import MANAGER_COLUMNS, MANAGER_SPARE, manager_row
    from hasched.cli.nodes import NODE_COLUMNS, NODE_SPARE, node_row
    from hasched.cli.output import print_table
    from hasched.cli.rendering import JOB_COLUMNS, JOB_SPARE, job_row

    click.echo(_summary(screen.cluster))
    click.echo()
    print_table(MANAGER_COLUMNS, map(manager_row, screen.managers.managers), MANAGER_SPARE)
    click.echo()
    print_table(NODE_COLUMNS, map(node_row, screen.nodes.nodes), NODE_SPARE)
    click.echo()
    print_table(JOB_COLUMNS, map(job_row, screen.jobs), JOB_SPARE)


def _render(screen: _Screen) -> Any:
    from rich.console import Group
    from rich.text import Text

    from hasched.cli.managers import MANAGER_COLUMNS, MANAGER_SPARE, manager_row
    from hasched.cli.nodes import NODE_COLUMNS, NODE_SPARE, node_row
    from hasched.cli.output import rich_table
    from hasched.cli.rendering import JOB_COLUMNS, JOB_SPARE, job_row

    return Group(
        Text(_summary(screen.cluster), style="bold"),
        Text(),
        rich_table(MANAGER_COLUMNS, map(manager_row, screen.managers.managers), MANAGER_SPARE),
        Text(),
        rich_table(NODE_COLUMNS, map(node_row, screen.nodes.nodes), NODE_SPARE),
        Text(),
        rich_table(JOB_COLUMNS, map(job_row, screen.jobs), JOB_SPARE),
    )


def _summary(cluster: ClusterView) -> str:
    from hasched.cli.output import counts, resources

    return (
        f"{cluster.cluster}: leader {cluster.leader or 'none'}, term {cluster.term}, entry {cluster.applied_index}\n"
        f"jobs   {counts(cluster.jobs) or 'none'}\n"
        f"tasks  {counts(cluster.tasks) or 'none'}\n"
        f"in use {resources(cluster.allocated)} of {resources(cluster.total)}"
    )
