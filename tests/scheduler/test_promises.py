"""Over random clusters: what is promised to the head of the line is kept, nothing waits for ever, and chance decides nothing."""

from __future__ import annotations

import hashlib
import heapq
import os
import random
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hasched.model.wire import AttemptStarted
from hasched.statemachine.commands import ReportAttempts
from hasched.statemachine.events import TasksScheduled
from hasched.statemachine.invariants import check_capacity
from tests.scheduler.cluster import MINUTE, Cluster

ROOT = Path(__file__).parents[2]


class Witness(Cluster):
    """Notes what is promised: when the job at the head of the line starts at the latest. Tasks end by chance, in time."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)
        self.promised: dict[int, int] = {}
        self.broken: list[str] = []
        self.trace: list[str] = []

    def place(self) -> None:
        super().place()
        assert check_capacity(self.state) == []
        for job_id in self.planner.held_nodes.values():
            start_ms = self.planner.estimate(self.state, job_id)
            if start_ms is not None:
                self.promised[job_id] = min(start_ms, self.promised.get(job_id, start_ms))

    def _start(self, event: TasksScheduled) -> None:
        job = self.state.jobs[event.job_id]
        if self.now_ms > (promised_ms := self.promised.pop(job.id, self.now_ms)):
            self.broken.append(f"job {job.id} was promised to start by {promised_ms}, and did at {self.now_ms}")
        for index, attempt in zip(event.indices, event.attempts, strict=True):
            self.trace.append(f"{self.now_ms} {job.id}.{index}@{event.node_id}")
            self.starts.setdefault(job.id, []).append((self.now_ms, event.node_id))
            started = AttemptStarted(job.id, index, attempt, self.now_ms)
            self.do(ReportAttempts(node_id=event.node_id, reports=(started,)))
            most_ms = job.spec.timeout_ms or 5 * MINUTE
            end_ms = self.now_ms + self.chance.choice((most_ms, most_ms // 2, 1))
            heapq.heappush(self.ends, (end_ms, len(self.trace), job.id, index, attempt, event.node_id))


job = st.tuples(
    st.sampled_from([0, 1, 2, 5, 9]),  # minutes that it may run; 0: any
    st.integers(1, 6),  # cores
    st.integers(1, 4),  # tasks
    st.integers(0, 20),  # minutes until the next one comes
)


def live(nodes: list[int], jobs: list[tuple[int, int, int, int]], seed: int) -> Witness:
    """A cluster to the end of all its work, with jobs that come while others run."""
    cluster = Witness(seed)
    for number, cpu in enumerate(nodes):
        cluster.node(f"n{number}", cpu)
    for minutes, cpu, count, pause in jobs:
        cluster.submit(minutes, cpu, count=count)
        cluster.place()
        until_ms = cluster.now_ms + pause * MINUTE // 4
        while cluster.ends and cluster.ends[0][0] <= until_ms:
            end_ms, _, job_id, index, attempt, node_id = heapq.heappop(cluster.ends)
            cluster.now_ms = max(cluster.now_ms, end_ms)
            cluster.end(job_id, index, attempt, node_id)
            cluster.place()
        cluster.now_ms = until_ms
    cluster.run_on()
    return cluster


@settings(max_examples=60, deadline=None)
@given(
    nodes=st.lists(st.integers(1, 6), min_size=1, max_size=5), jobs=st.lists(job, max_size=14), seed=st.integers(0, 999)
)
def test_who_is_promised_a_start_starts_by_then_and_whatever_fits_a_node_starts_at_last(
    nodes: list[int], jobs: list[tuple[int, int, int, int]], seed: int
) -> None:
    cluster = live(nodes, jobs, seed)
    assert cluster.broken == []
    for each in cluster.state.jobs.values():
        if each.resources.cpu_milli <= max(nodes) * 1000:
            assert each.ended, f"job {each.id} fits a node, and never ran"


def story() -> str:
    """What happens in a life of some length, in one line."""
    chance = random.Random(7)
    jobs = [(chance.choice((0, 1, 2, 5)), chance.randint(1, 6), chance.randint(1, 9), 1) for _ in range(60)]
    return hashlib.sha256("\n".join(live([6, 4, 4, 8, 2], jobs, 1).trace).encode()).hexdigest()


def test_chance_decides_nothing() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-c", "from tests.scheduler.test_promises import story; print(story())"],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told == [f"{story()}\n"] * 2
