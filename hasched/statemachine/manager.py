"""The managers that the cluster is wanted to have. Who votes is Raft's membership; the leader leads it to this, step by step."""

from __future__ import annotations

import msgspec

MAX_MANAGERS = 7


class ManagerAddress(msgspec.Struct, frozen=True, array_like=True):
    """`api_url` is what users and managers ask, `raft_address` the `HOST:PORT` of consensus."""

    manager_id: str
    api_url: str
    raft_address: str


class ManagerRecord(msgspec.Struct, frozen=True, array_like=True):
    """`added_ms` and `log_index` are of the entry by which it became wanted."""

    manager_id: str
    api_url: str
    raft_address: str
    added_ms: int
    log_index: int
