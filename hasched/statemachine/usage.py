"""Usage: what each account holds and has waiting, and what it has used, week by week.

What is held follows from jobs and policies: it is left out of snapshots, counted with every change, and counted anew when a
state is restored (`take_in`). What was used follows from nothing that is kept, so the ledger is part of the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TypeAlias

import msgspec

from hasched.model.notices import NotifyRule
from hasched.model.policy import Policy
from hasched.model.spec import Resources
from hasched.model.states import TaskState
from hasched.model.units import GIB, MAX_INTEGER
from hasched.statemachine.job import Job
from hasched.statemachine.limits import AccountKey, Group, Limits, PartKey
from hasched.statemachine.quotas import COUNTABLE, QUEUED_JOBS, QUEUED_TASKS, RUNNING_JOBS
from hasched.statemachine.running import Running
from hasched.statemachine.weeks import WeekMeter, split_by_week, week_of

KEPT_WEEKS = 27  # half a year
USE_KEPT_SINCE = 2  # the version of entries; before, nobody asked what was used

AccountSums: TypeAlias = tuple[tuple[int, int, int, int], tuple[int, int, int, int], tuple[tuple[str, int], ...]]


class WeekUse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the attempts of an account have used in a week: amounts x ms held, and CPU time as measured.

    Memory and disk are in GiB, rounded down for each attempt: bytes x ms would outgrow what a snapshot can hold.
    """

    attempts: int = 0  # that have ended
    cpu_milli_ms: int = 0
    memory_gib_ms: int = 0
    gpu_ms: int = 0
    disk_gib_ms: int = 0
    cpu_ms: int = 0
    cost_micro: int = 0

    def plus(self, other: WeekUse) -> WeekUse:
        return WeekUse(
            min(self.attempts + other.attempts, MAX_INTEGER),
            min(self.cpu_milli_ms + other.cpu_milli_ms, MAX_INTEGER),
            min(self.memory_gib_ms + other.memory_gib_ms, MAX_INTEGER),
            min(self.gpu_ms + other.gpu_ms, MAX_INTEGER),
            min(self.disk_gib_ms + other.disk_gib_ms, MAX_INTEGER),
            min(self.cpu_ms + other.cpu_ms, MAX_INTEGER),
            min(self.cost_micro + other.cost_micro, MAX_INTEGER),
        )


NO_USE = WeekUse()


class LedgerLine(msgspec.Struct, frozen=True, array_like=True):
    """An account's use of a week, as snapshots have it."""

    namespace: str
    user: str
    week: int
    use: WeekUse


class WorkflowWeek(msgspec.Struct, frozen=True, array_like=True):
    """The GPU time of the week that it is which an account's workflows have used, as snapshots have it."""

    namespace: str
    user: str
    gpu_ms: int


class Account:
    """What the jobs of a user in a namespace hold, and have waiting."""

    __slots__ = (
        "countables",
        "cpu_milli",
        "disk_bytes",
        "gpus",
        "memory_bytes",
        "meter",
        "queued_jobs",
        "queued_tasks",
        "running_jobs",
        "running_tasks",
    )

    def __init__(self) -> None:
        self.queued_jobs = self.running_jobs = self.queued_tasks = self.running_tasks = 0
        self.cpu_milli = self.memory_bytes = self.gpus = self.disk_bytes = 0
        self.countables: dict[str, int] = {}
        self.meter = WeekMeter()  # of its GPUs

    @property
    def live(self) -> bool:
        """Whether a job of it has not ended."""
        return bool(self.queued_jobs or self.running_jobs)

    def is_idle(self, now_ms: int) -> bool:
        """Whether it is as if it had never been: none of its jobs is there, and no quota counts what it used this week."""
        return not self.live and self.meter.is_idle(now_ms)

    def sums(self) -> AccountSums:
        """Everything, to be compared."""
        held = tuple((name, amount) for name, amount in sorted(self.countables.items()) if amount)
        counts = (self.queued_jobs, self.running_jobs, self.queued_tasks, self.running_tasks)
        return counts, (self.cpu_milli, self.memory_bytes, self.gpus, self.disk_bytes), held

    def hold(self, request: Resources, tasks: int) -> None:
        self.running_tasks += tasks
        self.cpu_milli += request.cpu_milli * tasks
        self.memory_bytes += request.memory_bytes * tasks
        self.gpus += request.gpus * tasks
        self.disk_bytes += request.disk_bytes * tasks
        for name, amount in request.countables:
            self.countables[name] = self.countables.get(name, 0) + amount * tasks

    def amount(self, dimension: str) -> int:
        """What it holds or has waiting of a dimension that quotas count."""
        if dimension.startswith(COUNTABLE):
            return self.countables.get(dimension.removeprefix(COUNTABLE), 0)
        return int(getattr(self, dimension))


