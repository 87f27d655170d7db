"""Whether a cluster may be broken. Our own may; so may one whose managers say that they are for tests; for any other its
name must be typed by somebody who thereby says that they mean it.
"""

from __future__ import annotations

import asyncio
import sys

import click

from chaos.cluster.base import Cluster
from chaos.errors import ConsentMissing, MachineLacks
from chaos.safety.audit import Act, Audit
from hasched.model.errors import HaschedError
from hasched.model.views import ClusterView

LOOK_TIMEOUT_S = 5.0


async def require(cluster: Cluster, typed: str | None, *, interactive: bool) -> None:
    """Returns if faults may begin, and has noted why in the audit log. `interactive`: somebody is there to be asked.

    Raises ConsentMissing, and MachineLacks if the audit log can't be written.
    """
    if cluster.kind == "own":
        return
    views = await _views(cluster)
    if views and all(view.test_cluster for view in views):
        _note(cluster, f"it is marked as a test cluster by {len(views)} of {len(cluster.managers)} managers")
        return
    if typed is None and interactive:
        typed = await _ask(cluster)
    if not typed:
        raise ConsentMissing(
            f"{cluster.name} is not marked as a test cluster, and faults will interrupt the work that it does",
            f"type its name to go on: --cluster {cluster.name}; or set test_cluster: true in its managers' configuration",
        )
    if typed.strip() != cluster.name:
        raise ConsentMissing(
            f"{typed.strip()!r} was typed, and this cluster is {cluster.name}: nothing was done",
            "check the context: `hasched context list` shows which cluster is meant",
        )
    _note(cluster, "its name was typed")


async def _views(cluster: Cluster) -> list[ClusterView]:
    """As each manager that answers sees it: the mark stands in each one's own configuration."""

    async def view(manager: str) -> ClusterView | None:
        try:
            async with cluster.client(manager, timeout_s=LOOK_TIMEOUT_S) as client:
                return await client.cluster()
        except HaschedError:
            return None

    views = await asyncio.gather(*map(view, cluster.managers))
    return [each for each in views if each is not None]


async def _ask(cluster: Cluster) -> str:
    """A line from the terminal. It waits in the event loop, so that Ctrl-C ends it."""
    click.echo(f"{cluster.name} is not marked as a test cluster, and faults will interrupt its work.", err=True)
    click.echo("Type the cluster's name to go on: ", err=True, nl=False)
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline()


def _note(cluster: Cluster, why: str) -> None:
    try:
        Audit("", cluster.name).write(Act.CONSENT, why)
    except OSError as error:
        raise MachineLacks(
            f"the audit log can't be written: {error}",
            "nothing was harmed; make room, or name a place that you can write to in HASCHED_STATE_DIR",
        ) from None
