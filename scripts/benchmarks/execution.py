"""Jobs from submission to known end: how many a second, at what CPU cost, and how soon on an idle cluster."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid

from benchmarks.cluster import Cluster
from benchmarks.figures import percentile
from benchmarks.submissions import Target
from hasched.model.errors import HaschedError

RUNS_TRUE = {"command": ["/bin/true"], "resources": {"cpu": "0.01"}}


class EndWatcher:
    """Follows the event stream in a thread and notes when each job was known to have ended."""

    def __init__(self, cluster: Cluster) -> None:
        self.ended_at: dict[int, float] = {}
        self.states: dict[int, str] = {}
        self._changed = threading.Condition()
        self._client = cluster.client()
        self._over = False
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The cluster is about to end, and with it the stream."""
        self._over = True

    def _follow(self) -> None:
        try:
            for event in self._client.events(types=["JobEnded"]):
                now = time.perf_counter()
                with self._changed:
                    assert event.job_id is not None
                    self.ended_at[event.job_id] = now
                    self.states[event.job_id] = str(event.data["state"])
                    self._changed.notify_all()
        except HaschedError:
            if not self._over:
                raise

    def wait(self, job_ids: list[int], timeout_s: float = 300) -> None:
        with self._changed:
            done = self._changed.wait_for(lambda: all(job in self.ended_at for job in job_ids), timeout_s)
        if not done:
            missing = [job for job in job_ids if job not in self.ended_at]
            raise RuntimeError(f"{len(missing)} jobs did not end, first {missing[:3]}")


async def end_to_end(cluster: Cluster, watcher: EndWatcher, jobs: int = 5000) -> dict[str, object]:
    """`jobs` jobs of /bin/true, submitted in batches of 100 on four connections, until the client knows that all ended."""
    target = Target(cluster)
    connections = [await target.connect() for _ in range(4)]
    ids: list[int] = []
    batches = iter(range(jobs // 100))
    before = cluster.cpu_seconds()

    async def submit(number: int) -> None:
        for _ in batches:
            batch = [{"submission_id": uuid.uuid4().hex, "spec": RUNS_TRUE} for _ in range(100)]
            answer = await connections[number].post_json("/v1/jobs/batch", {"jobs": batch})
            ids.extend(result["id"] for result in answer["results"])

    begin = time.perf_counter()
    await asyncio.gather(*(submit(number) for number in range(4)))
    await asyncio.to_thread(watcher.wait, ids)
    elapsed = max(watcher.ended_at[job] for job in ids) - begin
    after = cluster.cpu_seconds()
    for connection in connections:
        connection.close()
    assert all(watcher.states[job] == "SUCCEEDED" for job in ids), "not every job succeeded"
    cost = {name: 1000 * (after[name] - before[name]) / jobs for name in sorted(before)}
    return {"end_to_end_per_s": jobs / elapsed, "cpu_ms_per_job": cost}


async def end_to_end_array(cluster: Cluster, watcher: EndWatcher, tasks: int = 5000) -> float:
    """The same as one array job: tasks a second."""
    target = Target(cluster)
    connection = await target.connect()
    begin = time.perf_counter()
    answer = await connection.post_json("/v1/jobs", {**RUNS_TRUE, "count": tasks}, uuid.uuid4().hex)
    await asyncio.to_thread(watcher.wait, [answer["id"]])
    connection.close()
    assert watcher.states[answer["id"]] == "SUCCEEDED"
    return tasks / (watcher.ended_at[answer["id"]] - begin)


async def latencies(cluster: Cluster, watcher: EndWatcher, jobs: int = 200) -> dict[str, float]:
    """One job at a time on an idle cluster: ms from before the request to the process's start (by the agent's clock, which is
    this machine's, rounded up to the next ms), and to the moment when the client knows the end."""
    target = Target(cluster)
    connection = await target.connect()
    start, known = [], []
    with cluster.client() as client:
        for _ in range(jobs):
            wall, begin = time.time(), time.perf_counter()
            answer = await connection.post_json("/v1/jobs", RUNS_TRUE, uuid.uuid4().hex)
            job = int(answer["id"])
            await asyncio.to_thread(watcher.wait, [job])
            known.append(1000 * (watcher.ended_at[job] - begin))
            task = await asyncio.to_thread(client.task, job, 0)
            start.append(task.started_ms + 1 - 1000 * wall)
            await asyncio.sleep(0.01)
    connection.close()
    return {
        "start_ms_p50": percentile(start, 50),
        "start_ms_p99": percentile(start, 99),
        "known_done_ms_p50": percentile(known, 50),
        "known_done_ms_p99": percentile(known, 99),
    }
