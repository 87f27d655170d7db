"""Policies as the state holds them: each with who changed it last, when, and in which log entry.

Some are there from the beginning (`BUILT_IN`). They belong to the version and not to the log, so snapshots and digests leave
them out; one that was put in their place is a policy like any other, and when it is deleted they are back.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar, cast

import msgspec

from hasched.model.policy import BUILT_IN, KINDS, Policy, PolicyKind, kind_of

P = TypeVar("P", bound=msgspec.Struct)
PolicyTables: TypeAlias = dict[PolicyKind, dict[str, "PolicyRecord"]]


class PolicyRecord(msgspec.Struct, frozen=True, array_like=True):
    """A policy. `log_index` is of the entry that put it last, 0 for one that is built in."""

    name: str
    body: Policy
    actor: str
    created_ms: int
    changed_ms: int
    log_index: int

    @property
    def kind(self) -> PolicyKind:
        return kind_of(self.body)

    @property
    def built_in(self) -> bool:
        return not self.log_index


def built_in(kind: PolicyKind, name: str) -> PolicyRecord | None:
    """The policy that is there where nobody has put another."""
    return _BUILT_IN[kind].get(name)


def initial_policies() -> PolicyTables:
    """What a new cluster has, by kind and name."""
    return {kind: dict(table) for kind, table in _BUILT_IN.items()}


def put_policies(tables: PolicyTables) -> list[PolicyRecord]:
    """Those that somebody has put, in the order of their kinds and names."""
    return [record for _, table in sorted(tables.items()) for _, record in sorted(table.items()) if not record.built_in]


def find_policy(tables: PolicyTables, kind: type[P], name: str) -> P | None:
    """The body of the policy `name` of a kind: `find_policy(state.policies, Queue, "batch")`."""
    record = tables[KINDS[cast(type[Policy], kind)]].get(name)
    return cast(P, record.body) if record is not None else None


_BUILT_IN: PolicyTables = {kind: {} for kind in PolicyKind}
for _name, _body in BUILT_IN:
    _BUILT_IN[kind_of(_body)][_name] = PolicyRecord(_name, _body, "", 0, 0, 0)
