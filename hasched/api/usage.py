"""Usage: what was used and what it cost; and what a job would cost."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hasched.api.call import Call, Consistency
from hasched.api.jobs import MAX_JOB_BYTES
from hasched.api.names import check_filter
from hasched.api.policies import kind_named
from hasched.api.problem import refusal
from hasched.api.routing import Routes
from hasched.model.errors import BadRequest
from hasched.model.parse import parse_spec
from hasched.model.policy import PolicyKind
from hasched.model.times import parse_time_ms
from hasched.model.views import EstimateView, LimitPage, UsagePage
from hasched.statemachine import queries
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules.jobs import resolve_class
from hasched.statemachine.weeks import week_of

routes = Routes("usage")


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    by: Annotated[
        Literal["account", "user", "namespace", "week", "job"],
        msgspec.Meta(description="What to sum up by; an account is a user in a namespace."),
    ] = "account"
    namespace: str | None = None
    user: str | None = None
    week: Annotated[str | None, msgspec.Meta(description="Only of the week of this day, `2026-11-30`; not by job.")] = (
        None
    )
    limit: Annotated[int, msgspec.Meta(ge=1, le=queries.MAX_PAGE)] = 100
    cursor: Annotated[str, msgspec.Meta(description="By job: `next_cursor` of the page before.")] = ""
    consistency: Consistency = "linearizable"


class LimitsQuery(msgspec.Struct, frozen=True, kw_only=True):
    kind: Annotated[str | None, msgspec.Meta(description="`quota` or `cap`.")] = None
    name: Annotated[str | None, msgspec.Meta(description="Only the policy of this name.")] = None
    consistency: Consistency = "linearizable"


@routes.add("GET", "/v1/usage")
async def show_usage(call: Call, query: UsageQuery) -> UsagePage:
    """Sum up what attempts that have ended held, and what it cost.

    Accounts and weeks are kept for half a year; jobs, the newest first, as long as they are. What runs now stands beside the
    sums, and comes into them when it ends, by the prices of that time.
    """
    week = None
    if query.week is not None:
        if query.by == "job":
            raise BadRequest("jobs are not kept by week", "leave out `week`")
        try:
            week = week_of(parse_time_ms(f"{query.week}T00:00Z"))
        except ValueError:
            raise BadRequest(f"{query.week[:40]!r} is not a day", "write it as 2026-11-30") from None
    state = await call.read_state(query.consistency)
    if query.by != "job":
        page = queries.usage_by(state, query.by, namespace=query.namespace, user=query.user, week=week)
        if not page.usage:  # what a namespace used that is gone is shown as long as it is kept
            check_filter(state, PolicyKind.NAMESPACE, query.namespace)
        return page
    check_filter(state, PolicyKind.NAMESPACE, query.namespace)
    try:
        return queries.usage_of_jobs(
            state, namespace=query.namespace, user=query.user, limit=query.limit, cursor=query.cursor
        )
    except queries.BadCursor as error:
        raise BadRequest(str(error)) from None


@routes.add("GET", "/v1/limits")
async def show_limits(call: Call, query: LimitsQuery) -> LimitPage:
    """Show what of each quota and cap is used, and what is left."""
    kind = kind_named(query.kind) if query.kind is not None else None
    return queries.limits_in_use(await call.read_state(query.consistency), kind, query.name)


@routes.add("POST", "/v1/usage/estimate", body_bytes=MAX_JOB_BYTES, document="JobDocument")
async def estimate_cost(call: Call, body: bytes) -> EstimateView:
    """Say what a job would cost by the prices of now, and submit nothing. The body is its document, as JSON."""
    spec = parse_spec(body, call.context.defaults)
    state = await call.read_state("linearizable")
    resolved = resolve_class(state, spec)
    if isinstance(resolved, Rejected):
        raise refusal(resolved)
    return queries.estimate(state, resolved)
