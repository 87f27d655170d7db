"""The longest slice of the planner for each kind of job that is more than tasks by themselves: gangs, relations, shares.

Every kind has a cluster of its own, on which a million tasks of a lower priority wait. Its jobs come while the cluster is
empty, and again while it is full and tasks end one after another. A slice is one call of the planner, to plan or to take in
what was applied: for so long nobody else has the leader's loop. Time is the processor's, as in `scheduling.py`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks.scheduling import GIB, LARGEST, Bench
from hasched.manager.planning import SLICE_UNITS
from hasched.model.policy import FairShare, PolicyKind
from hasched.model.spec import JobAffinity, JobSelector, JobSpec, PlacementRules, Resources, Spread, TaskGroup
from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded
from hasched.scheduler.explain import Known, explain_waiting
from hasched.statemachine.commands import Command, PutPolicy, ReportAttempts, SubmitJob

URGENT = 1_000  # their priority, above all others
MOST_SLICES = 3_000  # of a part
ENDS = 300  # tasks that end on the full cluster, each an entry of its own
QUESTIONS = 10  # to why jobs of the kind wait
USERS = 5_000

Rules = tuple[JobAffinity | Spread, ...]


class Longest(NamedTuple):
    """In ms: of planning on the empty cluster, on the full one, of taking in what was applied; and of an answer to why."""

    empty_ms: float
    full_ms: float
    observe_ms: float
    why_ms: float


class Stage(Bench):
    """A cluster with its work, and a clock on each call of its planner."""

    observe_ms = 0.0

    def play(self, commands: Iterator[Command], done: Callable[[], bool]) -> float:
        """Apply these, then plan and decide until it is done or nothing is left to look at: the longest slice, in ms."""
        longest = 0.0
        self.see(*commands)
        for _ in range(MOST_SLICES):
            if done() or not self.planner.ready:
                break
            begun = time.thread_time()
            plan = self.planner.plan(self.state, SLICE_UNITS)
            longest = max(longest, time.thread_time() - begun)
            if plan is not None:
                self.see(plan)
                begun = time.thread_time()
                self.planner.settle(self.state, plan)
                self._note(begun)
        return longest * 1000

    def see(self, *commands: Command) -> None:
        for command in commands:
            applied = self._do([command])
            begun = time.thread_time()
            self.planner.observe(self.state, applied)
            self._note(begun)

    def _note(self, begun: float) -> None:
        self.observe_ms = max(self.observe_ms, (time.thread_time() - begun) * 1000)

    def end_one(self) -> Command:
        """Some task of those that run, on some node, ends."""
        while True:
            node = self.state.nodes[f"n{self._chance.randrange(len(self.state.nodes))}"]
            if node.attempts:
                (job_id, index), attempt = next(iter(node.attempts.items()))
                ended = AttemptEnded(job_id, index, attempt, self._now_ms, self._now_ms, EndKind.EXITED)
                self._now_ms += 20
                return ReportAttempts(node_id=node.id, reports=(ended,))


Kind = Callable[[str], Iterator[JobSpec]]


def _job(name: str, count: int, **fields: object) -> JobSpec:
    resources = fields.pop("resources", Resources(cpu_milli=4_000, memory_bytes=8 * GIB))
    return JobSpec(name=name, command=("true",), count=count, priority=URGENT, resources=resources, **fields)


def gang(size: int, jobs: int) -> Kind:
    """Each task wants a node's GPUs, all of them."""
    whole = Resources(cpu_milli=8_000, memory_bytes=16 * GIB, gpus=8)
    return lambda name: (_job(name, size, gang=True, resources=whole) for _ in range(jobs))


def groups(name: str) -> Iterator[JobSpec]:
    """A driver, servers and workers, of whom each asks for something else."""
    parts = (
        TaskGroup("driver", 1, Resources(cpu_milli=8_000, memory_bytes=16 * GIB)),
        TaskGroup("server", 31, Resources(cpu_milli=4_000, memory_bytes=16 * GIB)),
        TaskGroup("worker", 224, Resources(cpu_milli=2_000, memory_bytes=8 * GIB, gpus=1)),
    )
    for _ in range(4):
        yield _job(name, 256, gang=True, groups=parts, resources=parts[0].resources)


def elastic(name: str) -> Iterator[JobSpec]:
    for _ in range(4):
        yield _job(name, 2_000, min_count=256)


