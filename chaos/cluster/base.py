"""What workloads, nemeses and drills see of a cluster, whoever made it.

Every fault is a context: entering it does the harm, leaving it undoes it. Before the harm its way back is on disk in the
ledger (`chaos.safety.ledger`) with a deadline of `seconds`, so it heals by itself if the harness hangs or dies. Names are
those of the cluster: m1, n1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

import msgspec

from chaos.abilities import Ability
from chaos.errors import MachineLacks
from hasched.client.aio import AsyncClient
from hasched.client.context import Context

Pair: TypeAlias = tuple[str, str]  # from, to
Fault: TypeAlias = AbstractAsyncContextManager[None]

LEAVE_OUT = "leave out what needs it: name other nemeses or drills, as `hasched chaos list` shows them"


class Processes(Protocol):
    """The daemons of the cluster on this machine."""

    def pid(self, name: str) -> int | None:
        """Of the daemon; None while it is down."""

    def restarts(self, name: str) -> int | None:
        """How often it began anew since the harness knows it: who looks at it twice learns whether it is still the same.
        None: it is not on this machine, or not ours, and nobody counts."""

    async def kill(self, name: str) -> None:
        """SIGKILL; returns once the process is gone. A cluster with a service manager may start it again by itself."""

    async def kill_group(self, name: str) -> None:
        """As `kill`, with the whole process group that the daemon leads, as a service manager would."""

    async def terminate(self, name: str, patience_s: float = 30.0) -> int:
        """SIGTERM; returns the exit status, negative after a signal. Raises Unsettled if it didn't end in time."""

    async def start(self, name: str) -> None:
        """Start it if it is down. Returns once the process is there; whether it is ready is another question."""

    def down(self, name: str, seconds: float) -> Fault:
        """SIGKILL now, started again at the end."""

    def frozen(self, name: str, seconds: float) -> Fault:
        """SIGSTOP to the daemon, SIGCONT at the end."""

    async def reboot(self, agent: str) -> None:
        """The node loses its agent, its supervisor and all tasks at once, as at a reset, and the agent starts again."""

    def orphaned(self, agent: str, seconds: float) -> Fault:
        """SIGKILL to the agent only, which stays down until the end; its supervisor and tasks go on."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """How a link behaves, one way. Shares are of packets."""

    delay_ms: float = 0
    jitter_ms: float = 0
    loss: float = 0
    duplicated: float = 0
    reordered: float = 0
    bytes_per_s: int = 0  # 0: no limit


class Network(Protocol):
    """Hosts are managers and agents; `OUTSIDE` (chaos.cluster.network) is where the harness and its clients are."""

    def cut(self, pairs: Iterable[Pair], seconds: float) -> Fault:
        """Nothing gets from the first to the second of each pair."""

    def isolated(self, host: str, seconds: float) -> Fault:
        """Nothing gets from this host to the other hosts of the cluster or back. Clients outside still reach it."""

    def shaped(self, pairs: Iterable[Pair], link: Link, seconds: float) -> Fault:
        """Packets of these pairs go through `link`."""

    async def reset(self, pairs: Iterable[Pair]) -> None:
        """The TCP connections of these pairs break now; new ones are possible at once."""


class Disks(Protocol):
    """Of managers and agents: what holds their data directory."""

    def full(self, name: str, seconds: float) -> Fault: ...

    def read_only(self, name: str, seconds: float) -> Fault:
        """As ext4 does after an error. At the end the daemon is down for a moment, for the mount."""

    async def wipe(self, name: str) -> None:
        """The daemon must be down. Its data directory is empty afterwards."""

    async def tear_tail(self, manager: str) -> str:
        """The daemon must be down. Its last journal file gets half a frame behind its last one, as a torn write leaves it;
        nothing that was synced is touched. Returns what was done."""

    async def flip(self, manager: str, where: str, chance: int) -> str:
        """The daemon must be down. One bit of its `where` (journal or snapshot) is flipped. Returns where."""

    async def cut_power(self, names: Sequence[str]) -> None:
        """All of these at one moment: what they did not sync is gone, and they are down. Their disks are mounted again."""


class Syncs(Protocol):
    """Faults at a manager's system calls, by strace."""

    def slow(self, manager: str, delay_ms: int, seconds: float) -> Fault:
        """Every fdatasync takes that much longer."""

    def failing(self, manager: str, nth: int, seconds: float) -> Fault:
        """The n-th fdatasync from now on returns EIO. The manager is expected to stop; it is started again at the end."""

    def killed(self, manager: str, nth: int, seconds: float) -> Fault:
        """SIGKILL in front of the n-th fdatasync from now on. It is started again at the end."""

    def starved(self, manager: str, spare: int, seconds: float) -> Fault:
        """Its limit of open files is `spare` above what it has open now."""


class Clocks(Protocol):
    """Wall clocks of single daemons. The machine's own is never touched."""

    def shifted(self, name: str, jump_s: float, drift: float, seconds: float) -> Fault:
        """The daemon's wall clock jumps by `jump_s` and then runs `drift` faster (0.01: 1 %); right again at the end."""


class Members(Protocol):
    """Changes of who the managers are."""

    async def add(self) -> str:
        """Make the files of a new manager, start it, and add it through the API. Returns its name once it has a vote."""

    async def remove(self, manager: str) -> None:
        """Remove it through the API, wait until it has left, and stop it. Its name is not used again."""


class Cluster(ABC):
    """Parts that a cluster lacks raise MachineLacks where they are used; `missing` says why beforehand."""

    name: str
    kind: str  # own, attached
    managers: list[str]
    agents: list[str]
    missing: dict[Ability, str]  # and why, with what to do about it
    processes: Processes

    @property
    @abstractmethod
    def network(self) -> Network: ...

    @property
    @abstractmethod
    def disks(self) -> Disks: ...

    @property
    @abstractmethod
    def syncs(self) -> Syncs: ...

    @property
    @abstractmethod
    def clocks(self) -> Clocks: ...

    @property
    @abstractmethod
    def members(self) -> Members: ...

    @property
    @abstractmethod
    def hasched(self) -> list[str]:
        """The command under test, by default that of this installation."""

    @property
    @abstractmethod
    def scratch(self) -> str:
        """A directory that every agent's tasks can write to, on this machine."""

    @abstractmethod
    def context(self, *managers: str) -> Context:
        """How clients reach all managers, or these."""

    @abstractmethod
    def logs(self) -> dict[str, str]:
        """The last lines of each daemon's log, where they can be read."""

    def client(self, *managers: str, timeout_s: float = 30.0, retries: bool = True) -> AsyncClient:
        return AsyncClient(self.context(*managers), timeout_s, retries=retries)

    def require(self, abilities: Iterable[Ability]) -> None:
        """Raises MachineLacks with the first that is missing."""
        for ability in abilities:
            if ability in self.missing:
                raise self.lacks(ability)

    def lacks(self, ability: Ability) -> MachineLacks:
        return MachineLacks(f"{ability} can't be had here: {self.missing[ability]}", LEAVE_OUT)
