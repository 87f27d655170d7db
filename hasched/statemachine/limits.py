"""Limits: what quotas and caps leave free. Computed from the policies and what is held, and kept current with it.

A job counts in one quota of each tree, the most exact one: the deepest; of equals the one that names most. A task counts for
every cap that is about its job's name, user or tags, and holds units of the semaphores that its job takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from hasched.model.policy import Cap, CapSubject, Policy, Quota
from hasched.model.spec import Resources
from hasched.statemachine.quotas import (
    RUNNING_JOBS,
    QuotaNode,
    Share,
    amounts_of,
    covers,
    demand_of,
    exactness_of,
    share_out,
    total_demand,
)
from hasched.statemachine.running import Running, counted_for
from hasched.statemachine.weeks import WeekMeter

_REMEMBERED = 4096

AccountKey: TypeAlias = tuple[str, str]  # namespace, user
PartKey: TypeAlias = tuple[str, str, bool]  # of an account, the jobs of workflows or the others: what quotas tell apart


class Group(NamedTuple):
    """What quotas and caps tell tasks apart by."""

    namespace: str
    user: str
    in_workflow: bool
    name: str
    tags: tuple[str, ...] | None
    semaphores: tuple[tuple[str, int], ...] | None


class CapNode:
    """A cap, or what one name, user or tag has of a cap of each by itself."""

    __slots__ = ("cap", "key", "used", "value")

    def __init__(self, key: tuple[str, str], cap: Cap, value: str = "", used: int = 0) -> None:
        self.key = key  # the cap's name, and the value of a cap of each by itself
        self.cap = cap
        self.value = value  # the name, user, tag or semaphore whose tasks it counts
        self.used = used

    @property
    def units(self) -> int:
        return self.cap.units

    @property
    def subject(self) -> CapSubject:
        return self.cap.subject

    @property
    def title(self) -> str:
        name, value = self.key
        return f"cap {name}" + (f" of {value}" if value else "")


class Limits:
    """The trees of quotas, and the caps. Without any, nothing here costs anything."""

    def __init__(self, running: Running) -> None:
        self._running = running  # so caps know what of them is used when they are first asked for
        self.any_quotas = self.any_caps = False  # without any, nothing here costs anything
        self.weekly = False  # whether a quota counts by the week
        self.epoch = 0  # grows with every change of the policies
        self.version = 0  # grows with every change of what is used
        self.quotas: dict[tuple[str, str], QuotaNode] = {}
        self.caps: dict[tuple[str, str], CapNode] = {}
        self._policies: tuple[Mapping[str, Policy], Mapping[str, Policy]] = ({}, {})
        self._most_caps = _REMEMBERED
        self._each_user: list[tuple[str, Quota]] = []
        self._rules: dict[tuple[CapSubject, str], list[tuple[str, Cap]]] = {}  # of a subject and what they match
        self._by_account: dict[AccountKey, list[QuotaNode]] = {}  # that jobs may count in themselves; empty: any
        self._quotas_of: dict[PartKey, tuple[QuotaNode, ...]] = {}
        self._caps_of: dict[Group, tuple[tuple[CapNode, int], ...]] = {}

    def set_policies(self, quotas: Mapping[str, Policy], caps: Mapping[str, Policy]) -> None:
        """Start with these, and nothing used of the quotas."""
        self._policies = (dict(quotas), {})
        self.quotas, self._each_user, self._quotas_of, self._by_account = {}, [], {}, {}
        self.weekly = any(
            isinstance(quota, Quota) and quota.nominal.gpu_ms_per_week is not None for quota in quotas.values()
        )
        for name in sorted(quotas):
            self._plant(name, quotas)
        trees: dict[tuple[str, str], list[QuotaNode]] = {}
        for node in self.quotas.values():
            trees.setdefault(node.root.key, []).append(node)
            if not node.quota.cohort:
                self._by_account.setdefault((node.quota.namespace, node.quota.user), []).append(node)
        for tree in trees.values():
            share_out(tree)
        self.any_quotas = bool(quotas)
        self.set_caps(caps)

    def has_quotas(self, quotas: Mapping[str, Policy]) -> bool:
        """Whether it was told of just these."""
        return self._policies[0] == quotas

    def set_caps(self, caps: Mapping[str, Policy]) -> None:
        """Start with these caps; quotas are as they were."""
        self.epoch += 1
        self._policies = (self._policies[0], dict(caps))
        self.caps, self._rules, self._caps_of, self._most_caps = {}, {}, {}, _REMEMBERED
        self.any_caps = bool(caps)
        for name, cap in sorted(caps.items()):
            assert isinstance(cap, Cap), "these are the caps"
            match = name if cap.subject is CapSubject.SEMAPHORE else cap.match
            self._rules.setdefault((cap.subject, match), []).append((name, cap))

    def blank(self) -> Limits:
        """The same limits, with nothing used."""
        same = Limits(self._running)
        same.set_policies(*self._policies)
        return same

    def copy_use(self, other: Limits) -> None:
        """Of the same limits as these, and of the same state: what is used is as it is there. The meters are shared, so they must
        be left alone."""
        for key, node in self.quotas.items():
            if key not in other.quotas:
                for share in node.shares.values():
                    share.used = 0
        for key, theirs in other.quotas.items():
            mine = self.quotas.get(key) or self._grow(key, theirs.quota)
            mine.meter = theirs.meter
            for name, share in theirs.shares.items():
                mine.shares[name].used = share.used
        for cap in self.caps.values():
            cap.used = self._running.used(cap.cap, cap.subject, cap.value)

    def _grow(self, key: tuple[str, str], quota: Quota) -> QuotaNode:
        """What one user has of a quota of each user."""
        node = self.quotas[key] = QuotaNode(key, quota, None)
        node.shares = {each: Share(amount, None) for each, amount in amounts_of(quota.nominal).items()}
        return node

    def forget_idle(self, now_ms: int) -> None:
        """Of quotas of each user, leave out the users who use nothing of them, and have used nothing this week."""
        idle = [
            key
            for key, node in self.quotas.items()
            if node.quota.each_user
            and not any(share.used for share in node.shares.values())
            and node.meter.is_idle(now_ms)
        ]
        for key in idle:
            del self.quotas[key]
        self._quotas_of.clear()

    def _plant(self, name: str, quotas: Mapping[str, Policy]) -> QuotaNode:
        node = self.quotas.get((name, ""))
        quota = quotas[name]
        assert isinstance(quota, Quota), "these are the quotas"
        if quota.each_user:
            self._each_user.append((name, quota))
            return QuotaNode((name, ""), quota, None)
        if node is None:
            parent = self._plant(quota.parent, quotas) if quota.parent else None
            node = self.quotas[name, ""] = QuotaNode((name, ""), quota, parent)
        return node

    # ── Who counts where ────────────────────────────────────────────────────────────────────────────────────────────

    def quotas_of(self, part: PartKey) -> tuple[QuotaNode, ...]:
        """The quotas that such jobs of an account count in themselves, one of each tree."""
        found = self._quotas_of.get(part)
        if found is None:
            if len(self._quotas_of) >= _REMEMBERED:
                self._quotas_of.clear()
            found = self._quotas_of[part] = tuple(self._find_quotas(*part))
        return found

    def _find_quotas(self, namespace: str, user: str, in_workflow: bool) -> Iterator[QuotaNode]:
        best: dict[tuple[str, str], QuotaNode] = {}
        about = ((namespace, user), (namespace, ""), ("", user), ("", ""))
        for node in (node for key in dict.fromkeys(about) for node in self._by_account.get(key, ())):
            if not all(each.counts(namespace, user, in_workflow) for each in node.chain):
                continue
            root = node.root.key
            if root not in best or exactness_of(node) > exactness_of(best[root]):
                best[root] = node
        yield from best.values()
        for name, quota in self._each_user:
            if not covers(quota.scope, in_workflow) or quota.namespace not in ("", namespace):
                continue
            key = (name, user)
            yield self.quotas.get(key) or self._grow(key, quota)

    def caps_of(self, group: Group) -> tuple[tuple[CapNode, int], ...]:
        """The caps that a task of the group counts for, each with its units."""
        found = self._caps_of.get(group)
        if found is None:
            if len(self._caps_of) >= _REMEMBERED:
                self._caps_of.clear()
            if len(self.caps) >= self._most_caps:
                self._drop_unused_caps()  # never while a group's caps are being found: one found already would be lost
            found = self._caps_of[group] = tuple(self._find_caps(group))
        return found

    def _find_caps(self, group: Group) -> list[tuple[CapNode, int]]:
        """In the order of their names, and of the tags of the group."""
        found = [
            (name, cap, units)
            for subject, value, units in counted_for(group)
            for name, cap in self._caps_about(subject, value, group.namespace)
        ]
        found.sort(key=itemgetter(0))
        return [(cap, units) for _, cap, units in found]

    def _caps_about(self, subject: CapSubject, value: str, namespace: str) -> Iterator[tuple[str, CapNode]]:
        """With the names of their policies: those of this value, and those of each by itself."""
        for match in (value, "") if value else ("",):
            for name, cap in self._rules.get((subject, match), ()):
                if not cap.namespace or cap.namespace == namespace:
                    alone = match or subject is CapSubject.SEMAPHORE
                    yield name, self._cap((name, "" if alone else value), cap, value)

    def _cap(self, key: tuple[str, str], cap: Cap, value: str) -> CapNode:
        node = self.caps.get(key)
        if node is None:
            node = self.caps[key] = CapNode(key, cap, value, self._running.used(cap, cap.subject, value))
        return node

    def caps_in_use(self) -> list[CapNode]:
        """All caps, and of those of each by itself all of whom something runs, in the order of their keys."""
        found: dict[tuple[str, str], CapNode] = {}
        for (subject, match), rules in self._rules.items():
            for name, cap in rules:
                values = [match] if match else [value for of, value in self._running.subjects if of is subject]
                for value in values:
                    node = CapNode((name, "" if match else value), cap, value, self._running.used(cap, subject, value))
                    if match or node.used:
                        found[node.key] = node
        return [node for _, node in sorted(found.items())]

    def _drop_unused_caps(self) -> None:
        """A cap of each name by itself meets any number of names."""
        self._caps_of.clear()
        self.caps = {key: cap for key, cap in self.caps.items() if cap.used}
        self._most_caps = max(_REMEMBERED, 2 * len(self.caps))

    # ── What is used ────────────────────────────────────────────────────────────────────────────────────────────────

    def count(self, part: PartKey, dimension: str, amount: int) -> None:
        """So many more jobs or tasks run or wait."""
        self.version += 1
        for node in self.quotas_of(part):
            node.add(dimension, amount)

    def hold(self, group: Group, request: Resources, tasks: int) -> None:
        """Tasks start (or end, where negative) to hold what they ask for."""
        self.version += 1
        if self.any_quotas:
            for node in self.quotas_of(group[:3]):
                node.hold(request, tasks)
        if self.any_caps:
            for cap, units in self.caps_of(group):
                cap.used += units * tasks

    def meters_of(self, part: PartKey) -> Iterable[WeekMeter]:
        """Of all quotas that the GPU time of such jobs counts in."""
        for node in self.quotas_of(part):
            for each in node.chain:
                if each.week_limit is not None:
                    yield each.meter

    def room(self, group: Group, request: Resources, tasks: int, starts_job: bool, now_ms: int) -> int:
        """How many of so many tasks may start; `starts_job`: none of their job has."""
        room = tasks
        if self.any_quotas:
            for node in self.quotas_of(group[:3]):
                for dimension in node.shares:
                    amount = demand_of(request, dimension)
                    if dimension == RUNNING_JOBS and starts_job:
                        room = room if node.available(dimension) >= 1 else 0
                    elif amount:
                        room = min(room, node.available(dimension) // amount)
                if request.gpus and next(node.overspent_weeks(now_ms), None) is not None:
                    room = 0
        return self.room_of_caps(group, room)

    def room_of_caps(self, group: Group, tasks: int) -> int:
        """How many of so many tasks the caps let start."""
        if not (self.any_caps or group.semaphores):
            return max(tasks, 0)
        caps = self.caps_of(group)
        if any((name, "") not in [cap.key for cap, _ in caps] for name, _ in group.semaphores or ()):
            return 0  # a semaphore that isn't there
        return max(0, min([tasks, *((cap.units - cap.used) // units for cap, units in caps)]))

    def tightest(self, group: Group, request: Resources, starts_job: bool, now_ms: int) -> tuple[str, str, str]:
        """The limit that leaves the fewest tasks of a request, as a kind and a key: what has to be given back first."""
        found: list[tuple[int, tuple[str, str, str]]] = []
        for node in self.quotas_of(group[:3]) if self.any_quotas else ():
            if request.gpus:
                found += ((0, ("quota", *each.key)) for each in node.overspent_weeks(now_ms))
            for dimension in node.shares:
                amount = total_demand([(request, 1)], dimension, starts_job)
                if amount:
                    found.append((node.available(dimension) // amount, ("quota", *node.bottleneck(dimension).key)))
        for cap, units in self.caps_of(group):
            found.append(((cap.units - cap.used) // units, ("cap", *cap.key)))
        return min(found, default=(0, ("none", "", "")))[1]

    def fit(self, group: Group, wanted: Sequence[tuple[Resources, int]], starts_job: bool, now_ms: int) -> bool:
        """Whether so many tasks of each request may start, all of them at once."""
        for node in self.quotas_of(group[:3]) if self.any_quotas else ():
            for dimension in node.shares:
                amount = total_demand(wanted, dimension, starts_job)
                if amount and amount > node.available(dimension):
                    return False
            if any(request.gpus for request, _ in wanted) and next(node.overspent_weeks(now_ms), None) is not None:
                return False
        tasks = sum(times for _, times in wanted)
        return self.room_of_caps(group, tasks) >= tasks
