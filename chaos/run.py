"""One run: clients work, faults come and go, everything heals, and a judge looks at what was recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import msgspec

from chaos import final, judge, planning, settle, strikes
from chaos.cluster.base import Cluster
from chaos.nemeses.base import Nemesis
from chaos.observer import Observer
from chaos.record import Record, Struck
from chaos.report.document import HELD, UNDECIDED, Verdict
from chaos.workloads.base import Workload
from chaos.workloads.desk import Desk
from hasched.model.errors import BadRequest

READY_S = 90.0
CALM_S = 2.0  # of work without faults, before and after them
HEAL_S = 90.0  # within which the cluster must be whole again after the last fault: liveness
DRAIN_S = 240.0
HOPELESS_S = 20.0  # where the cluster did not get whole: it may still say what is left

Tell = Callable[[str], None]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done to a cluster."""

    seed: int
    seconds: float  # of faults
    nemeses: Sequence[Nemesis]
    workloads: Sequence[Workload]


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    record: Record
    verdicts: list[Verdict]
    left_out: list[str]


async def run(cluster: Cluster, work: Work, tell: Tell) -> Ran:
    """Raises BadRequest if there is nothing to strike with, Unsettled if the cluster isn't whole before the first fault."""
    record = Record()
    nemeses, left_out = planning.usable(work.nemeses, cluster)
    plan = planning.draw(work.seed, nemeses, work.seconds)
    if not nemeses:
        reasons = "; ".join(planning.grouped(left_out)) or "every one that was named was also left out"
        raise BadRequest(f"there is nothing to strike with: {reasons}", "choose others: see `hasched chaos list`")
    if not plan:
        raise BadRequest(
            f"none of {len(nemeses)} nemeses is over within {work.seconds:.0f} s",
            "give more --minutes, or shorter ones",
        )
    with record.phase("set-up"):
        tell("waiting until the cluster is whole")
        await settle.ready(cluster, READY_S)
    async with Observer(cluster, record):
        async with _Clients(cluster, work, record):
            with record.phase("faults"):
                tell(f"{len(plan)} strikes of {len(nemeses)} nemeses in {work.seconds:.0f} s")
                await asyncio.sleep(CALM_S)
                by_name = {each.name: each for each in nemeses}
                await strikes.carry_out(plan, by_name, cluster, record, over=asyncio.Event(), told=_teller(tell))
            with record.phase("healing"):
                tell("no more faults: waiting until the cluster is whole again")
                settled = await settle.whole(cluster, HEAL_S)
                await asyncio.sleep(CALM_S)
        with record.phase("draining"):
            tell("waiting until every job has ended")
            unfinished = await settle.drained(cluster, record, HOPELESS_S if settled.obstacles else DRAIN_S)
    with record.phase("verdict"):
        tell("reading what the cluster says, and judging")
        found = await final.collect(cluster, record)
        verdicts = doubt_idle(record, judge.judge(record, found, settled, unfinished))
    return Ran(record=record, verdicts=verdicts, left_out=left_out)


def doubt_idle(record: Record, verdicts: list[Verdict]) -> list[Verdict]:
    """A run in which no strike came off says nothing about how the cluster gets well."""
    if any(each.outcome == "done" for each in record.strikes):
        return verdicts
    why = f"nothing was struck: of {len(record.strikes)} strikes all were skipped, or failed by themselves"
    return [
        msgspec.structs.replace(each, verdict=UNDECIDED, undecided=[*each.undecided, why])
        if each.name == "liveness" and each.verdict == HELD
        else each
        for each in verdicts
    ]


class _Clients:
    """All clients of all workloads, at work while this is entered."""

    def __init__(self, cluster: Cluster, work: Work, record: Record) -> None:
        self._cluster = cluster
        self._work = work
        self._record = record
        self._over = asyncio.Event()
        self._desks = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> _Clients:
        for workload in self._work.workloads:
            for number in range(1, workload.clients + 1):
                name = f"{workload.name}-{number}"
                desk = Desk(name, self._cluster, self._record, f"{self._work.seed} {name}", self._over)
                await self._desks.enter_async_context(desk)
                self._tasks.append(asyncio.create_task(workload.run(desk), name=name))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._desks.aclose()
        for task, error in zip(self._tasks, ended, strict=True):
            if isinstance(error, Exception):
                self._record.note(f"the client {task.get_name()} ended by {type(error).__name__}: {error}")
                if kind is None:
                    raise error


def _teller(tell: Tell) -> strikes.Told:
    def told(struck: Struck) -> None:
        whom = f" {', '.join(struck.targets)}" if struck.targets else ""
        why = " ".join(struck.notes[-1:]).strip().splitlines()[-1:]  # one that is cancelled says none
        more = "" if struck.outcome == "done" else f": {', '.join([struck.outcome, *why])}"
        tell(f"{struck.nemesis}{whom} ({struck.until_s - struck.at_s:.1f} s){more}")

    return told
