"""SIGKILL of the leader, and the time until a client's next submission is accepted."""

from __future__ import annotations

import os
import signal
import time

from benchmarks.cluster import Cluster
from benchmarks.figures import percentile
from benchmarks.submissions import NEVER_RUNS


def failover_s(cluster: Cluster, kills: int = 10) -> dict[str, float]:
    """Over `kills` kills, each from a whole cluster: p50 and max in seconds."""
    taken = []
    for _ in range(kills):
        cluster.wait_until_whole()
        leader = cluster.leader()
        with cluster.client() as client:
            client.submit(NEVER_RUNS)
            begin = time.perf_counter()
            os.kill(cluster.processes()[leader], signal.SIGKILL)
            client.submit(NEVER_RUNS)
            taken.append(time.perf_counter() - begin)
    return {"p50": percentile(taken, 50), "max": max(taken)}
