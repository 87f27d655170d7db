"""The replayed week measures what it says: one week from a seed, a bound that nothing passes, baselines that keep their rules."""

from __future__ import annotations

import pytest

from benchmarks.baselines import Baseline
from benchmarks.replayed import Replayed
from benchmarks.trace import WEEK_S, NodeKind, TraceJob, cluster, coarser, week
from benchmarks.week import Replay, bound

SCALE = 60  # six nodes


def job(submit_s: int, *runs_s: int, cpus: int = 1, gpus: int = 0, gang: bool = False) -> TraceJob:
    return TraceJob(submit_s, 0, cpus, 1, gpus, gang, 0, runs_s)


def starts(jobs: list[TraceJob], scheduler: Baseline | Replayed) -> list[list[int]]:
    replay = Replay(jobs, scheduler)
    replay.run()
    return replay.starts


def test_a_seed_is_a_week():
    nodes = cluster(SCALE)
    assert week(nodes, 0.9, seed=3) == week(nodes, 0.9, seed=3) != week(nodes, 0.9, seed=4)
    asked = sum(each.gpus * sum(each.runs_s) for each in week(nodes, 0.9, seed=3))
    assert asked >= 0.9 * WEEK_S * sum(kind.nodes * kind.gpus for kind in nodes)


@pytest.mark.parametrize("name", ["hasched", "fifo", "bin_pack"])
def test_nobody_passes_the_bound(name: str):
    nodes = cluster(SCALE)
    jobs = [each for each in week(nodes, 0.5, seed=3) if not each.gang]
    scheduler = Replayed(nodes) if name == "hasched" else Baseline(nodes, strict=name == "fifo")
    replay = Replay(jobs, scheduler)
    replay.run()
    figures = replay.figures(name, bound(jobs, nodes))
    assert 0 < figures[f"{name}_gpu_of_bound"] <= 1
    assert 0 < figures[f"{name}_cpu_of_bound"] <= 1
    assert 0 < figures[f"{name}_fairness"] <= 1


def test_the_bound_is_what_has_come_or_what_there_is():
    nodes = [NodeKind(1, 2, 8, 1)]
    assert bound([job(0, 10), job(WEEK_S - 5, 100, 100, 100)], nodes) == {"gpu": 0, "cpu": 10 + 2 * 5}
    assert bound([job(WEEK_S - 5, 100)], nodes) == {"gpu": 0, "cpu": 5}, "the rest of it lies beyond the week"
    assert bound([job(0, 2 * WEEK_S, gpus=1)], nodes) == {"gpu": WEEK_S, "cpu": 0}


def test_the_bound_knows_that_large_tasks_need_large_nodes():
    nodes = [NodeKind(1, 2, 8, 1), NodeKind(1, 2, 8, 2)]
    large, small = job(0, WEEK_S, WEEK_S, gpus=2), job(0, WEEK_S, gpus=1)
    assert bound([large], nodes)["gpu"] == 2 * WEEK_S
    assert bound([large, small], nodes)["gpu"] == 3 * WEEK_S


def test_a_coarser_week_asks_for_about_as_much():
    jobs = week(cluster(SCALE), 0.5, seed=3)
    fewer = coarser(jobs)
    assert [each for each in jobs if each.gpus] == [each for each in fewer if each.gpus]
    asked, tasks = (
        [sum(f(each) for each in some) for some in (jobs, fewer)] for f in (_cpu_s, lambda each: len(each.runs_s))
    )
    assert 0.95 * asked[0] < asked[1] <= asked[0] and tasks[1] < tasks[0] / 2


def _cpu_s(each: TraceJob) -> int:
    return each.cpus * sum(each.runs_s)


def test_strictly_first_come_first_served_lets_nobody_pass():
    nodes = [NodeKind(1, 4, 8)]
    jobs = [job(0, 100, cpus=3), job(1, 50, cpus=4), job(2, 10, cpus=1)]
    assert starts(jobs, Baseline(nodes, strict=True)) == [[0], [100], [150]]
    assert starts(jobs, Baseline(nodes, strict=False)) == [[0], [100], [2]]


def test_a_gang_starts_whole():
    nodes = [NodeKind(2, 4, 8)]
    jobs = [job(0, 100, cpus=4), job(1, 50, 50, cpus=4, gang=True)]
    assert starts(jobs, Baseline(nodes, strict=False)) == [[0], [100, 100]]
