"""A cluster that the harness makes for itself: real daemons and real disks, each on a host of its own.

As root a host is a network namespace on a bridge, and a data directory is a file system of its own. Without root everything
is on loopback, and `missing` says what that costs. Whatever is made is in the ledger before it is there, and goes in the
opposite order at the end, or when setting up fails or is cancelled.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from chaos.abilities import Ability
from chaos.cluster import clocks, control_groups, links, loop_disk, strace
from chaos.cluster import network as network_module
from chaos.cluster.base import Clocks, Cluster, Disks, Members, Network, Syncs
from chaos.cluster.bridge import BridgeNetwork
from chaos.cluster.clocks import ShimClocks
from chaos.cluster.daemons import Daemons, Launch
from chaos.cluster.disks import LoopDisks
from chaos.cluster.files import ClusterFiles, Member
from chaos.cluster.members import OwnMembers
from chaos.cluster.network import LOOPBACK, HostNetwork, free_ports
from chaos.cluster.steps import in_thread
from chaos.cluster.syncs import StraceSyncs
from chaos.errors import MachineLacks, Unsettled
from chaos.safety.ledger import Armed, Ledger
from chaos.safety.undo import FOLDER_PREFIX, Interface, KillMarked, Namespace, RemoveFolder, Undo
from chaos.wholeness import obstacles
from hasched.client.context import Context
from hasched.model.addresses import API_PORT, RAFT_PORT
from hasched.model.errors import HaschedError

READY_S = 60.0
POLL_S = 0.05
NO_HOSTS = (Ability.CUTS, Ability.ISOLATION, Ability.LINKS)
NO_DISKS = (Ability.DISKS, Ability.POWER)

_numbers = itertools.count(1)  # of clusters of this process


def find_missing(*, on_loopback: bool = False) -> dict[Ability, str]:
    """What an own cluster can't offer on this machine, and why."""
    missing = dict(_find_missing())
    if on_loopback:
        missing |= dict.fromkeys(NO_HOSTS, "its hosts are all on loopback, as was asked for")
    return missing


@functools.cache
def _find_missing() -> dict[Ability, str]:
    """It is tried, which takes a moment, and the machine stays the same while we run."""
    no_hosts = network_module.find_obstacle()
    found = {
        **dict.fromkeys(NO_HOSTS, no_hosts),
        Ability.LINKS: no_hosts or links.find_obstacle(),
        **dict.fromkeys(NO_DISKS, loop_disk.find_obstacle()),
        Ability.SYNCS: strace.find_obstacle(),
        Ability.CLOCKS: clocks.find_obstacle(),
    }
    return {ability: _advise(obstacle) for ability, obstacle in found.items() if obstacle is not None}


def _advise(obstacle: str) -> str:
    return f"{obstacle}; run the harness as root for it" if "root" in obstacle else obstacle


