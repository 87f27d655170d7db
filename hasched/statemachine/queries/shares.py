"""Fair share as people look at it: the tree of accounts, what each is due and what each has used."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hasched.model.policy import WEIGHT_ONE, FairShare, PolicyKind, Queue
from hasched.model.views import FairShareView, ShareView
from hasched.statemachine.fair_share import THE_POLICY, Account, Shares
from hasched.statemachine.policies import find_policy
from hasched.statemachine.state import State


def show_shares(state: State) -> FairShareView:
    """Siblings stand in the order in which their work would start now, were all else equal."""
    policy = find_policy(state.policies, FairShare, THE_POLICY)
    shares = state.shares
    if policy is None or shares is None:
        return FairShareView(
            enabled=False, now_ms=state.now_ms, ageing_ms=policy.ageing_ms if policy is not None else 0
        )
    weights = dict(policy.weights)
    queues = {
        name: record.body.weight_milli
        for name, record in state.policies[PolicyKind.QUEUE].items()
        if isinstance(record.body, Queue)
    }
    namespaces = dict.fromkeys((*shares.namespaces, *(account.partition("/")[0] for account in weights)))
    users: dict[str, dict[str, int]] = {name: {} for name in namespaces}
    for namespace, user in (*shares.users, *(account.split("/") for account in weights if "/" in account)):
        users[namespace][user] = weights.get(f"{namespace}/{user}", WEIGHT_ONE)
    tree = _siblings(state, shares, {name: weights.get(name, WEIGHT_ONE) for name in namespaces}, shares.namespaces)
    return FairShareView(
        enabled=True,
        now_ms=state.now_ms,
        half_life_ms=policy.half_life_ms,
        ageing_ms=policy.ageing_ms,
        queues=_siblings(state, shares, queues, shares.queues),
        namespaces=[
            msgspec.structs.replace(
                view,
                users=_siblings(
                    state,
                    shares,
                    users[view.name],
                    {user: account for (namespace, user), account in shares.users.items() if namespace == view.name},
                ),
            )
            for view in tree
        ],
    )


def _siblings(
    state: State, shares: Shares, weights: Mapping[str, int], accounts: Mapping[str, Account]
) -> list[ShareView]:
    used = {name: shares.usage(accounts.get(name), state.now_ms) for name in dict.fromkeys((*weights, *accounts))}
    total, weight_of_all = sum(used.values()), sum(weights.get(name, WEIGHT_ONE) for name in used)
    views = []
    for name, usage in used.items():
        weight, account = weights.get(name, WEIGHT_ONE), accounts.get(name)
        due = weight / weight_of_all if weight_of_all else 0.0
        part = usage / total if total else 0.0
        views.append(
            ShareView(
                name=name,
                weight_milli=weight,
                due=due,
                used=part,
                factor=2.0 ** (-part / due) if due else 0.0,
                usage_core_s=usage // 1_000_000,
                running_milli=account.rate if account is not None else 0,
            )
        )
    return sorted(views, key=_place)


def _place(view: ShareView) -> tuple[float, str]:
    return (view.usage_core_s / view.weight_milli if view.weight_milli else float("inf"), view.name)
