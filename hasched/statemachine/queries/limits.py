"""Quotas and caps as they are used."""

from __future__ import annotations

from hasched.model.policy import PolicyKind
from hasched.model.views import LimitPage, LimitView
from hasched.statemachine.quotas import GPU_WEEK
from hasched.statemachine.shortages import key_of
from hasched.statemachine.state import State


def limits_in_use(state: State, kind: PolicyKind | None = None, name: str | None = None) -> LimitPage:
    """Of every quota and cap, or of some: what is used and what is left. A policy of each by itself shows those who use it."""
    limits, shown = state.usage.limits, []
    for (quota, user), node in sorted(limits.quotas.items()) if kind in (None, PolicyKind.QUOTA) else ():
        if name not in (None, quota):
            continue
        for dimension, share in node.shares.items():
            left = max(0, node.available(dimension))
            shown.append(_view(PolicyKind.QUOTA, (quota, user), key_of(dimension), (share.used, share.subtree, left)))
        if node.week_limit is not None:
            used = node.meter.used(state.now_ms)
            left = max(0, node.week_limit - used)
            shown.append(_view(PolicyKind.QUOTA, (quota, user), key_of(GPU_WEEK), (used, node.week_limit, left)))
    for each in limits.caps_in_use() if kind in (None, PolicyKind.CAP) else ():
        if name in (None, each.key[0]):
            left = max(0, each.units - each.used)
            shown.append(_view(PolicyKind.CAP, each.key, "units", (each.used, each.units, left)))
    return LimitPage(limits=shown)


def _view(kind: PolicyKind, key: tuple[str, str], amount: str, numbers: tuple[int, int, int]) -> LimitView:
    name, of = key
    used, limit, left = numbers
    return LimitView(kind=kind.value, name=name, of=of, amount=amount, used=used, limit=limit, available=left)