class OwnCluster(Cluster):
    """Managers m1… and agents n1…; `settings` and `agent_settings` go over those of ClusterFiles. Use it as an async context
    manager: the daemons run once it is entered, and `ready` waits until they are a cluster. Raises OSError, MachineLacks.
    """

    kind = "own"

    def __init__(
        self,
        ledger: Ledger,
        managers: int = 3,
        agents: int = 2,
        *,
        settings: Mapping[str, Any] | None = None,
        agent_settings: Mapping[str, Any] | None = None,
        hasched: Sequence[str] = (),
        seed: int = 0,
        on_loopback: bool = False,
    ) -> None:
        self._ledger = ledger
        self._tag = f"{FOLDER_PREFIX}{ledger.run_id}-{next(_numbers)}"
        self._hasched = list(hasched) or [sys.executable, "-m", "hasched"]
        self._seed = seed
        self._ends: list[Callable[[], object]] = []  # what takes away what was made, the latest last
        self.name = "chaos"
        self.managers = [f"m{number}" for number in range(1, managers + 1)]
        self.agents = [f"n{number}" for number in range(1, agents + 1)]
        self.missing = find_missing(on_loopback=on_loopback)
        self.folder = Path(tempfile.gettempdir()) / self._tag
        self.daemons = Daemons(ledger, self.folder)
        self.processes = self.daemons
        self.hosts: HostNetwork | None = None
        self.files = ClusterFiles(self.folder, settings or {}, agent_settings or {})
        self._network: BridgeNetwork | None = None
        self._disks: LoopDisks | None = None
        self._syncs = StraceSyncs(ledger, self.daemons)
        self._clocks: ShimClocks | None = None
        self._members = OwnMembers(self, ledger)

    # --- parts ---

    @property
    def network(self) -> Network:
        self.require([Ability.CUTS])
        assert self._network is not None, "the cluster is entered"
        return self._network

    @property
    def disks(self) -> Disks:
        self.require(NO_DISKS)
        assert self._disks is not None, "the cluster is entered"
        return self._disks

    @property
    def syncs(self) -> Syncs:
        self.require([Ability.SYNCS])
        return self._syncs

    @property
    def clocks(self) -> Clocks:
        self.require([Ability.CLOCKS])
        assert self._clocks is not None, "the cluster is entered"
        return self._clocks

    @property
    def members(self) -> Members:
        return self._members

    @property
    def hasched(self) -> list[str]:
        return self._hasched

    @property
    def scratch(self) -> str:
        return str(self.folder / "scratch")

    def context(self, *managers: str) -> Context:
        return self.files.context(*managers)

    def logs(self) -> dict[str, str]:
        """With how each ended, if it did."""
        dead = self.daemons.dead()
        names = sorted(path.stem for path in self.folder.glob("*.log"))
        ends = {name: f"\n(ended with {dead[name]})" if name in dead else "" for name in names}
        return {name: self.daemons.last_lines(name) + ends[name] for name in names}

    # --- life ---

    async def __aenter__(self) -> OwnCluster:
        try:
            await in_thread(self._set_up)
            for name in (*self.managers, *self.agents):
                await self.daemons.start(name)
        except BaseException:
            await self._take_down()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._take_down()

    async def ready(self, patience_s: float = READY_S) -> None:
        """Until it is whole (`chaos.wholeness`). Raises Unsettled."""
        lacks = "nobody has answered yet"
        try:
            async with asyncio.timeout(patience_s), self.client(timeout_s=patience_s) as client:
                while True:
                    try:
                        page, nodes = await client.managers(), await client.nodes()
                    except HaschedError as refused:
                        lacks = refused.cause
                    else:
                        found = obstacles(page, nodes, self.managers, self.agents)
                        if not found:
                            return
                        lacks = "; ".join(found)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            ended = [
                f"{name} ended with {status}, and said last: {self.daemons.last_lines(name, 1)}"
                for name, status in self.daemons.dead().items()
            ]
            cause = "; ".join([f"after {patience_s:.0f} s: {lacks}", *ended])
            raise Unsettled(cause, f"see the logs in {self.folder}") from None

    # --- building ---

    def _set_up(self) -> None:
        armed = self._arm(RemoveFolder(str(self.folder)), "the cluster's folder")
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            armed.strike_off()
            self._ends.clear()
            raise MachineLacks(f"{self.folder} is there already, and not ours", "run the command again") from None
        (self.folder / "scratch").mkdir()
        self.files.create()
        if Ability.DISKS not in self.missing:
            self._disks = LoopDisks(self._ledger, self.daemons, self.folder / "disks", [*self.managers, *self.agents])
            self._ends.append(self._disks.take_down)
            self._disks.set_up()
        if Ability.CLOCKS not in self.missing:
            self._clocks = ShimClocks(self._ledger, self.folder / "clocks")
            self._clocks.set_up()
        if Ability.CUTS not in self.missing:
            self._set_up_network()
        self._arm(KillMarked(str(self.folder)), "the cluster's daemons, supervisors and tasks")
        self.files.members += map(self.make_member, self.managers)
        for member in self.files.members:
            self.files.write_manager(member, self.data_dir(member.name))
            self._add_launch(member.name, "manager")
        for name in self.agents:
            self.files.write_agent(name, self.data_dir(name))
            self._add_launch(name, "agent")

    def _set_up_network(self) -> None:
        self.hosts = HostNetwork([*self.managers, *self.agents], tag=f"{self._tag}-")
        for namespace in self.hosts.namespaces():
            self._arm(Namespace(namespace), f"the network namespace {namespace}")
        self._arm(Interface(self.hosts.outside), "the link to the hosts")
        self.hosts.build()
        self._network = BridgeNetwork(self._ledger, self.hosts, seed=self._seed)

    def add_manager(self, name: str) -> Member:
        """The files and the host of one more manager that joins; it is not started. Blocks."""
        if self.hosts is not None:
            self._arm(Namespace(self.hosts.namespace(name)), f"the network namespace of {name}")
            self.hosts.add_host(name)
        if self._disks is not None:
            self._disks.add(name)
        member = self.make_member(name)
        self.files.members.append(member)
        self.files.write_manager(member, self.data_dir(name), join=True)
        self._add_launch(name, "manager")
        return member

    def forget_manager(self, name: str) -> None:
        """Clients and new daemons aren't told of it any more."""
        self.files.members[:] = [member for member in self.files.members if member.name != name]

    def make_member(self, name: str) -> Member:
        """Its addresses. On loopback its ports are free at the moment."""
        host = self.hosts.address(name) if self.hosts is not None else LOOPBACK
        api, raft = (API_PORT, RAFT_PORT) if self.hosts is not None else free_ports(2)
        return Member(name, f"https://{host}:{api}", f"{host}:{raft}")

    def data_dir(self, name: str) -> Path:
        return self._disks.path(name) if self._disks is not None else self.folder / name

    def _add_launch(self, name: str, role: str) -> None:
        hosts, shim = self.hosts, self._clocks
        command = [*self._hasched, role, "start", "--config", str(self.files.config(name))]
        self.daemons.add(
            name,
            Launch(
                command=command if hosts is None else hosts.command(name) + command,
                data_dir=self.data_dir(name),
                environment=dict if shim is None else lambda: shim.environment(name),
                residents=list if hosts is None else lambda: hosts.residents(name),
            ),
        )

    def _arm(self, undo: Undo, what: str) -> Armed:
        armed = self._ledger.arm(undo, what)
        self._ends.append(armed.undo)
        return armed

    # --- the end ---

    async def _take_down(self) -> None:
        def take_down() -> None:
            self.daemons.kill_all()
            for end in reversed(self._ends):
                try:
                    end()
                except OSError:
                    continue  # it stays in the ledger, whose end tries once more and says what is left
            self._ends.clear()
            control_groups.sweep()

        await in_thread(take_down)
