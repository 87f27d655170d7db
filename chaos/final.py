"""What the cluster says at the end, once everything is healed and done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import msgspec

from chaos.amounts import amounts_of
from chaos.cluster.base import Cluster
from chaos.record import Record
from chaos.settle import UNFINISHED
from chaos.workloads.desk import RUN_LABEL
from hasched.client.aio import AsyncClient
from hasched.model.errors import HaschedError, NotFound
from hasched.model.views import CheckView, JobView, NodeView, TaskView

POLL_S = 0.2
CHECK_S = 60.0
QUIET_S = 20.0
AT_ONCE = 8


class Final(msgspec.Struct, kw_only=True):
    """Times are those of the record. `obstacles` say what could not be read, by which of the attributes."""

    from_s: float = 0.0
    until_s: float = 0.0
    jobs: list[JobView] = []  # of the run, read between `from_s` and `until_s`
    tasks: list[TaskView] = []  # of its jobs that have several
    amounts: dict[int, dict[str, int]] = {}  # what a task asks for, of other people's jobs
    nodes: list[NodeView] = []  # at a moment at which no job was under way; none, if there was no such moment
    check: CheckView | None = None
    obstacles: dict[str, str] = {}

    def lacks(self, *names: str) -> list[str]:
        """Sentences on these attributes, if they could not be read."""
        return [self.obstacles[name] for name in names if name in self.obstacles]


async def collect(cluster: Cluster, record: Record) -> Final:
    """Asks as any user does. What is not answered stands in the result's obstacles."""
    found = Final()
    async with cluster.client() as client:
        async with _reading(found, "jobs"):
            found.from_s = record.now()
            labels = {RUN_LABEL: str(record.began_ms)}
            found.jobs = [job async for job in client.jobs(labels=labels)]
            found.until_s = record.now()
        async with _reading(found, "tasks"):
            found.tasks = await _tasks(client, [job.id for job in found.jobs if job.count > 1])
        async with _reading(found, "amounts"):
            found.amounts = await _amounts(client, _others(record))
        async with _reading(found, "nodes"):
            found.nodes = await _quiet_nodes(client)
        async with _reading(found, "check"):
            found.check = await _check(client)
    return found


@asynccontextmanager
async def _reading(found: Final, name: str) -> AsyncIterator[None]:
    try:
        yield
    except HaschedError as error:
        found.obstacles[name] = f"the cluster did not say its {name}: {error.cause}"


async def _tasks(client: AsyncClient, job_ids: Iterable[int]) -> list[TaskView]:
    turns = asyncio.Semaphore(AT_ONCE)

    async def read(job_id: int) -> list[TaskView]:
        async with turns:
            try:
                return [task async for task in client.tasks(job_id)]
            except NotFound:  # Its retention ended meanwhile.
                return []

    return [task for tasks in await asyncio.gather(*map(read, job_ids)) for task in tasks]


def _others(record: Record) -> list[int]:
    """Jobs that were given resources during the run and are not of it."""
    mine = set(record.jobs.values())
    theirs = {event.job_id: None for event in record.events if event.type == "TasksScheduled"}
    return [job_id for job_id in theirs if job_id is not None and job_id not in mine]


async def _amounts(client: AsyncClient, job_ids: Iterable[int]) -> dict[int, dict[str, int]]:
    found = {}
    for job_id in job_ids:
        try:
            spec = (await client.job(job_id)).spec
        except NotFound:
            continue
        if spec is not None:
            found[job_id] = amounts_of(spec.resources)
    return found


async def _quiet_nodes(client: AsyncClient) -> list[NodeView]:
    """The nodes at a moment at which nothing is under way, so that nothing may be allocated; none, if there is no such."""
    try:
        async with asyncio.timeout(QUIET_S):
            while True:
                before = await client.cluster()
                nodes = (await client.nodes()).nodes
                begun_since = [job async for job in _newest(client) if job.submitted_index > before.applied_index]
                if not begun_since and not any(before.jobs.get(state, 0) for state in UNFINISHED):
                    return nodes
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return []


async def _newest(client: AsyncClient) -> AsyncIterator[JobView]:
    async for job in client.jobs(limit=1):
        yield job
        return


async def _check(client: AsyncClient) -> CheckView | None:
    """Have all managers compare their states, and wait for what came of it; once more if somebody did not answer in time."""
    view: CheckView | None = None
    for _ in range(2):
        asked = await client.check_managers()
        try:
            async with asyncio.timeout(CHECK_S / 2):
                while True:
                    view = (await client.managers()).check
                    if view is not None and view.log_index >= asked:
                        break
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            view = None
            continue
        if view.agreed and not view.silent:
            break
    return view
