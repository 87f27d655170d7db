"""Policies as people write them, with who changed them."""

from __future__ import annotations

from hasched.model.policy import PolicyKind
from hasched.model.policy_text import write_policy
from hasched.model.views import PolicyPage, PolicyView
from hasched.statemachine.policies import PolicyRecord
from hasched.statemachine.state import State


def list_policies(state: State, kind: PolicyKind | None = None) -> PolicyPage:
    """Those of a kind, or all, in the order of kinds in which they can be put again."""
    kinds = list(PolicyKind) if kind is None else [kind]
    return PolicyPage(
        policies=[_show(kind, record) for kind in kinds for _, record in sorted(state.policies[kind].items())]
    )


def policy_view(state: State, kind: PolicyKind, name: str) -> PolicyView | None:
    record = state.policies[kind].get(name)
    return _show(kind, record) if record is not None else None


def _show(kind: PolicyKind, record: PolicyRecord) -> PolicyView:
    return PolicyView(
        kind=kind.value,
        name=record.name,
        document=write_policy(record.body),
        actor=record.actor,
        created_ms=record.created_ms,
        changed_ms=record.changed_ms,
        log_index=record.log_index,
        built_in=record.built_in,
    )
