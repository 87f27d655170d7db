"""The planner alone, in this process and always with the same work: placements, passes that find nothing, answers to why.

Nodes of 12 kinds, tasks of 200 shapes in 20 queues. Nothing is started and nothing is replicated: what is measured is what a
leader's loop spends on policy, and on applying it, in time of the processor, so that other work on the machine counts little.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hasched.manager.planning import SLICE_UNITS
from hasched.model.spec import JobSpec, Resources
from hasched.model.wire import GpuDevice, NodeInfo
from hasched.scheduler.explain import NodeClasses, explain_waiting
from hasched.scheduler.planner import Planner
from hasched.statemachine.apply import Applied, apply
from hasched.statemachine.commands import Batch, Command, PlacePlan, RegisterNode, SubmitJob
from hasched.statemachine.state import State

GIB = 2**30
QUEUES = 20
SHAPES = 200
BATCH = 1_000
RACK = 40  # nodes in a rack
ZONES = 10
KINDS = tuple(  # of nodes: CPUs, GiB of memory, GPUs
    (cpus, cpus * ratio, gpus) for cpus in (16, 32, 64, 128) for ratio, gpus in ((2, 0), (4, 0), (8, 8))
)
LARGEST = {"nodes": 10_000, "tasks": 1_000_000}
PARTS = {"nodes": (100, 10, 1), "tasks": (1_000, 100, 10, 1)}  # of the largest, to see how time grows


class Figures(NamedTuple):
    """`placements` were made in `planning_s`, a slice of it in `slice_ms` at most; the state machine took `applying_s`."""

    placements: int
    planning_s: float
    applying_s: float
    slice_ms: float


class Bench:
    """A cluster and its work; the same seed gives the same."""

    def __init__(self, nodes: int, tasks: int, seed: int = 1) -> None:
        self._chance = random.Random(seed)
        self.state = State()
        self.planner = Planner()
        self._now_ms = 1_700_000_000_000
        for first in range(0, nodes, BATCH):
            self._do([self._node(number) for number in range(first, min(first + BATCH, nodes))])
        shapes = [self._shape() for _ in range(SHAPES)]
        jobs = min(tasks, max(SHAPES * QUEUES, tasks // 100))
        sizes = [tasks // jobs + (number < tasks % jobs) for number in range(jobs)]
        for first in range(0, jobs, BATCH):
            chosen = range(first, min(first + BATCH, jobs))
            self._do([self._job(number, shapes[number % SHAPES], sizes[number]) for number in chosen])
        for _ in self.planner.rebuild(self.state):
            pass
        self.classes = NodeClasses()
        self.classes.members(self.state)  # as a leader does before anybody asks
        gc.collect()
        gc.freeze()  # as a manager does: what stays need not be walked again and again

    def _node(self, number: int) -> Command:
        cpus, memory_gib, gpus = KINDS[number % len(KINDS)]
        info = NodeInfo(
            hostname=f"n{number}",
            agent_version="0",
            resources=Resources(cpu_milli=cpus * 1000, memory_bytes=memory_gib * GIB, gpus=gpus),
            gpus=tuple(GpuDevice(uuid=f"{number}-{gpu}", model="X", memory_bytes=80 * GIB) for gpu in range(gpus)),
            labels={"rack": f"r{number // RACK}", "zone": f"z{number % ZONES}"},
        )
        return RegisterNode(node_id=f"n{number}", info=info)

    def _shape(self) -> Resources:
        """Mostly small; a few want much, and one in eight GPUs."""
        cpu_milli = round(250 * 2 ** min(self._chance.expovariate(0.5), 8))
        gpus = self._chance.choice((1, 2, 4, 8)) if self._chance.random() < 0.125 else 0
        return Resources(
            cpu_milli=cpu_milli, memory_bytes=cpu_milli * self._chance.choice((1, 2, 4)) * GIB // 1000, gpus=gpus
        )

    def _job(self, number: int, shape: Resources, count: int) -> Command:
        spec = JobSpec(
            name="bench",
            command=("true",),
            count=count,
            resources=shape,
            queue=f"q{number // SHAPES % QUEUES}",
            priority=self._chance.choice((0, 0, 0, 10, 100)),
        )
        return SubmitJob(submission_id=f"s{number}", actor="bench", spec=spec)

    def _do(self, commands: Sequence[Command]) -> Applied:
        self._now_ms += 1
        return apply(self.state, self.state.index + 1, Batch(v=1, now_ms=self._now_ms, commands=list(commands)))

    # --- what is measured ---

    def fill(self) -> Figures:
        """Plan and apply, slice by slice, until nothing more fits."""
        placements, planning_s, applying_s, slice_ms = 0, 0.0, 0.0, 0.0
        gc.disable()  # a full collection takes some ten ms with so much state, now and then, and is no slice's doing
        for plan, seconds in self._slices():
            planning_s += seconds
            slice_ms = max(slice_ms, seconds * 1000)
            if plan is None:
                continue
            begun = time.thread_time()
            applied = self._do([plan])
            applying_s += time.thread_time() - begun
            begun = time.thread_time()
            self.planner.observe(self.state, applied)
            self.planner.settle(self.state, plan)
            planning_s += time.thread_time() - begun
            placements += sum(len(each.indices) for each in plan.placements)
        gc.enable()
        return Figures(placements, planning_s, applying_s, slice_ms)

    def _slices(self) -> Iterator[tuple[PlacePlan | None, float]]:
        while self.planner.ready:
            begun = time.thread_time()
            plan = self.planner.plan(self.state, SLICE_UNITS)
            yield plan, time.thread_time() - begun

    def empty_pass_ms(self) -> float:
        """Of a full cluster: a node comes that nothing fits on, so everything is looked at once more."""
        info = NodeInfo(hostname="small", agent_version="0", resources=Resources(cpu_milli=1))
        self.planner.observe(self.state, self._do([RegisterNode(node_id="small", info=info)]))
        return sum(seconds for _, seconds in self._slices()) * 1000

    def why_ms(self, questions: int = 50) -> tuple[float, float]:
        """The slowest full answer to why a job waits, and the first, since which something has happened on every node."""
        waiting = [job for job in self.state.jobs.values() if job.eligible]
        times = []
        for job in self._chance.sample(waiting, min(questions, len(waiting))):
            begun = time.thread_time()
            explain_waiting(self.state, job, self.classes)
            times.append((time.thread_time() - begun) * 1000)
        first, *others = times or [0.0]
        return max(others, default=first), first


def measure(nodes: int, tasks: int) -> dict[str, float]:
    bench = Bench(nodes, tasks)
    figures = bench.fill()
    whole_s = figures.planning_s + figures.applying_s
    why_ms, why_first_ms = bench.why_ms()
    return {
        "placements": figures.placements,
        "placements_per_s": figures.placements / figures.planning_s,
        "placements_applied_per_s": figures.placements / whole_s,
        "slice_max_ms": figures.slice_ms,
        "empty_pass_ms": bench.empty_pass_ms(),
        "why_max_ms": why_ms,
        "why_first_ms": why_first_ms,
    }


def growth(what: str, largest: dict[str, int]) -> float:
    """The exponent of the time of a fill in the number of nodes, or tasks: the slope of a line through the logarithms."""
    points = []
    for part in PARTS[what]:
        size = largest[what] // part
        bench = Bench(**{**largest, what: size})
        points.append((math.log(size), math.log(bench.fill().planning_s)))
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def figures(scale: int = 1) -> dict[str, object]:
    """At full scale 10,000 nodes and 1,000,000 tasks."""
    largest = {what: size // scale for what, size in LARGEST.items()}
    results: dict[str, object] = {**largest, **measure(**largest)}
    return results | {f"growth_in_{what}": growth(what, largest) for what in PARTS}