ToldOf: TypeAlias = dict[str, dict[str, int]]  # how many name a target of notifications, by that and their namespaces


def told_of(rule: NotifyRule | None, namespace: str) -> Iterator[tuple[str, str]]:
    return ((target, namespace) for target in (rule.targets if rule is not None else ()))


def count_told(table: ToldOf, told: Iterable[tuple[str, str]], number: int) -> None:
    """So many more name these targets, each for what happens in a namespace."""
    for target, namespace in told:
        namespaces = table.setdefault(target, {})
        namespaces[namespace] = namespaces.get(namespace, 0) + number
        if not namespaces[namespace]:
            del namespaces[namespace]
        if not namespaces:
            del table[target]


class Usage:
    def __init__(self) -> None:
        self.accounts: dict[AccountKey, Account] = {}
        self.of_workflows: dict[AccountKey, Account] = {}  # the part of them that executions of workflows have made
        self.queues: dict[str, int] = {}  # running tasks
        self.running: dict[str, dict[int, None]] = {}  # jobs that hold something, by namespace
        self.semaphore_jobs: dict[str, int] = {}  # jobs that have not ended, by the semaphores that they take
        self.told_jobs: ToldOf = {}  # likewise
        self.what_runs = Running()
        self.limits = Limits(self.what_runs)
        self.ledger: dict[AccountKey, dict[int, WeekUse]] = {}
        self.latest_week = 0  # in the ledger

    def account(self, key: AccountKey) -> Account:
        account = self.accounts.get(key)
        if account is None:
            account = self.accounts[key] = Account()
        return account

    def _counting(self, job: Job) -> tuple[Account, ...]:
        """What a job counts in: its account, and the part of it that is of workflows."""
        key = (job.namespace, job.actor)
        if not job.in_workflow:
            return (self.account(key),)
        part = self.of_workflows.get(key)
        if part is None:
            part = self.of_workflows[key] = Account()
        return self.account(key), part

    # ── What happens to jobs and tasks ──────────────────────────────────────────────────────────────────────────────

    def submit(self, job: Job) -> None:
        self._count_jobs(job, QUEUED_JOBS, 1)
        self.wait(job, job.count)
        for name, _ in job.semaphores or ():
            self.semaphore_jobs[name] = self.semaphore_jobs.get(name, 0) + 1
        count_told(self.told_jobs, told_of(job.notify, job.namespace), 1)

    def wait(self, job: Job, tasks: int) -> None:
        """So many more tasks of the job wait; fewer where negative."""
        if tasks:
            for account in self._counting(job):
                account.queued_tasks += tasks
            if self.limits.any_quotas:
                self.limits.count(job.counted_as, QUEUED_TASKS, tasks)

    def start_job(self, job: Job) -> None:
        """It held nothing until now."""
        self._count_jobs(job, QUEUED_JOBS, -1)
        self._count_jobs(job, RUNNING_JOBS, 1)
        self.running.setdefault(job.namespace, {})[job.id] = None

    def stop_job(self, job: Job) -> None:
        """It holds nothing any more."""
        self._count_jobs(job, RUNNING_JOBS, -1)
        self._count_jobs(job, QUEUED_JOBS, 1)
        running = self.running[job.namespace]
        del running[job.id]
        if not running:
            del self.running[job.namespace]

    def finish(self, job: Job, now_ms: int) -> None:
        """It holds nothing, and has ended."""
        self._count_jobs(job, QUEUED_JOBS, -1)
        for accounts in (self.accounts, self.of_workflows) if job.in_workflow else (self.accounts,):
            if accounts[job.account].is_idle(now_ms):
                del accounts[job.account]
        for name, _ in job.semaphores or ():
            left = self.semaphore_jobs[name] - 1
            if left:
                self.semaphore_jobs[name] = left
            else:
                del self.semaphore_jobs[name]
        count_told(self.told_jobs, told_of(job.notify, job.namespace), -1)

    def _count_jobs(self, job: Job, dimension: str, jobs: int) -> None:
        for account in self._counting(job):
            if dimension == QUEUED_JOBS:
                account.queued_jobs += jobs
            else:
                account.running_jobs += jobs
        if self.limits.any_quotas:
            self.limits.count(job.counted_as, dimension, jobs)

    def start(self, job: Job, request: Resources, tasks: int, now_ms: int) -> None:
        """Tasks of the job hold what they ask for from now on."""
        accounts = self._counting(job)
        for account in accounts:
            account.hold(request, tasks)
        self._count_running(job.queue, tasks)
        if request.gpus:
            for meter in self._meters_of(job, accounts):
                meter.start(request.gpus * tasks, now_ms)
        self._hold(job, request, tasks)

    def end(self, job: Job, request: Resources, start_ms: int, now_ms: int, *, kept: bool = True) -> None:
        """A task of the job, which held it from `start_ms`, gives back what it held. `kept`: the ledger has what it used."""
        accounts = self._counting(job)
        for account in accounts:
            account.hold(request, -1)
        self._count_running(job.queue, -1)
        if request.gpus:
            for meter in self._meters_of(job, accounts):
                meter.end(request.gpus, start_ms, now_ms, kept=kept)
        self._hold(job, request, -1)

    def _hold(self, job: Job, request: Resources, tasks: int) -> None:
        group = (job.namespace, job.actor, job.in_workflow, job.name, job.tags, job.semaphores)
        if self.limits.any_quotas or self.limits.any_caps:
            self.limits.hold(Group(*group), request, tasks)  # a cap that is new there begins with what runs before this
        self.what_runs.change(group, tasks)
        self.what_runs.charge(job.queue, job.account, request, tasks)

    def change_queue(self, job: Job, queue: str, held: Iterable[tuple[Resources, int]]) -> None:
        """What runs of a job, so many tasks with each request, is another queue's from now on."""
        for request, tasks in held:
            self._count_running(job.queue, -tasks)
            self._count_running(queue, tasks)
            self.what_runs.charge(job.queue, job.account, request, -tasks)
            self.what_runs.charge(queue, job.account, request, tasks)

    def _count_running(self, queue: str, tasks: int) -> None:
        running = self.queues.get(queue, 0) + tasks
        if running:
            self.queues[queue] = running
        else:
            self.queues.pop(queue, None)

    def _meters_of(self, job: Job, accounts: tuple[Account, ...]) -> Iterator[WeekMeter]:
        yield from (account.meter for account in accounts)
        if self.limits.any_quotas:
            yield from self.limits.meters_of(job.counted_as)

    def charge(self, key: AccountKey, request: Resources, span: tuple[int, int], cpu_ms: int, cost_micro: int) -> None:
        """Write into the ledger what an attempt has used: to each week what was held in it, the rest to the last."""
        start_ms, now_ms = span
        ledger = self.ledger.setdefault(key, {})
        last = week_of(now_ms)
        spans = list(split_by_week(start_ms, now_ms))
        for week, held_ms in spans[:-1]:
            ledger[week] = ledger.get(week, NO_USE).plus(held(request, held_ms))
        in_last = held(request, spans[-1][1] if spans else 0, cpu_ms, cost_micro, attempts=1)
        ledger[last] = ledger.get(last, NO_USE).plus(in_last)
        if last > self.latest_week:
            self.latest_week = last
            self._forget_before(last - KEPT_WEEKS + 1)
            for accounts in (self.accounts, self.of_workflows):
                for each in [each for each, account in accounts.items() if account.is_idle(now_ms)]:
                    del accounts[each]
            self.limits.forget_idle(now_ms)

    def _forget_before(self, first: int) -> None:
        for key, weeks in list(self.ledger.items()):
            for week in [week for week in weeks if week < first]:
                del weeks[week]
            if not weeks:
                del self.ledger[key]

    # ── Starting anew ───────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, lines: Iterable[LedgerLine], of_workflows: Iterable[WorkflowWeek], now_ms: int) -> None:
        """Take the ledger as it was, before anything else is taken in, and what workflows had used of the week."""
        for each in of_workflows:
            part = self.of_workflows[each.namespace, each.user] = Account()
            part.meter.turn(now_ms)
            part.meter.done = each.gpu_ms
        week = week_of(now_ms)
        for line in lines:
            self.ledger.setdefault((line.namespace, line.user), {})[line.week] = line.use
            self.latest_week = max(self.latest_week, line.week)
        for key, weeks in self.ledger.items():
            if week in weeks:
                meter = self.account(key).meter
                meter.turn(now_ms)
                meter.done = weeks[week].gpu_ms

    def take_in(self, job: Job, now_ms: int) -> None:
        """Count a job that is there already."""
        if job.ended:
            return
        accounts = self._counting(job)
        for account in accounts:
            account.queued_tasks += job.counts[TaskState.PENDING]
            account.queued_jobs += not job.active
            account.running_jobs += bool(job.active)
        if job.active:
            self.running.setdefault(job.namespace, {})[job.id] = None
        for name, _ in job.semaphores or ():
            self.semaphore_jobs[name] = self.semaphore_jobs.get(name, 0) + 1
        count_told(self.told_jobs, told_of(job.notify, job.namespace), 1)
        for index, active in (job.active_attempts or {}).items():
            request = job.request_of(index)
            for account in accounts:
                account.hold(request, 1)
            self.what_runs.change(group_of(job), 1)
            self.what_runs.charge(job.queue, job.account, request, 1)
            self._count_running(job.queue, 1)
            for account in accounts if request.gpus else ():
                account.meter.turn(now_ms)
                account.meter.start(request.gpus, active.scheduled_ms)

    def lines(self) -> list[LedgerLine]:
        """The ledger, in the order of its accounts and weeks."""
        return [
            LedgerLine(namespace, user, week, use)
            for (namespace, user), weeks in sorted(self.ledger.items())
            for week, use in sorted(weeks.items())
        ]

    def workflow_weeks(self, now_ms: int) -> list[WorkflowWeek]:
        """What workflows have used of the GPU time of the week that it is, as far as it has ended, account by account."""
        week = week_of(now_ms)
        return [
            WorkflowWeek(namespace, user, part.meter.done)
            for (namespace, user), part in sorted(self.of_workflows.items())
            if part.meter.week == week and part.meter.done
        ]

    def set_policies(self, quotas: Mapping[str, Policy], caps: Mapping[str, Policy], now_ms: int) -> None:
        """These limit from now on. Other quotas cost a look at each account."""
        limits = self.limits
        if limits.has_quotas(quotas):
            limits.set_caps(caps)
            return
        limits.set_policies(quotas, caps)
        if limits.any_quotas:
            for part, account, sign in self._parts():
                for node in limits.quotas_of(part):
                    for dimension in node.shares:
                        node.add(dimension, sign * account.amount(dimension))
                for meter in limits.meters_of(part) if limits.weekly else ():
                    meter.add(account.meter, now_ms, sign)

    def _parts(self) -> Iterator[tuple[PartKey, Account, int]]:
        """Each account's part of workflows, and the rest of it as the whole less that part."""
        for (namespace, user), account in self.accounts.items():
            yield (namespace, user, False), account, 1
        for (namespace, user), part in self.of_workflows.items():
            yield (namespace, user, False), part, -1
            yield (namespace, user, True), part, 1


