"""Waiting until a cluster is whole: before the first fault, after the last, and until all work is done."""

from __future__ import annotations

import asyncio
import time
import uuid

import msgspec

from chaos.cluster.base import Cluster
from chaos.errors import Unsettled
from chaos.record import Record
from chaos.wholeness import obstacles
from chaos.workloads.desk import RUN_LABEL
from hasched.client.aio import AsyncClient
from hasched.model.errors import HaschedError
from hasched.model.states import TaskState
from hasched.model.views import JobView

POLL_S = 0.25
ASK_TIMEOUT_S = 10.0
PROBE = {"name": "chaos-probe", "command": ["/bin/true"], "resources": {"cpu": "100m"}}
UNFINISHED = [state.name for state in TaskState if not state.final]


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """How long it took until the cluster was whole, and what was still in its way at the end, in sentences."""

    seconds: float
    obstacles: list[str]


async def ready(cluster: Cluster, patience_s: float) -> None:
    """Returns once the cluster is whole. Raises Unsettled."""
    settled = await whole(cluster, patience_s)
    if settled.obstacles:
        raise Unsettled(
            f"after {patience_s:.0f} s the cluster is not whole: {'; '.join(settled.obstacles)}",
            "see the logs of its managers and agents",
        )


async def whole(cluster: Cluster, patience_s: float) -> Settled:
    """Until somebody leads, every manager counts and has its disk filled, every agent is connected and healthy, and a job
    that is submitted then has run."""
    begun = time.monotonic()
    probe = f"chaos-probe-{uuid.uuid4().hex}"
    async with cluster.client(timeout_s=ASK_TIMEOUT_S) as client:
        while True:
            found = await _obstacles(cluster, client, probe)
            seconds = time.monotonic() - begun
            if not found or seconds > patience_s:
                return Settled(seconds=round(seconds, 3), obstacles=found)
            await asyncio.sleep(POLL_S)


async def _obstacles(cluster: Cluster, client: AsyncClient, probe: str) -> list[str]:
    try:
        found = obstacles(await client.managers(), await client.nodes(), cluster.managers, cluster.agents)
        if found:
            return found
        job = await client.job((await client.submit(PROBE, probe)).id)
    except HaschedError as error:
        return [f"it does not answer: {error.cause}"]
    return _obstacles_of_probe(job)


def _obstacles_of_probe(job: JobView) -> list[str]:
    if job.state == TaskState.SUCCEEDED.name:
        return []
    reason = f": {job.reason.text}" if job.reason is not None else ""
    return [f"job {job.id}, submitted since, is {job.state}{reason}"]


async def drained(cluster: Cluster, record: Record, patience_s: float) -> list[str]:
    """Until every job of the run has ended; what has not, in sentences."""
    until = time.monotonic() + patience_s
    labels = {RUN_LABEL: str(record.began_ms)}
    async with cluster.client(timeout_s=ASK_TIMEOUT_S) as client:
        while True:
            try:
                left = [
                    f"job {job.id} ({job.submission_id}) is {job.state}" + (" and suspended" if job.suspended else "")
                    async for job in client.jobs(labels=labels, state=UNFINISHED)
                ]
            except HaschedError as error:
                left = [f"the cluster does not say what is left to do: {error.cause}"]
            if not left or time.monotonic() > until:
                return left
            await asyncio.sleep(2 * POLL_S)
