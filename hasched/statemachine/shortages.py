"""What limits say of a job, as people read it: which one is short, by how much, and what the smallest change would be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from hasched.model.policy import Cap, CapSubject, PolicyKind
from hasched.model.spec import Resources
from hasched.model.units import HOUR_MS, format_bytes, format_cpu
from hasched.statemachine.limits import (
    COUNTABLE,
    GPU_WEEK,
    QUEUED_JOBS,
    QUEUED_TASKS,
    RUNNING_JOBS,
    Group,
    Limits,
    QuotaNode,
    demand_of,
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
    until_ms: int = 0  # when it is over by itself
    semaphore: bool = False

    @property
    def missing(self) -> int:
        """How much more it would have to be."""
        return max(1, self.asked + self.used - self.limit)

    @property
    def key(self) -> str:
        """Where the limit stands in the policy's document."""
        return "units" if self.kind is PolicyKind.CAP else f"limits.{_KEYS.get(self.dimension, self.dimension)}"

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
        missing = self.amount(self.missing)
        return f"{self.title}: {self.amount(self.asked)} {self.noun} asked for, {used} of {limit} in use, {missing} too little"


def find_shortages(
    limits: Limits, group: Group, request: Resources, starts_job: bool, now_ms: int
) -> Iterator[Shortage]:
    """Everything that keeps one more task of the group from starting now."""
    if limits.any_quotas:
        for node in limits.quotas_of(group[:2]):
            yield from _short_of_quota(node, request, starts_job, now_ms)
    if limits.any_caps or group.semaphores:
        caps = limits.caps_of(group)
        for cap, units in caps:
            if cap.used + units > cap.units:
                semaphore = (cap.key[0], units) in (group.semaphores or ())
                title = f"semaphore {cap.key[0]}" if semaphore else cap.title
                yield Shortage(PolicyKind.CAP, cap.key[0], title, "", units, cap.used, cap.units, semaphore=semaphore)
        known = [cap.key for cap, _ in caps]
        for name, units in group.semaphores or ():
            if (name, "") not in known:
                yield Shortage(PolicyKind.CAP, name, f"semaphore {name}", "", units, 0, 0, semaphore=True)


def _short_of_quota(node: QuotaNode, request: Resources, starts_job: bool, now_ms: int) -> Iterator[Shortage]:
    for dimension in node.shares:
        asked = 1 if dimension == RUNNING_JOBS and starts_job else demand_of(request, dimension)
        if asked and asked > node.available(dimension):
            yield _shortage(node, dimension, asked)
    if request.gpus:
        for spent in node.overspent_weeks(now_ms):
            used, until_ms = spent.meter.used(now_ms), start_of_week(week_of(now_ms) + 1)
            limit = spent.week_limit or 0
            yield Shortage(PolicyKind.QUOTA, spent.key[0], spent.title, GPU_WEEK, 0, used, limit, until_ms)


def _shortage(node: QuotaNode, dimension: str, asked: int) -> Shortage:
    """What is short is the one of the chain whose use has to fall; its numbers tell."""
    short = node.bottleneck(dimension)
    share = short.shares[dimension]
    limit = share.subtree if short.parent is None else share.subtree + (share.borrow or 0)
    return Shortage(PolicyKind.QUOTA, short.key[0], short.title, dimension, asked, share.used, limit)


def find_refusal(
    limits: Limits, group: Group, options: Sequence[Wanted], count: int, caps: Mapping[str, Cap]
) -> Shortage | str:
    """Why a job can't be taken in: it could never start, or too much waits already. Empty if it can.

    `options` are what has to start at once, of which one must be possible. `caps` are the semaphores.
    """
    together = min(sum(times for _, times in wanted) for wanted in options)
    for name, units in group.semaphores or ():
        cap = caps.get(name)
        if cap is None or cap.subject is not CapSubject.SEMAPHORE or cap.namespace not in ("", group.namespace):
            return f"there is no semaphore {name}"
        if units * together > cap.units:
            title = f"semaphore {name}"
            return Shortage(PolicyKind.CAP, name, title, "", units * together, 0, cap.units, semaphore=True)
    if not limits.any_quotas:
        return ""
    for node in limits.quotas_of(group[:2]):
        for dimension, more in ((QUEUED_JOBS, 1), (QUEUED_TASKS, count)):
            if dimension in node.shares and more > node.available(dimension):
                return _shortage(node, dimension, more)
        impossible = [_never(node, wanted) for wanted in options]
        if all(impossible):
            first = impossible[0]
            assert first is not None, "all of them are something"
            return first
    return ""


def _never(node: QuotaNode, wanted: Wanted) -> Shortage | None:
    """What such tasks could not get of a quota even if nobody used any of it."""
    for dimension in node.shares:
        asked, most = total_demand(wanted, dimension, True), node.potential(dimension)
        if asked > most:
            return Shortage(PolicyKind.QUOTA, node.key[0], node.title, dimension, asked, 0, most)
    if any(request.gpus for request, _ in wanted) and any(each.week_limit == 0 for each in node.chain):
        return Shortage(PolicyKind.QUOTA, node.key[0], node.title, GPU_WEEK, 0, 0, 0)
    return None