def group_of(job: Job) -> Group:
    return Group(job.namespace, job.actor, job.in_workflow, job.name, job.tags, job.semaphores)


@lru_cache(maxsize=1024)
def largest_of(alternatives: tuple[Resources, ...]) -> Resources:
    """The most of everything that any of them asks for."""
    countables: dict[str, int] = {}
    for request in alternatives:
        for name, amount in request.countables:
            countables[name] = max(amount, countables.get(name, 0))
    return Resources(
        cpu_milli=max(request.cpu_milli for request in alternatives),
        memory_bytes=max(request.memory_bytes for request in alternatives),
        gpus=max(request.gpus for request in alternatives),
        disk_bytes=max(request.disk_bytes for request in alternatives),
        countables=tuple(sorted(countables.items())),
    )


def limited_request(job: Job) -> Resources:
    """What a task of the job may come to hold, before it is known by which of its alternatives it is placed."""
    return largest_of(job.placement.any_of) if job.placement is not None and job.placement.any_of else job.resources


def held(request: Resources, held_ms: int, cpu_ms: int = 0, cost_micro: int = 0, attempts: int = 0) -> WeekUse:
    """What it is to hold a request for so long."""
    return WeekUse(
        attempts,
        min(request.cpu_milli * held_ms, MAX_INTEGER),
        min(request.memory_bytes * held_ms // GIB, MAX_INTEGER),
        min(request.gpus * held_ms, MAX_INTEGER),
        min(request.disk_bytes * held_ms // GIB, MAX_INTEGER),
        min(cpu_ms, MAX_INTEGER),
        min(cost_micro, MAX_INTEGER),
    )
