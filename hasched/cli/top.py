"""`hasched top`: the whole cluster on one screen."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import click

from hasched.cli.settings import DurationType, Settings, json_option
from hasched.model.errors import HaschedError
from hasched.model.words import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hasched.client.sync import Client
    from hasched.model.views import ClusterView, JobView, ManagerPage, NodePage, NodeView

JOBS_SHOWN = 15
FITTINGS = 3  # tries
FIXED_LINES = 4 + 3 + 3 * 2  # the summary, what stands between the tables, and their headings with a rule below


@click.command()
@click.option("--once", is_flag=True, help="Print it once; this is what happens when nobody watches (a pipe, --json).")
@click.option(
    "--interval", "interval_ms", type=DurationType(), default="1s", show_default=True, help="How often to look."
)
@json_option
@click.pass_obj
def top(settings: Settings, once: bool, interval_ms: int) -> None:
    """Watch the cluster: managers, nodes, and the newest jobs. Ctrl-C ends it.

    On a terminal it shows as much as there is room for: of the nodes first those that need a look, then the busiest.
    """
    with settings.client() as client:
        if settings.as_json:
            from hasched.cli.output import print_json

            screen = look(client)
            parts = {"cluster": screen.cluster, "managers": screen.managers, "nodes": screen.nodes, "jobs": screen.jobs}
            print_json(parts)
        elif once or not sys.stdout.isatty():
            _print_once(look(client))
        else:
            _watch(client, max(interval_ms, 100) / 1000)


class Look(NamedTuple):
    """What one look at the cluster finds."""

    cluster: ClusterView
    managers: ManagerPage
    nodes: NodePage
    jobs: list[JobView]


def look(client: Client) -> Look:
    import itertools

    jobs = list(itertools.islice(client.jobs(limit=JOBS_SHOWN), JOBS_SHOWN))
    return Look(client.cluster(), client.managers(), client.nodes(), jobs)


def _watch(client: Client, interval_s: float) -> None:
    from rich.live import Live

    with Live(screen=True, auto_refresh=False) as live:
        live.update(fit(look(client), live.console), refresh=True)
        while True:
            time.sleep(interval_s)
            try:
                live.update(fit(look(client), live.console), refresh=True)
            except HaschedError as error:  # A fail-over is something to watch, not a reason to leave.
                live.update(f"{error.cause}; trying again", refresh=True)


def _print_once(screen: Look) -> None:
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


def fit(screen: Look, console: Console) -> RenderableType:
    """The screen as a terminal of this size shows it. What is wrapped takes lines from the rows."""
    lines = console.height
    for _ in range(FITTINGS):
        shown = _render(screen, lines)
        over = len(console.render_lines(shown)) - console.height
        if over <= 0:
            break
        lines -= over
    return shown


def share_out(lines: int, managers: int, nodes: int, jobs: int) -> tuple[int, int, int]:
    """How many rows of each table a screen of so many lines has room for, the line that says what is left out included.

    Managers come first; nodes and jobs share the rest, and what one of them leaves is the other's.
    """
    left = max(lines - FIXED_LINES, 0)
    managers = min(managers, max(left - 2, 1))
    left = max(left - managers, 2)
    jobs_get = min(jobs, max(left // 2, left - nodes))
    return managers, min(nodes, left - jobs_get), jobs_get


def _render(screen: Look, lines: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from hasched.cli.managers import MANAGER_COLUMNS, MANAGER_SPARE, manager_row
    from hasched.cli.nodes import NODE_COLUMNS, NODE_SPARE, node_row
    from hasched.cli.output import rich_table
    from hasched.cli.rendering import JOB_COLUMNS, JOB_SPARE, job_row

    managers, nodes, jobs = screen.managers.managers, screen.nodes.nodes, screen.jobs
    room = share_out(lines, len(managers), len(nodes), len(jobs))
    shown, more = _fit(sorted(nodes, key=_urgency), room[1])
    return Group(
        Text(_summary(screen.cluster), style="bold", no_wrap=True),
        Text(),
        rich_table(MANAGER_COLUMNS, map(manager_row, managers[: room[0]]), MANAGER_SPARE),
        Text(),
        rich_table(NODE_COLUMNS, map(node_row, shown), NODE_SPARE),
        *([Text(f"… and {counted(more, 'node')} more", style="dim")] if more else []),
        Text(),
        rich_table(JOB_COLUMNS, map(job_row, jobs[: room[2]]), JOB_SPARE),
    )


def _fit(nodes: list[NodeView], rows: int) -> tuple[list[NodeView], int]:
    """Those for which there are rows, one of which says how many are left out."""
    if len(nodes) <= rows:
        return nodes, 0
    return nodes[: max(rows - 1, 0)], len(nodes) - max(rows - 1, 0)


def _urgency(node: NodeView) -> tuple[bool, int]:
    """First what isn't simply healthy, then what has the most tasks; else in their order."""
    return node.status == "healthy" and node.connected, -node.running


def _summary(cluster: ClusterView) -> str:
    from hasched.cli.output import counts, resources

    return (
        f"{cluster.cluster}: leader {cluster.leader or 'none'}, term {cluster.term}, entry {cluster.applied_index}\n"
        f"jobs   {counts(cluster.jobs) or 'none'}\n"
        f"tasks  {counts(cluster.tasks) or 'none'}\n"
        f"in use {resources(cluster.allocated)} of {resources(cluster.total)}"
    )
