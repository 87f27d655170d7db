"""What an agent finds around it: clocks, chance, its table, its supervisor, its machine and a way to the managers.

A simulation brings its own; everything else in the agent is the same there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random, SystemRandom
from typing import Protocol

import aiohttp
import msgspec

from hasched.agent import discovery, health, origin, supervisor_client
from hasched.agent.config import AgentConfig
from hasched.agent.events import Now, Row, Save
from hasched.agent.inventory import Inventory, MachineInventory
from hasched.agent.processes import boot_ms, wall_ms
from hasched.agent.protocol import Configure, FromSupervisor, ToSupervisor
from hasched.agent.table import OnFailed, OnSaved, Table
from hasched.model.wire import NodeInfo, NodeUsage

CONNECT_TIMEOUT_S = 3.0


class AttemptTable(Protocol):
    """See `hasched.agent.table`."""

    @property
    def table_id(self) -> str: ...
    def open(self) -> tuple[Row, ...]: ...
    def save(self, save: Save) -> None: ...
    def close(self) -> None: ...


class Supervision(Protocol):
    """A connection to the supervisor, see `hasched.agent.supervisor_client`."""

    def send(self, messages: Sequence[ToSupervisor]) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


OnMessages = Callable[[list[FromSupervisor]], None]


def _open_http() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S))


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults are this machine."""

    boot_ms: Callable[[], int] = boot_ms
    wall_ms: Callable[[], int] = wall_ms
    random: Random = msgspec.field(default_factory=SystemRandom)
    open_http: Callable[[], AbstractAsyncContextManager[aiohttp.ClientSession]] = _open_http
    open_table: Callable[[str, OnSaved, OnFailed], AttemptTable] = Table
    connect_supervisor: Callable[[Path, Configure, OnMessages, Callable[[], None]], Awaitable[Supervision]] = (
        supervisor_client.connect
    )
    collect_supervisor: Callable[[int], None] = supervisor_client.collect
    discover: Callable[[AgentConfig, str], NodeInfo] = discovery.discover
    open_inventory: Callable[[AgentConfig], Inventory | None] = MachineInventory  # None: what `discover` says is all
    read_usage: Callable[[str], NodeUsage] = discovery.read_usage
    probe: Callable[[Path], None] = health.probe
    read_origin: Callable[[Path], str] = origin.read_origin
    keep_origin: Callable[[Path, str], None] = origin.keep_origin

    def now(self) -> Now:
        return Now(self.boot_ms(), self.wall_ms())
