"""Workflows: a fan-out and a chain, what the engine adds to each task, and what an execution takes of memory.

First the state machine alone, in CPU time, always with the same work; then a real cluster beside jobs of the same command that no
workflow has made.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable

import psutil

from benchmarks import execution
from benchmarks.cluster import Cluster, dev_cluster
from hasched.model.spec import Resources
from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded, NodeInfo
from hasched.model.workflow_text import parse_workflow
from hasched.statemachine.apply import Applied, apply
from hasched.statemachine.commands import (
    Command,
    Placement,
    PlacePlan,
    RegisterNode,
    ReportAttempts,
    StartExecution,
    StepClock,
    decode_batch,
    encode_batch,
    encode_command,
)
from hasched.statemachine.events import JobSubmitted
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.state import State

FAN, CHAIN, PYTHONS = 10_000, 2_000, 40
NOW_MS = 1_700_000_000_000
PYTHON_TASK = [sys.executable, "-c", "f = lambda n: n if n < 2 else f(n - 1) + f(n - 2)\nprint(f(10))"]
DEFAULTS = {"resources": {"cpu": "0.01", "memory": "1Mi"}}


def fan_out(items: int) -> dict[str, object]:
    tasks = {"each": {"for_each": f"range({items})", "command": ["/bin/true"]}}
    return {"name": "fan", "defaults": DEFAULTS, "tasks": tasks}


def chain(links: int) -> dict[str, object]:
    tasks = {f"t{n}": {"command": ["/bin/true"], **({"after": f"t{n - 1}"} if n else {})} for n in range(links)}
    return {"name": "chain", "defaults": DEFAULTS, "tasks": tasks}


def pythons(links: int) -> dict[str, object]:
    """The chain that others have published figures of: each task is a new Python process with 10 ms to compute."""
    document = chain(links)
    tasks: dict[str, dict[str, object]] = document["tasks"]  # type: ignore[assignment]
    for task in tasks.values():
        task["command"] = PYTHON_TASK
    return {**document, "defaults": {"resources": {"cpu": "0.01", "memory": "64Mi"}}}


class _Machine:
    """A state machine whose only node starts and ends everything at once, a hundred jobs in an entry."""

    def __init__(self) -> None:
        self.state = State()
        self.longest_step_ms = 0.0
        info = NodeInfo(hostname="n1", agent_version="1", resources=Resources(cpu_milli=10**10, memory_bytes=2**50))
        self._do(RegisterNode(node_id="n1", info=info))

    def _do(self, command: Command) -> Applied:
        entry = encode_batch(NOW_MS, [encode_command(command)])
        begun = time.thread_time()
        applied = apply(self.state, self.state.index + 1, decode_batch(entry))
        if isinstance(command, StepClock):
            self.longest_step_ms = max(self.longest_step_ms, 1000 * (time.thread_time() - begun))
        return applied

    def execute(self, document: dict[str, object]) -> None:
        self._do(StartExecution(submission_id="s", actor="a", spec=parse_workflow(document, given={}).spec))
        while not self.state.executions[1].ended:
            made: list[int] = []
            while (due_ms := next_deadline(self.state)) is not None and due_ms <= NOW_MS:
                made += [event.job_id for event in self._do(StepClock()).events if isinstance(event, JobSubmitted)]
            for start in range(0, len(made), 100):
                self._end(made[start : start + 100])

    def _end(self, job_ids: list[int]) -> None:
        self._do(PlacePlan(placements=tuple(Placement(job_id, "n1", (0,)) for job_id in job_ids)))
        ends = tuple(AttemptEnded(each, 0, 1, NOW_MS, NOW_MS, kind=EndKind.EXITED, code=0) for each in job_ids)
        self._do(ReportAttempts(node_id="n1", reports=ends))


def figures(scale: int) -> dict[str, object]:
    """Of a fan-out of 10,000 and a chain of 2,000, both divided by `scale`."""
    results: dict[str, object] = {}
    shapes: list[tuple[str, Callable[[int], dict[str, object]], int]] = [
        ("fan_out", fan_out, FAN // scale),
        ("chain", chain, CHAIN // scale),
    ]
    for name, shape, tasks in shapes:
        document = shape(tasks)
        best = 1e9
        for _ in range(3):
            machine = _Machine()
            begun = time.thread_time()
            machine.execute(document)
            if (spent := time.thread_time() - begun) < best:
                best, results[f"{name}_longest_step_ms"] = spent, machine.longest_step_ms
        results[f"{name}_cpu_us_per_task"] = 1e6 * best / tasks
        results[f"{name}_bytes_per_task"] = _bytes_of(document) / tasks
    with dev_cluster(managers=3, agents=1) as cluster:
        results |= _on_cluster(cluster, scale)
    return results


def _bytes_of(document: dict[str, object]) -> int:
    """What the execution and its jobs hold when all have ended."""
    gc.collect()
    tracemalloc.start()
    machine = _Machine()
    before = tracemalloc.get_traced_memory()[0]
    machine.execute(document)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return held


def _on_cluster(cluster: Cluster, scale: int) -> dict[str, object]:
    watcher = execution.EndWatcher(cluster)
    asyncio.run(execution.end_to_end(cluster, watcher, 200))  # the first ones pay for imports and caches
    alone = asyncio.run(execution.latencies(cluster, watcher, 200 // scale))
    many = asyncio.run(execution.end_to_end(cluster, watcher, FAN // scale))
    watcher.stop()
    with cluster.client() as client:

        def run(document: dict[str, object]) -> float:
            started = client.execute(document)
            ended = client.wait_for_execution(started.id)
            assert ended.state == "succeeded", ended.reason
            return (ended.ended_ms - ended.started_ms) / 1000

        pythons_s = run(pythons(PYTHONS))
        begun = time.monotonic()
        for _ in range(PYTHONS):
            subprocess.run(PYTHON_TASK, stdout=subprocess.DEVNULL, check=True)
        loop_s = time.monotonic() - begun
        links_s = run(chain(CHAIN // scale))
        before = _largest_manager(cluster)
        items_s = run(fan_out(FAN // scale))
        grown = _largest_manager(cluster) - before
    return {
        "cluster_job_ms": alone["known_done_ms_p50"],
        "cluster_chain_ms_per_task": 1000 * links_s / (CHAIN // scale),
        "cluster_jobs_per_s": many["end_to_end_per_s"],
        "cluster_fan_out_per_s": (FAN // scale) / items_s,
        "cluster_fan_out_rss_bytes_per_task": grown / (FAN // scale),
        "cluster_pythons_ms_per_task": 1000 * pythons_s / PYTHONS,
        "loop_pythons_ms_per_task": 1000 * loop_s / PYTHONS,
    }


def _largest_manager(cluster: Cluster) -> int:
    """Resident bytes of the manager that has most."""
    pids = [pid for name, pid in cluster.processes().items() if name.startswith("m")]
    return max(psutil.Process(pid).memory_info().rss for pid in pids)
