"""Campaigns: many runs, on several cores, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.run import Verdict, run

SEEDS = Path(__file__).with_name("seeds.txt")


@dataclass
class Summary:
    """Of all verdicts so far. `failed` are those with violations."""

    runs: int = 0
    simulated_s: float = 0.0
    core_s: float = 0.0
    calls: int = 0
    acknowledged: int = 0
    entries: int = 0
    messages: int = 0
    terms: int = 0
    tasks: int = 0
    undecided: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    failed: list[Verdict] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        self.runs += 1
        self.simulated_s += verdict.simulated_s
        self.core_s += verdict.real_s
        self.calls += verdict.calls
        self.acknowledged += verdict.acknowledged
        self.entries += verdict.entries
        self.messages += verdict.messages
        self.terms += verdict.terms
        self.tasks += verdict.tasks
        self.undecided += verdict.undecided
        for name, count in verdict.faults.items():
            self.faults[name] = self.faults.get(name, 0) + count
        if verdict.violations:
            self.failed.append(verdict)

    @property
    def speed(self) -> float:
        """Simulated seconds in a second of one core."""
        return self.simulated_s / self.core_s if self.core_s else 0.0


@dataclass
class Catch:
    """What became of a mutant: the seed that caught it, or none of those it was given."""

    mutant: Mutant
    seed: int | None
    runs: int
    violation: str = ""


Task = tuple[Any, ...]


def in_parallel(work: Callable[..., Any], tasks: Iterable[Task], jobs: int) -> Iterator[Any]:
    """What `work` makes of each task, as it comes. With one job it is done here."""
    if jobs == 1:
        for task in tasks:
            yield work(*task)
        return
    waiting = iter(tasks)
    with ProcessPoolExecutor(jobs, mp_context=get_context("forkserver"), max_tasks_per_child=200) as pool:
        under_way: set[Future[Any]] = {pool.submit(work, *task) for task in islice(waiting, 2 * jobs)}
        while under_way:
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            under_way |= {pool.submit(work, *task) for task in islice(waiting, len(done))}
            for future in done:
                yield future.result()


def run_stock(seed: int, profile: str) -> Verdict:
    return run(seed, profile, stock=True)


def run_seeds(
    seeds: Iterable[int], profile: str, jobs: int, on_verdict: Callable[[Summary], None], *, stock: bool = False
) -> Summary:
    summary = Summary()
    for verdict in in_parallel(run_stock if stock else run, ((seed, profile) for seed in seeds), jobs):
        summary.add(verdict)
        on_verdict(summary)
    summary.failed.sort(key=lambda verdict: verdict.seed)
    return summary


MISFITS = ("TypeError(", "AttributeError(", "NameError(")


def hunt(name: str, first_seed: int = 1) -> Catch:
    """Run seeds with the mutant, until one catches it, or it has had as many as it was said to need.

    It is caught by what it does: not by a run that the product fails too, nor because its code doesn't fit any more.
    """
    mutant = MUTANTS[name]
    seeds = range(first_seed, first_seed + mutant.seeds)
    for number, seed in enumerate(sorted(seeds, key=lambda seed: seed != mutant.likely)):
        verdict = run(seed, mutant.profile, name)
        if verdict.violations:
            violation = verdict.violations[0]
            assert not any(misfit in violation for misfit in MISFITS), f"{name} doesn't fit the product: {violation}"
            assert not run(verdict.seed, mutant.profile).violations, f"the product fails seed {verdict.seed} as well"
            return Catch(mutant, verdict.seed, number + 1, verdict.violations[0])
    return Catch(mutant, None, mutant.seeds)


def known_seeds() -> list[tuple[int, str]]:
    """Those that once failed, with their profiles: they are kept for ever."""
    lines = [line.split("#")[0].split() for line in SEEDS.read_text().splitlines()]
    return [(int(line[0]), line[1] if len(line) > 1 else "any") for line in lines if line]
