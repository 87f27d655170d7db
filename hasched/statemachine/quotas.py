"""Quotas: trees of what may be used, and what is.

The arithmetic is that of Kueue's cohorts (KEP-79, "Hierarchical Cohorts"): of what a quota has, itself and through its parts,
it keeps what it doesn't lend (`guaranteed`); the rest belongs to its parent, for any of the parts. Use beyond what is
guaranteed is use of the parent, and so on to the root. So no part ever uses what another hasn't lent, and adding or giving
back costs one step for each level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from hasched.model.policy import Amounts, Quota, QuotaScope
from hasched.model.spec import Resources
from hasched.statemachine.weeks import WeekMeter

RESOURCES = ("cpu_milli", "memory_bytes", "gpus", "disk_bytes")
RUNNING_TASKS = "running_tasks"
RUNNING_JOBS = "running_jobs"
QUEUED_TASKS = "queued_tasks"
QUEUED_JOBS = "queued_jobs"
GPU_WEEK = "gpu_ms_per_week"
COUNTABLE = "countables."
_SCOPED = {QuotaScope.ANY: "", QuotaScope.JOB: " (jobs of no workflow)", QuotaScope.WORKFLOW: " (workflows)"}
_COUNTS = (RUNNING_TASKS, RUNNING_JOBS, QUEUED_TASKS, QUEUED_JOBS)


class Share:
    """What a quota has of one dimension. `borrow` None: as much as is lent."""

    __slots__ = ("borrow", "guaranteed", "nominal", "subtree", "used")

    def __init__(self, nominal: int, borrow: int | None) -> None:
        self.nominal = nominal
        self.borrow = borrow
        self.subtree = nominal
        self.guaranteed = 0
        self.used = 0


class QuotaNode:
    """A quota, or with `user` what one user has of a quota of each user."""

    __slots__ = ("depth", "key", "meter", "parent", "quota", "shares", "week_limit")

    def __init__(self, key: tuple[str, str], quota: Quota, parent: QuotaNode | None) -> None:
        self.key = key  # the quota's name, and the user of one of each user
        self.quota = quota
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent is not None else 0
        self.shares: dict[str, Share] = {}
        self.week_limit = quota.nominal.gpu_ms_per_week
        self.meter = WeekMeter()

    @property
    def title(self) -> str:
        name, user = self.key
        return f"quota {name}" + _SCOPED[self.quota.scope] + (f" of user {user}" if user else "")

    @property
    def chain(self) -> Iterator[QuotaNode]:
        """This one, and those that it is a part of."""
        node: QuotaNode | None = self
        while node is not None:
            yield node
            node = node.parent

    @property
    def root(self) -> QuotaNode:
        node = self
        while node.parent is not None:
            node = node.parent
        return node

    def counts(self, namespace: str, user: str, in_workflow: bool) -> bool:
        """Whether such jobs are of those that it is about, its parents aside."""
        quota = self.quota
        if not covers(quota.scope, in_workflow):
            return False
        return (not quota.namespace or quota.namespace == namespace) and (not quota.user or quota.user == user)

    def add(self, dimension: str, amount: int) -> None:
        """Use so much more, or give it back where it is negative."""
        share = self.shares.get(dimension)
        if share is None or not amount:
            return
        before = max(0, share.used - share.guaranteed)
        share.used += amount
        after = max(0, share.used - share.guaranteed)
        if self.parent is not None and after != before:
            self.parent.add(dimension, after - before)

    def hold(self, request: Resources, tasks: int) -> None:
        for dimension in self.shares:
            if amount := demand_of(request, dimension):
                self.add(dimension, amount * tasks)

    def available(self, dimension: str) -> int:
        """How much more may be used here: what is its own, and what it may borrow. Negative where a limit was lowered."""
        share = self.shares[dimension]
        if self.parent is None:
            return share.subtree - share.used
        return max(0, share.guaranteed - share.used) + max(0, self._from_above(share, dimension))

    def _from_above(self, share: Share, dimension: str) -> int:
        assert self.parent is not None, "a root has nothing above"
        above = self.parent.available(dimension)
        if share.borrow is None:
            return above
        lent = share.subtree - share.guaranteed
        return min(above, lent - max(0, share.used - share.guaranteed) + share.borrow)

    def potential(self, dimension: str) -> int:
        """How much it could use if nobody else used anything."""
        share = self.shares[dimension]
        if self.parent is None:
            return share.subtree
        most = share.guaranteed + self.parent.potential(dimension)
        return most if share.borrow is None else min(most, share.subtree + share.borrow)

    def deficit(self, dimension: str, asked: int) -> int:
        """How much more the bottleneck would have to have for so much to be available here; nothing if it is."""
        share = self.shares[dimension]
        if self.parent is None:
            return max(0, asked - (share.subtree - share.used))
        rest = asked - max(0, share.guaranteed - share.used)
        if rest <= 0:
            return 0
        if self.bottleneck(dimension) is not self:
            return self.parent.deficit(dimension, rest)
        return max(0, rest - self._from_above(share, dimension))

    def bottleneck(self, dimension: str) -> QuotaNode:
        """Of its chain, the one whose use has to fall before more is available here."""
        share = self.shares[dimension]
        if self.parent is None or self._from_above(share, dimension) < self.parent.available(dimension):
            return self
        return self.parent.bottleneck(dimension)

    def overspent_weeks(self, now_ms: int) -> Iterator[QuotaNode]:
        """Those of its chain whose GPU time of this week is used up."""
        for node in self.chain:
            if node.week_limit is not None and node.meter.used(now_ms) >= node.week_limit:
                yield node


def covers(scope: QuotaScope, in_workflow: bool) -> bool:
    """Whether a quota of that scope counts jobs that belong to a workflow's execution, or those that don't."""
    return scope is QuotaScope.ANY or (scope is QuotaScope.WORKFLOW) is in_workflow


def demand_of(request: Resources, dimension: str) -> int:
    """How much of a dimension a task holds while it runs; jobs and what waits aside."""
    if dimension in RESOURCES:
        return int(getattr(request, dimension))
    if dimension == RUNNING_TASKS:
        return 1
    if dimension.startswith(COUNTABLE):
        name = dimension.removeprefix(COUNTABLE)
        return next((amount for each, amount in request.countables if each == name), 0)
    return 0


@lru_cache(maxsize=1024)
def amounts_of(amounts: Amounts) -> Mapping[str, int]:
    """What is limited, by dimension; the weekly GPU time aside."""
    given = {name: getattr(amounts, name) for name in (*RESOURCES, *_COUNTS)}
    found = {name: amount for name, amount in given.items() if amount is not None}
    return found | {COUNTABLE + name: amount for name, amount in amounts.countables}


def total_demand(wanted: Sequence[tuple[Resources, int]], dimension: str, starts_job: bool) -> int:
    """How much of a dimension so many tasks of each request take together."""
    if dimension == RUNNING_JOBS:
        return int(starts_job)
    return sum(demand_of(request, dimension) * times for request, times in wanted)


def share_out(tree: Sequence[QuotaNode]) -> None:
    """Sum up a tree: what any quota of it names is limited in all of it."""
    dimensions = sorted({name: None for node in tree for name in amounts_of(node.quota.nominal)})
    for node in tree:
        nominal, borrow = amounts_of(node.quota.nominal), amounts_of(node.quota.borrow_limit)
        node.shares = {name: Share(nominal.get(name, 0), borrow.get(name)) for name in dimensions}
    for node in sorted(tree, key=lambda node: -node.depth):
        lend = amounts_of(node.quota.lend_limit)
        for name, share in node.shares.items():
            if node.parent is not None:
                share.guaranteed = max(0, share.subtree - lend[name]) if name in lend else 0
                node.parent.shares[name].subtree += share.subtree - share.guaranteed


def exactness_of(node: QuotaNode) -> tuple[int, bool, bool, bool, str]:
    """Of several quotas of a tree that are about a job, it counts in the one where this is largest."""
    quota = node.quota
    return node.depth, bool(quota.user), bool(quota.namespace), quota.scope is not QuotaScope.ANY, node.key[0]
