"""A synthetic week of work in the style of published cluster traces: long tails, bursts, arrays, gangs, a few busy users.

The shapes follow what was reported of the traces of Philly (Jeon et al., ATC 2019), Helios (Hu et al., SC 2021) and Google
(Tirmazi et al., EuroSys 2020): most jobs are small and short while a few large ones make most of the load, users come in
bursts by day, and declared limits are several times too long.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

HOUR_S = 3600
DAY_S = 24 * HOUR_S
WEEK_S = 7 * DAY_S
LIMITS_S = tuple(hours * HOUR_S // 6 for hours in (1, 3, 6, 12, 24, 48, 144, 288, 432))  # 10 minutes to 3 days
LONGEST_S = 2 * DAY_S
USERS = 40
CPU_SHARE = 0.25  # of jobs with GPUs, in CPUs: they are beside the rest


class NodeKind(NamedTuple):
    nodes: int
    cpus: int
    memory_gib: int
    gpus: int = 0


CLUSTER = (
    NodeKind(30, 32, 128),
    NodeKind(20, 64, 256),
    NodeKind(10, 64, 1024),
    NodeKind(20, 128, 1024, 8),
    NodeKind(12, 96, 768, 8),
    NodeKind(8, 32, 128, 4),
)


class TraceJob(NamedTuple):
    """`runs_s`: how long each task takes. `limit_s`: what its user declared, 0 for nothing. `gang`: all tasks at once."""

    submit_s: int
    user: int
    cpus: int
    memory_gib: int
    gpus: int
    gang: bool
    limit_s: int
    runs_s: tuple[int, ...]


class _Kind(NamedTuple):
    """A kind of work: median and spread (sigma of the logarithm) of its durations, and what a task asks for."""

    weight: int
    median_s: int
    sigma: float
    cpus: tuple[int, ...]
    gib_a_cpu: tuple[int, ...]
    gpus: tuple[int, ...] = (0,)  # each brings its own CPUs
    tasks: Callable[[random.Random], int] = lambda _: 1
    gang: bool = False


def _array(chance: random.Random) -> int:
    return min(int(8 * chance.paretovariate(1.1)), 500)


def _gang(chance: random.Random) -> int:
    return chance.choice((2, 2, 2, 2, 4, 4, 8))


CPU_WORK = (
    _Kind(50, 3 * 60, 1.5, (1, 2, 4), (2, 4)),
    _Kind(30, 12 * 60, 1.2, (1, 2, 4, 8), (2, 4), tasks=_array),
    _Kind(20, 40 * 60, 1.2, (16, 16, 32, 64), (2, 4)),
)
GPU_WORK = (
    _Kind(70, 60 * 60, 1.4, (8,), (4,), gpus=(1, 1, 1, 2, 4)),
    _Kind(22, 2 * HOUR_S, 1.2, (4,), (4,), gpus=(8,)),
    _Kind(8, 3 * HOUR_S, 1.0, (4,), (4,), gpus=(8,), tasks=_gang, gang=True),
)


def cluster(scale: int = 1) -> list[NodeKind]:
    """A cluster of 100 nodes, or so many times smaller."""
    return [kind._replace(nodes=max(kind.nodes // scale, 1)) for kind in CLUSTER]


def week(nodes: list[NodeKind], load: float, seed: int) -> list[TraceJob]:
    """Jobs by time of submission that ask for `load` of the cluster's GPU-hours, and of the CPU-hours that these leave."""
    chance = random.Random(seed)
    gpu_s = sum(kind.nodes * kind.gpus for kind in nodes) * WEEK_S
    cpu_s = sum(kind.nodes * kind.cpus for kind in nodes) * WEEK_S
    jobs: list[TraceJob] = []
    for kinds, wanted, cost in (
        (GPU_WORK, load * gpu_s, lambda job: job.gpus * sum(job.runs_s)),
        (CPU_WORK, load * cpu_s * (1 - CPU_SHARE), lambda job: job.cpus * sum(job.runs_s)),
    ):
        asked = 0
        while asked < wanted:
            for job in _burst(chance, kinds):
                jobs.append(job)
                asked += cost(job)
    return sorted(jobs)


def coarser(jobs: list[TraceJob]) -> list[TraceJob]:
    """About the same work without GPUs in fewer and larger tasks: arrays in pairs, and nothing below 20 minutes of a CPU."""
    return [_paired(job) for job in jobs if job.gpus or job.cpus * sum(job.runs_s) >= 1200]


def _paired(job: TraceJob) -> TraceJob:
    cpus, runs_s = job.cpus, sorted(job.runs_s)
    while not job.gpus and len(runs_s) >= 8 and cpus <= 8:
        runs_s = [max((runs_s[at] + runs_s[at + 1]) // 2, 1) for at in range(0, len(runs_s) - 1, 2)]
        cpus *= 2
    return job._replace(cpus=cpus, memory_gib=job.memory_gib // job.cpus * cpus, runs_s=tuple(runs_s))


def _burst(chance: random.Random, kinds: tuple[_Kind, ...]) -> Iterator[TraceJob]:
    """What one user submits within some minutes: jobs of one kind."""
    kind = chance.choices(kinds, [each.weight for each in kinds])[0]
    user = min(int(chance.paretovariate(0.7)) - 1, USERS - 1)
    begin_s = _busy_time(chance)
    for _ in range(min(int(chance.paretovariate(1.0)), 40)):
        scale_s = min(kind.median_s * chance.lognormvariate(0, kind.sigma), LONGEST_S)
        tasks = kind.tasks(chance)
        spreads = [1.0 if kind.gang else chance.lognormvariate(0, 0.3) for _ in range(tasks)]
        runs_s = tuple(max(1, int(min(scale_s * spread, LONGEST_S))) for spread in spreads)
        gpus = chance.choice(kind.gpus)
        cpus = chance.choice(kind.cpus) * max(gpus, 1)
        yield TraceJob(
            submit_s=min(begin_s + int(chance.expovariate(1 / 300)), WEEK_S - 1),
            user=user,
            cpus=cpus,
            memory_gib=cpus * chance.choice(kind.gib_a_cpu),
            gpus=gpus,
            gang=kind.gang,
            limit_s=_limit(chance, max(runs_s)),
            runs_s=runs_s,
        )


def _busy_time(chance: random.Random) -> int:
    """Days are three times as busy as nights, and working days twice as busy as the others."""
    while True:
        at_s = chance.randrange(WEEK_S)
        by_day = 9 <= at_s % DAY_S // HOUR_S < 19
        working = at_s // DAY_S < 5
        if chance.random() < (1.0 if by_day else 1 / 3) * (1.0 if working else 0.5):
            return at_s


def _limit(chance: random.Random, runs_s: int) -> int:
    """The next round number over a guess that is long enough; one user in ten declares nothing."""
    if chance.random() < 0.1:
        return 0
    guess_s = runs_s * chance.uniform(1.1, 4)
    return next((limit for limit in LIMITS_S if limit >= guess_s), LIMITS_S[-1])
