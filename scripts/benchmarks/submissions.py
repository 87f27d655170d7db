"""How many submissions a second three managers put on disk, and how quickly one huge array is accepted.

The jobs ask for a countable that no node has, so nothing of the machine is spent on running them.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
import uuid

from benchmarks.cluster import Cluster
from benchmarks.figures import percentile
from benchmarks.http import Connection
from hasched.client.context import load_context
from hasched.client.tls import client_context

NEVER_RUNS = {"command": ["/bin/true"], "resources": {"cpu": "0.01", "countables": {"never": 1}}}


class Target:
    """Where to send: the leader's URL and what it takes to be let in."""

    def __init__(self, cluster: Cluster) -> None:
        context = load_context(environ=cluster.environment)
        leader = cluster.leader()
        with cluster.client() as client:
            self.url = next(manager.api_url for manager in client.managers().managers if manager.id == leader)
        self.token = context.token
        self.tls: ssl.SSLContext = client_context(context.ca)

    async def connect(self) -> Connection:
        return await Connection(self.url, self.tls, self.token).open()


async def submit_singly(target: Target, connections: int, seconds: float) -> dict[str, float]:
    """Durable submissions a second, each its own request, `connections` at once; latency in ms."""
    latencies: list[float] = []
    opened = [await target.connect() for _ in range(connections)]
    end = time.perf_counter() + seconds

    async def submit(connection: Connection) -> None:
        while (begin := time.perf_counter()) < end:
            await connection.post_json("/v1/jobs", NEVER_RUNS, uuid.uuid4().hex)
            latencies.append(1000 * (time.perf_counter() - begin))

    begin = time.perf_counter()
    await asyncio.gather(*(submit(connection) for connection in opened))
    elapsed = time.perf_counter() - begin
    for connection in opened:
        connection.close()
    return {
        "per_s": len(latencies) / elapsed,
        "p50_ms": percentile(latencies, 50),
        "p99_ms": percentile(latencies, 99),
    }


async def submit_batches(target: Target, total: int, size: int = 100, connections: int = 4) -> float:
    """Jobs a second in requests of `size` jobs."""
    opened = [await target.connect() for _ in range(connections)]
    batches = itertools.count()

    async def submit(connection: Connection) -> None:
        while next(batches) < total // size:
            jobs = [{"submission_id": uuid.uuid4().hex, "spec": NEVER_RUNS} for _ in range(size)]
            answer = await connection.post_json("/v1/jobs/batch", {"jobs": jobs})
            assert all("id" in result for result in answer["results"])

    begin = time.perf_counter()
    await asyncio.gather(*(submit(connection) for connection in opened))
    elapsed = time.perf_counter() - begin
    for connection in opened:
        connection.close()
    return total / elapsed


async def submit_array_ms(target: Target, count: int = 100_000, tries: int = 5) -> float:
    """Median time until one array of `count` tasks is accepted, in ms."""
    connection = await target.connect()
    taken = []
    for _ in range(tries):
        begin = time.perf_counter()
        await connection.post_json("/v1/jobs", {**NEVER_RUNS, "count": count}, uuid.uuid4().hex)
        taken.append(1000 * (time.perf_counter() - begin))
    connection.close()
    return percentile(taken, 50)
