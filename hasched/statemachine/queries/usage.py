"""What was used, summed up: by account, by week, or job by job."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from hasched.model.policy import Price
from hasched.model.spec import JobSpec, Resources
from hasched.model.times import format_time
from hasched.model.units import HOUR_MS
from hasched.model.views import EstimateView, UsagePage, UsageRow
from hasched.statemachine.job import Job
from hasched.statemachine.limits import AccountKey
from hasched.statemachine.policies import find_policy
from hasched.statemachine.queries.pages import MAX_PAGE, MAX_SCANNED, jobs_before, parse_cursor
from hasched.statemachine.rules.charges import DEFAULT_PRICE, cost_of, price_on
from hasched.statemachine.state import State
from hasched.statemachine.usage import NO_USE, Account, WeekUse, held
from hasched.statemachine.weeks import start_of_week

SUMMED_BY = ("account", "user", "namespace", "week")


def usage_by(
    state: State, by: str, *, namespace: str | None = None, user: str | None = None, week: int | None = None
) -> UsagePage:
    """The ledger of the last half year, by one of `SUMMED_BY`; of some accounts, or one week, alone."""
    keys = [
        key
        for key in sorted(state.usage.ledger | state.usage.accounts)
        if namespace in (None, key[0]) and user in (None, key[1])
    ]
    sums: dict[tuple[str | None, str | None, int | None], WeekUse] = {}
    holding: dict[tuple[str | None, str | None, int | None], list[Account]] = {}
    for key in keys:
        for number, use in state.usage.ledger.get(key, {}).items():
            if week in (None, number):
                place = _place(by, key, number)
                sums[place] = sums.get(place, NO_USE).plus(use)
        account = state.usage.accounts.get(key)
        if account is not None and account.running_tasks and by != "week":
            place = _place(by, key, None)
            sums.setdefault(place, NO_USE)
            holding.setdefault(place, []).append(account)
    rows = [
        _row(place, use, holding.get(place, [])) for place, use in sorted(sums.items(), key=lambda each: str(each[0]))
    ]
    return UsagePage(usage=rows, currency=currency(state))


def _place(by: str, key: AccountKey, week: int | None) -> tuple[str | None, str | None, int | None]:
    namespace, user = key
    return (
        namespace if by in ("account", "namespace") else None,
        user if by in ("account", "user") else None,
        week if by == "week" else None,
    )


def _row(place: tuple[str | None, str | None, int | None], use: WeekUse, accounts: list[Account]) -> UsageRow:
    namespace, user, week = place
    row = UsageRow(
        namespace=namespace,
        user=user,
        week=None if week is None else format_time(start_of_week(week))[:10],
        running_tasks=sum(account.running_tasks for account in accounts),
        holds=Resources(
            cpu_milli=sum(account.cpu_milli for account in accounts),
            memory_bytes=sum(account.memory_bytes for account in accounts),
            gpus=sum(account.gpus for account in accounts),
            disk_bytes=sum(account.disk_bytes for account in accounts),
        ),
    )
    return _with_use(row, use)


def _with_use(row: UsageRow, use: WeekUse) -> UsageRow:
    return msgspec.structs.replace(
        row,
        attempts=use.attempts,
        cpu_core_ms=use.cpu_milli_ms // 1000,
        memory_gib_ms=use.memory_gib_ms,
        gpu_ms=use.gpu_ms,
        disk_gib_ms=use.disk_gib_ms,
        cpu_ms=use.cpu_ms,
        cost_micro=use.cost_micro,
    )


def usage_of_jobs(
    state: State, *, namespace: str | None = None, user: str | None = None, limit: int = 100, cursor: str = ""
) -> UsagePage:
    """Job by job, the newest first; those that have used nothing are left out. Raises BadCursor."""
    limit = max(1, min(limit, MAX_PAGE))
    rows: list[UsageRow] = []
    seen_id = 0
    for job in islice(jobs_before(state, parse_cursor(cursor)), MAX_SCANNED):
        seen_id = job.id
        if namespace in (None, job.namespace) and user in (None, job.actor) and (job.active or _spans(job)):
            rows.append(usage_of_job(job))
            if len(rows) == limit:
                break
    oldest_id = next(iter(state.jobs), 0)
    next_cursor = str(seen_id) if seen_id > oldest_id else ""
    return UsagePage(usage=rows, currency=currency(state), next_cursor=next_cursor)


def usage_of_job(job: Job) -> UsageRow:
    """What a job has used, as far as its attempts have ended."""
    used = WeekUse(cpu_ms=job.cpu_ms, cost_micro=job.cost_micro)
    for part, span_ms in _spans(job).items():
        used = used.plus(held(job.request_of_part(part), span_ms))
    running = list(_running(job))
    row = UsageRow(
        namespace=job.namespace,
        user=job.actor,
        job_id=job.id,
        name=job.name,
        running_tasks=job.active,
        holds=Resources(
            cpu_milli=sum(request.cpu_milli * tasks for request, tasks in running),
            memory_bytes=sum(request.memory_bytes * tasks for request, tasks in running),
            gpus=sum(request.gpus * tasks for request, tasks in running),
            disk_bytes=sum(request.disk_bytes * tasks for request, tasks in running),
        ),
    )
    return _with_use(row, used)


def _spans(job: Job) -> dict[int, int]:
    """For how long its ended attempts held what they asked for, by part."""
    return ({0: job.held_ms} if job.held_ms else {}) | (job.held_by_part or {})


def _running(job: Job) -> Iterator[tuple[Resources, int]]:
    if job.choices is None and (job.gang is None or not job.gang.groups):
        yield job.resources, job.active
        return
    for index in job.active_attempts or ():
        yield job.request_of(index), 1


def currency(state: State) -> str:
    """What costs are in: what the price called `default` says."""
    price = find_policy(state.policies, Price, DEFAULT_PRICE)
    return price.currency if price is not None else ""


def estimate(state: State, spec: JobSpec) -> EstimateView:
    """What a job would cost at most by the prices of now, from its timeout.

    Of alternatives and of pools the first counts; of GPUs that will do, the dearest.
    """
    pool = spec.placement.pools[0] if spec.placement.pools else DEFAULT_PRICE
    price = price_on(state.policies, pool)
    parts = [(group.resources, group.count) for group in spec.groups] or [(spec.resources, spec.count)]

    def cost(held_ms: int) -> int:
        if price is None:
            return 0
        return sum(_dearest(price, asked, held_ms) * n for asked, n in parts)

    return EstimateView(
        hour_micro=cost(HOUR_MS),
        cost_micro=cost(spec.timeout_ms) if spec.timeout_ms else None,
        most_micro=cost(spec.timeout_ms * (1 + spec.retries.max)) if spec.timeout_ms else None,
        priced=price is not None,
        currency=price.currency if price is not None else "",
    )


def _dearest(price: Price, asked: Resources, held_ms: int) -> int:
    """What it costs if it gets the dearest of the GPUs that will do."""
    models = asked.gpu_models or ("", *(model for model, _ in price.gpu_models))
    return max(cost_of(price, asked, model, held_ms) for model in models)