def related(*rules: JobAffinity | Spread, near: bool = False, count: int = 400, jobs: int = 8) -> Kind:
    """Arrays whose tasks keep to the rules, each a shape of its own."""
    spread = tuple(rule for rule in rules if isinstance(rule, Spread))
    others = tuple(rule for rule in rules if isinstance(rule, JobAffinity))
    placement = PlacementRules(
        near=others if near else (), apart=() if near else others, spread=spread, pools=("default",)
    )
    return lambda name: (_job(name, count, placement=placement, labels={"app": name}) for _ in range(jobs))


BENCH = JobSelector("bench")  # the jobs that fill the cluster
ITSELF = JobSelector()
KINDS: dict[str, Kind] = {
    **{f"gang_{size}": gang(size, max(2, 512 // size)) for size in (8, 64, 256, 1024)},
    "gang_groups": groups,
    "elastic": elastic,
    "apart_nodes": related(JobAffinity(ITSELF)),
    "apart_racks": related(JobAffinity(ITSELF, "rack"), jobs=40),
    "apart_wish": related(JobAffinity(ITSELF, "rack", 50)),
    "apart_others": related(JobAffinity(BENCH, "rack", 0)),
    "near_rack": related(JobAffinity(ITSELF, "rack"), near=True),
    "near_wish": related(JobAffinity(BENCH, "rack", 50), near=True),
    "near_wish_nodes": related(JobAffinity(BENCH, "", 50), near=True),
    "spread_nodes": related(Spread()),
    "spread_racks": related(Spread("rack")),
    "spread_zones": related(Spread("zone"), Spread("rack", 1, 50)),
    "relations_1000": related(Spread("rack"), JobAffinity(ITSELF), count=4, jobs=1_000),
}


def measure(kind: Kind, nodes: int, tasks: int) -> Longest:
    stage = Stage(nodes, tasks)
    gc.disable()  # a full collection takes 50 ms with so much state, now and then, and is no slice's doing
    empty_ms = stage.play(_submit(kind, "first"), lambda: not _waiting(stage, "first"))
    stage.play(iter(()), lambda: False)
    full_ms = stage.play(_submit(kind, "second"), lambda: False)
    for _ in range(ENDS):
        full_ms = max(full_ms, stage.play(iter([stage.end_one()]), lambda: False))
    return Longest(empty_ms, full_ms, stage.observe_ms, _why_ms(stage, "second"))


def _submit(kind: Kind, name: str) -> Iterator[Command]:
    for number, spec in enumerate(kind(name)):
        yield SubmitJob(submission_id=f"{name}-{number}", actor="bench", spec=spec)


def _waiting(stage: Stage, name: str) -> bool:
    return any(job.eligible for job in reversed(stage.state.jobs.values()) if job.name == name)


def _why_ms(stage: Stage, name: str) -> float:
    waiting = [job for job in stage.state.jobs.values() if job.name == name and job.eligible][:QUESTIONS]
    longest = 0.0
    known = Known(stage.planner.held_nodes, stage.state.nodes, stage.planner.kept)
    stage.classes.members(stage.state)  # in slices, before the answer; `why_first_ms` of the other bench has that
    for job in waiting:
        begun = time.thread_time()
        explain_waiting(stage.state, job, stage.classes, known)
        longest = max(longest, time.thread_time() - begun)
    return longest * 1000


def fair_share(nodes: int, tasks: int) -> Longest:
    """As many classes as users, whose shares move while tasks start and end."""
    stage = Stage(nodes, tasks)
    gc.disable()
    policy = PutPolicy(kind=PolicyKind.FAIR_SHARE, name="default", body=FairShare(half_life_ms=60_000), actor="bench")
    users = USERS * nodes // LARGEST["nodes"]
    empty_ms = stage.play(iter([policy]), lambda: False)
    for number in range(users):
        spec = _job("share", 100, resources=Resources(cpu_milli=500 * (1 + number % 8)))
        stage.see(SubmitJob(submission_id=f"u{number}", actor=f"user{number}", spec=spec))
    full_ms = stage.play(iter(()), lambda: False)
    for _ in range(3 * ENDS):
        full_ms = max(full_ms, stage.play(iter([stage.end_one()]), lambda: False))
    return Longest(empty_ms, full_ms, stage.observe_ms, _why_ms(stage, "share"))


def figures(scale: int = 1) -> dict[str, object]:
    """For each kind of job the longest slice of each sort, and the slowest answer to why, in ms."""
    nodes, tasks = (size // scale for size in LARGEST.values())
    results: dict[str, object] = {"nodes": nodes, "tasks": tasks}
    for name in (*KINDS, "fair_share"):
        found = measure(KINDS[name], nodes, tasks) if name in KINDS else fair_share(nodes, tasks)
        results[name] = found._asdict()
        gc.enable()
        gc.unfreeze()
    return results
