"""What the agent's core is told (events) and what it asks for (instructions)."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import msgspec

from hasched.agent.devices import Device
from hasched.agent.protocol import Forget, FreezeAttempts, Inventory, Launch, Lease, Observed, StopAttempts
from hasched.model.ids import AttemptId
from hasched.model.wire import Assign, AttemptEnded, Freeze, HeartbeatAck, Reports, ReportsAck, Stop, Welcome


class Now(NamedTuple):
    """One moment on two clocks: one that never goes back, for deciding, and the wall's, for people."""

    boot_ms: int
    wall_ms: int


class Row(msgspec.Struct, frozen=True):
    """An attempt as it stands in the table. `supervisor` is the instance that was to run it."""

    key: AttemptId
    supervisor: str
    ended: AttemptEnded | None = None


# Events.


class Recovered(msgspec.Struct, frozen=True):
    """The agent has started and read its table."""

    rows: tuple[Row, ...]


class SupervisorUp(msgspec.Struct, frozen=True):
    inventory: Inventory
    now: Now


class SupervisorDown(msgspec.Struct, frozen=True):
    pass


class Happened(msgspec.Struct, frozen=True):
    """The supervisor saw attempts start and end."""

    observed: Observed
    now: Now


class Saved(msgspec.Struct, frozen=True):
    """Every `Save` up to this number is on disk."""

    number: int
    now: Now


class SaveFailed(msgspec.Struct, frozen=True):
    """The `Save`s up to this number are not on disk, and none of their rows is."""

    number: int
    reason: str
    now: Now


class Connected(msgspec.Struct, frozen=True):
    """A manager said `Welcome` to the `Hello` that was sent at `hello_ms`."""

    welcome: Welcome
    hello_ms: int
    now: Now


class Disconnected(msgspec.Struct, frozen=True):
    pass


class HeartbeatSent(msgspec.Struct, frozen=True):
    number: int
    at_ms: int


class Received(msgspec.Struct, frozen=True):
    """A manager's message in an open session."""

    message: Assign | Stop | Freeze | ReportsAck | HeartbeatAck
    now: Now


class Tick(msgspec.Struct, frozen=True):
    """`wake_at_ms` has come (on the clock of `Now.boot_ms`)."""

    now: Now


class DevicesSeen(msgspec.Struct, frozen=True):
    """A look at the node's devices: at the start, every now and then, and after `CheckDevices`."""

    devices: tuple[Device, ...]
    now: Now


Event: TypeAlias = (
    Recovered
    | SupervisorUp
    | SupervisorDown
    | Happened
    | Saved
    | SaveFailed
    | Connected
    | Disconnected
    | HeartbeatSent
    | Received
    | Tick
    | DevicesSeen
)


# Instructions, beside the messages to the supervisor.


class Save(msgspec.Struct, frozen=True):
    """Write this to the table in one transaction, and answer with `Saved`."""

    number: int
    added: tuple[Row, ...] = ()
    ended: tuple[AttemptEnded, ...] = ()
    removed: tuple[AttemptId, ...] = ()


class Send(msgspec.Struct, frozen=True):
    """Send this to the manager."""

    reports: Reports


class Reconnect(msgspec.Struct, frozen=True):
    """Close the session and open a new one: it compares everything anew."""

    reason: str


class CheckDevices(msgspec.Struct, frozen=True):
    """Look at the devices now, and tell with `DevicesSeen`, whatever comes of it."""


Instruction: TypeAlias = (
    Save | Send | Reconnect | CheckDevices | Launch | StopAttempts | FreezeAttempts | Lease | Forget
)
