"""What limits say of a job, as people read it: which one is short, by how much, and what the smallest change would be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from hasched.model.policy import Cap, CapSubject, PolicyKind
from hasched.model.spec import Resources
from hasched.model.units import HOUR_MS, format_bytes, format_cpu
from hasched.statemachine.limits import CapNode, Group, Limits
from hasched.statemachine.quotas import (
    COUNTABLE,
    GPU_WEEK,
    QUEUED_JOBS,
    QUEUED_TASKS,
    RUNNING_JOBS,
    QuotaNode,
    total_demand,
)
from hasched.statemachine.weeks import start_of_week, week_of

Wanted: TypeAlias = Sequence[tuple[Resources, int]]  # how many tasks of each request

_NOUNS = {
    "cpu_milli": "CPU",
    "memory_bytes": "memory",
    "gpus": "GPUs",
    "disk_bytes": "disk",
    "running_tasks": "running tasks",
    RUNNING_JOBS: "running jobs",
    QUEUED_TASKS: "queued tasks",
    QUEUED_JOBS: "queued jobs",
    GPU_WEEK: "GPU-hours a week",
}
_KEYS = {"cpu_milli": "cpu", "memory_bytes": "memory", "disk_bytes": "disk", GPU_WEEK: "gpu_hours_per_week"}


class Shortage(msgspec.Struct, frozen=True):
    """A limit that leaves too little. `limit` is what is there in all for whoever asks, `used` what of it is in use."""

    kind: PolicyKind  # quota or cap
    name: str
    title: str
    dimension: str  # of a quota
    asked: int
    used: int
    limit: int
    missing: int  # how much more it would have to be
    nominal: int = 0  # what its policy says
    until_ms: int = 0  # when it is over by itself
    semaphore: bool = False
    never: bool = False  # not even if nobody used any of it

    @property
    def key(self) -> str:
        """Where the limit stands in the policy's document."""
        return "units" if self.kind is PolicyKind.CAP else f"limits.{key_of(self.dimension)}"

    @property
    def raised(self) -> int | str:
        """What would have to stand there for one more task to start, as a document has it."""
        wanted = self.nominal + self.missing
        if self.dimension == GPU_WEEK:
            return -(-wanted // HOUR_MS)
        shown = self.amount(wanted)
        return int(shown) if shown.isdigit() else shown

    @property
    def noun(self) -> str:
        if self.kind is PolicyKind.CAP:
            return "units" if self.semaphore else "running tasks"
        return _NOUNS.get(self.dimension) or self.dimension.removeprefix(COUNTABLE)

    def amount(self, number: int) -> str:
        """A number of the dimension as people write it."""
        match self.dimension:
            case "cpu_milli":
                return format_cpu(number)
            case "memory_bytes" | "disk_bytes":
                return format_bytes(number)
            case "gpu_ms_per_week":
                return f"{number / HOUR_MS:.1f}".removesuffix(".0")
            case _:
                return str(number)

    @property
    def text(self) -> str:
        """The whole of it in a sentence."""
        used, limit = self.amount(self.used), self.amount(self.limit)
        if self.dimension == GPU_WEEK:
            return f"{self.title}: {used} of {limit} {self.noun} are used"
        asked, missing = self.amount(self.asked), self.amount(self.missing)
        noun = self.noun.removesuffix("s") if asked == "1" else self.noun
        text = f"{self.title}: {asked} {noun} asked for, {used} of {limit} in use, {missing} too little"
        return f"{text}; it could never start" if self.never else text


def key_of(dimension: str) -> str:
    """A dimension as documents call it."""
    return _KEYS.get(dimension, dimension)


def find_shortages(limits: Limits, group: Group, wanted: Wanted, starts_job: bool, now_ms: int) -> Iterator[Shortage]:
    """Everything that keeps so many tasks of the group from starting now, all at once."""
    tasks = sum(times for _, times in wanted)
    if limits.any_quotas:
        for node in limits.quotas_of(group[:3]):
            for dimension in node.shares:
                asked = total_demand(wanted, dimension, starts_job)
                if asked and asked > node.available(dimension):
                    yield _short_of_quota(node, dimension, asked)
            if any(request.gpus for request, _ in wanted):
                yield from (_short_of_week(spent, now_ms) for spent in node.overspent_weeks(now_ms))
    caps = limits.caps_of(group)
    for cap, units in caps:
        if cap.used + units * tasks > cap.units:
            yield _short_of_cap(cap, units * tasks, (cap.key[0], units) in (group.semaphores or ()))
    known = [cap.key for cap, _ in caps]
    for name, units in group.semaphores or ():
        if (name, "") not in known:
            yield _short_of_cap(CapNode((name, ""), Cap(units=0)), units * tasks, True)


def _short_of_quota(node: QuotaNode, dimension: str, asked: int) -> Shortage:
    """What is short is the one of the chain whose use has to fall; its numbers tell."""
    short = node.bottleneck(dimension)
    share = short.shares[dimension]
    limit = share.subtree if short.parent is None else share.subtree + (share.borrow or 0)
    return Shortage(
        kind=PolicyKind.QUOTA,
        name=short.key[0],
        title=short.title,
        dimension=dimension,
        asked=asked,
        used=share.used,
        limit=limit,
        missing=node.deficit(dimension, asked),
        nominal=share.nominal,
        never=asked > node.potential(dimension),
    )


def _short_of_week(spent: QuotaNode, now_ms: int) -> Shortage:
    used, limit = spent.meter.used(now_ms), spent.week_limit or 0
    return Shortage(
        kind=PolicyKind.QUOTA,
        name=spent.key[0],
        title=spent.title,
        dimension=GPU_WEEK,
        asked=0,
        used=used,
        limit=limit,
        missing=used - limit + 1,
        nominal=limit,
        until_ms=start_of_week(week_of(now_ms) + 1),
    )


def _short_of_cap(cap: CapNode, units: int, semaphore: bool) -> Shortage:
    return Shortage(
        kind=PolicyKind.CAP,
        name=cap.key[0],
        title=f"semaphore {cap.key[0]}" if semaphore else cap.title,
        dimension="",
        asked=units,
        used=cap.used,
        limit=cap.units,
        missing=cap.used + units - cap.units,
        nominal=cap.units,
        semaphore=semaphore,
        never=units > cap.units,
    )


def find_refusal(
    limits: Limits, group: Group, options: Sequence[Wanted], count: int, caps: Mapping[str, Cap]
) -> Shortage | str:
    """Why a job can't be taken in: it could never start, or too much waits already. Empty if it can.

    `options` are what has to start at once, by each alternative, one of which must be possible. `caps` are the semaphores.
    """
    together = min(sum(times for _, times in wanted) for wanted in options)
    for name, units in group.semaphores or ():
        cap = caps.get(name)
        if cap is None or cap.subject is not CapSubject.SEMAPHORE or cap.namespace not in ("", group.namespace):
            return f"there is no semaphore {name}"
        if units * together > cap.units:
            return _short_of_cap(CapNode((name, ""), cap), units * together, True)
    for counted, units in limits.caps_of(group) if limits.any_caps else ():
        if units * together > counted.units:
            return _short_of_cap(CapNode(counted.key, counted.cap), units * together, False)
    if not limits.any_quotas:
        return ""
    quotas = limits.quotas_of(group[:3])
    for node in quotas:
        for dimension, more in ((QUEUED_JOBS, 1), (QUEUED_TASKS, count)):
            if dimension in node.shares and more > node.available(dimension):
                return _short_of_quota(node, dimension, more)
    never: Shortage | None = None
    for wanted in options:
        short = next((found for node in quotas if (found := _never(node, wanted)) is not None), None)
        if short is None:
            return ""
        never = never or short
    return never or ""


def _never(node: QuotaNode, wanted: Wanted) -> Shortage | None:
    """What such tasks could not get of a quota even if nobody used any of it."""
    for dimension, share in node.shares.items():
        asked, most = total_demand(wanted, dimension, True), node.potential(dimension)
        if asked > most:
            return Shortage(
                kind=PolicyKind.QUOTA,
                name=node.key[0],
                title=node.title,
                dimension=dimension,
                asked=asked,
                used=0,
                limit=most,
                missing=asked - most,
                nominal=share.nominal,
                never=True,
            )
    if any(request.gpus for request, _ in wanted):
        return next((_short_of_week(each, 0) for each in node.chain if each.week_limit == 0), None)
    return None
