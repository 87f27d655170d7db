"""A synthetic week, replayed: how well the planner uses a cluster, how long jobs wait, and how fair that is.

The planner and the state machine are the product's; time is virtual. Beside it the same week under strict first come, first
served and under plain bin-packing, and a bound that no scheduler can pass.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

from benchmarks.baselines import Baseline
from benchmarks.replayed import Replayed
from benchmarks.trace import WEEK_S, NodeKind, TraceJob, cluster, coarser, week

LOAD = 0.95
SLOWDOWN_FLOOR_S = 600  # a job that runs shorter counts as that long: nobody minds a minute's wait of a second's job


class Scheduler(Protocol):
    def submit(self, number: int, job: TraceJob, now_s: int) -> None: ...

    def ended(self, number: int, index: int, job: TraceJob, now_s: int) -> None: ...

    def start(self, now_s: int) -> Iterable[tuple[int, int]]:
        """The tasks (job, index) that start now; each is held until it has `ended`."""
        ...


class Replay:
    """One week under one scheduler. A task that hasn't started by its end has waited until then."""

    def __init__(self, jobs: list[TraceJob], scheduler: Scheduler) -> None:
        self._jobs = jobs
        self._scheduler = scheduler
        self.starts: list[list[int]] = [[WEEK_S] * len(job.runs_s) for job in jobs]
        self._used_s = {"gpu": 0, "cpu": 0}  # GPU- and CPU-seconds within the week
        self.planning_s = 0.0

    def run(self) -> None:
        ends: list[tuple[int, int, int]] = []
        arrivals = iter(enumerate(self._jobs))
        arriving = next(arrivals, None)
        while True:
            due = [ends[0][0]] if ends else []
            due += [arriving[1].submit_s] if arriving is not None else []
            if not due or min(due) >= WEEK_S:
                return
            now_s = min(due)
            while ends and ends[0][0] <= now_s:
                _, number, index = heapq.heappop(ends)
                self._scheduler.ended(number, index, self._jobs[number], now_s)
            while arriving is not None and arriving[1].submit_s <= now_s:
                self._scheduler.submit(*arriving, now_s)
                arriving = next(arrivals, None)
            begun = time.perf_counter()
            started = list(self._scheduler.start(now_s))
            self.planning_s += time.perf_counter() - begun
            for number, index in started:
                end_s = now_s + self._jobs[number].runs_s[index]
                self._started(number, index, now_s, min(end_s, WEEK_S) - now_s)
                heapq.heappush(ends, (end_s, number, index))

    def _started(self, number: int, index: int, now_s: int, within_s: int) -> None:
        job = self._jobs[number]
        self.starts[number][index] = now_s
        self._used_s["gpu"] += job.gpus * within_s
        if not job.gpus:
            self._used_s["cpu"] += job.cpus * within_s

    # --- what came of it ---

    def figures(self, name: str, bound_s: dict[str, int]) -> dict[str, float]:
        """Waits in minutes. Utilisation is of GPUs by jobs with GPUs, of CPUs by the others, as a share of the bound."""
        waits_s = sorted(self._waits_s())
        return {
            **{f"{name}_{what}_of_bound": self._used_s[what] / bound_s[what] for what in bound_s},
            **{f"{name}_wait_p{part}_min": _percentile(waits_s, part) / 60 for part in (50, 95, 99)},
            f"{name}_gang_wait_max_h": max(self._waits_s(gangs=True), default=0) / 3600,
            f"{name}_fairness": self._fairness(),
        }

    def _waits_s(self, *, gangs: bool = False) -> Iterator[int]:
        """Of each job, the mean of its tasks."""
        for job, starts in zip(self._jobs, self.starts, strict=True):
            if job.gang or not gangs:
                yield sum(starts) // len(starts) - job.submit_s

    def _fairness(self) -> float:
        """Jain's index of the users' mean slowdowns: 1 if all are served alike, 1/n if one has it all."""
        slowdowns: dict[int, list[float]] = {}
        for job, starts in zip(self._jobs, self.starts, strict=True):
            wait_s = sum(starts) / len(starts) - job.submit_s
            runs_s = max(sum(job.runs_s) / len(job.runs_s), SLOWDOWN_FLOOR_S)
            slowdowns.setdefault(job.user, []).append((wait_s + runs_s) / runs_s)
        means = [sum(each) / len(each) for each in slowdowns.values()]
        return sum(means) ** 2 / (len(means) * sum(mean * mean for mean in means))


def bound(jobs: list[TraceJob], nodes: list[NodeKind]) -> dict[str, int]:
    """GPU- and CPU-seconds that could be delivered at most within the week, by any scheduler.

    Relaxed: work is a fluid that any part of the cluster may do at once, but not before it was submitted. Three things can't be
    had by any scheduler and are left out: what of a task lies beyond the week even if it starts at once, work for nodes that are
    too small for it, and CPUs for jobs without GPUs where there are none left (GPU jobs are taken to need no CPUs).
    """
    gpus = sum(kind.nodes * kind.gpus for kind in nodes)
    cpus = sum(kind.nodes * kind.cpus for kind in nodes)
    with_gpus = [job for job in jobs if job.gpus]
    ways = [_fluid(with_gpus, gpus)]
    for size in sorted({kind.gpus for kind in nodes}):  # tasks that are larger go to larger nodes alone
        larger = sum(kind.nodes * kind.gpus for kind in nodes if kind.gpus > size)
        large = [job for job in with_gpus if job.gpus > size]
        ways.append(_fluid(large, larger) + _fluid([job for job in with_gpus if job.gpus <= size], gpus))
    return {"gpu": min(ways), "cpu": _fluid([job for job in jobs if not job.gpus], cpus)}


def _fluid(jobs: list[TraceJob], rate: int) -> int:
    """How much is done by the end of the week at so much a second (Lindley's recursion over the arrivals)."""
    backlog = at_s = delivered = 0
    for job in (*jobs, None):
        now_s = job.submit_s if job is not None else WEEK_S
        done = min(backlog, rate * (now_s - at_s))
        delivered, backlog, at_s = delivered + done, backlog - done, now_s
        if job is not None:
            backlog += (job.gpus or job.cpus) * sum(min(run_s, WEEK_S - now_s) for run_s in job.runs_s)
    return delivered


def figures(scale: int = 1, seed: int = 1) -> dict[str, object]:
    """`scale` above 1: the same cluster and load with a third of the tasks, for small ones are put together."""
    nodes = cluster()
    jobs = week(nodes, LOAD, seed)
    if scale > 1:
        jobs = coarser(jobs)
    limit = bound(jobs, nodes)
    results: dict[str, object] = {
        "seed": seed,
        "nodes": sum(kind.nodes for kind in nodes),
        "jobs": len(jobs),
        "tasks": sum(len(job.runs_s) for job in jobs),
        "gangs": sum(job.gang for job in jobs),
    }
    schedulers: dict[str, Scheduler] = {
        "hasched": Replayed(nodes),
        "fifo": Baseline(nodes, strict=True),
        "bin_pack": Baseline(nodes, strict=False),
    }
    for name, scheduler in schedulers.items():
        replay = Replay(jobs, scheduler)
        replay.run()
        results |= replay.figures(name, limit)
        results[f"{name}_planning_s"] = replay.planning_s
    return results


def _percentile(values: list[int], part: int) -> int:
    return values[min(len(values) * part // 100, len(values) - 1)]
