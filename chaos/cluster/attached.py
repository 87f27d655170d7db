"""A cluster that runs already, as its context, its API and this machine's processes show it.

What can be done to it is little: signals to those of its daemons that run here and are ours to signal, and as root cutting
this machine's manager off. Whoever starts its daemons starts them again, too.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chaos.abilities import Ability
from chaos.cluster.base import LEAVE_OUT, Clocks, Cluster, Disks, Members, Network, Syncs
from chaos.cluster.found import Sought, find
from chaos.cluster.running import RunningProcesses
from chaos.cluster.shut_off import ShutOff, find_shut_off_obstacle
from chaos.errors import MachineLacks
from chaos.safety.ledger import Armed, Ledger
from chaos.safety.undo import FOLDER_PREFIX, RemoveFolder
from hasched.client.aio import AsyncClient
from hasched.client.context import Context, load_context
from hasched.model.views import ManagerView

LOOK_TIMEOUT_S = 20.0
LOG_BYTES = 16 * 1024
_OWN = "the harness can only do that to a cluster that it made itself; leave out --attach"
_MISSING = {
    Ability.RESTARTS: f"its daemons are started by whoever keeps it running; {_OWN}",
    Ability.CUTS: f"its network is not ours to cut; {_OWN}",
    Ability.LINKS: f"its network is not ours to slow down; {_OWN}",
    Ability.DISKS: f"its disks hold real data; {_OWN}",
    Ability.POWER: f"its disks hold real data; {_OWN}",
    Ability.SYNCS: f"its daemons are not ours to trace; {_OWN}",
    Ability.CLOCKS: f"its daemons run by the machine's clock; {_OWN}",
    Ability.MEMBERSHIP: f"its managers are not ours to replace; {_OWN}",
}


class AttachedCluster(Cluster):
    """`left_out` are sentences about daemons that can't be hit, because they are elsewhere or somebody else's."""

    kind = "attached"

    def __init__(self, context: Context, name: str, managers: list[ManagerView], agents: list[str]) -> None:
        self.name = name
        self.managers = [each.id for each in managers]
        self.agents = agents
        self._context = context
        self._views = {each.id: each for each in managers}
        sought = Sought(
            cluster=name,
            managers={each.id: each.api_url.removesuffix("/") for each in managers},
            agents=agents,
            ca=str(Path(context.ca).expanduser()),
        )
        found = find(sought)
        self.left_out = [found.why_not(each) for each in [*self.managers, *agents] if each not in found.daemons]
        self._elsewhere = [each for each in agents if each not in found.daemons and each not in found.not_ours]
        self.processes: RunningProcesses = RunningProcesses(sought, found)
        self.missing = dict(_MISSING)
        if not found.daemons:
            self.missing[Ability.SIGNALS] = (
                f"none of its daemons is here for you to signal ({self.left_out[0] if self.left_out else 'it has none'}); "
                "run this on one of its machines, as the user of its daemons or as root"
            )
        obstacle = find_shut_off_obstacle(self.managers, found)
        if obstacle:
            self.missing[Ability.ISOLATION] = obstacle
        self._scratch: Path | None = None
        self._armed_scratch: Armed | None = None
        self._network: ShutOff | None = None

    # --- life ---

    @classmethod
    async def look(cls, context_name: str | None) -> AttachedCluster:
        """Only looked at: without a ledger nothing can be done to it. Raises the errors of the client."""
        context = load_context(context_name)
        async with AsyncClient(context, LOOK_TIMEOUT_S) as client:
            cluster, page, nodes = await client.cluster(), await client.managers(), await client.nodes()
        managers = [each for each in page.managers if each.membership == "voter"]
        agents = [node.id for node in nodes.nodes if node.connected]
        return await asyncio.to_thread(cls, context, cluster.cluster, managers, agents)

    @classmethod
    async def attach(cls, context_name: str | None, ledger: Ledger) -> AttachedCluster:
        """The cluster of the context, the current one by default; `ledger` undoes what is done to it."""
        cluster = await cls.look(context_name)
        ledger.audit.cluster = cluster.name
        cluster.processes.ledger = ledger
        cluster._make_scratch(ledger)
        if Ability.ISOLATION not in cluster.missing:
            cluster._network = ShutOff(ledger, list(cluster._views.values()), cluster.processes)
        return cluster

    @classmethod
    @asynccontextmanager
    async def attached(cls, context_name: str | None, ledger: Ledger) -> AsyncIterator[AttachedCluster]:
        """As `attach`; the cluster stays as it is when this ends."""
        cluster = await cls.attach(context_name, ledger)
        try:
            async with cluster.processes:
                yield cluster
        finally:
            cluster._remove_scratch()

    def _make_scratch(self, ledger: Ledger) -> None:
        """Agents of other users write there too; without the sticky bit, which would keep them from appending to our files."""
        path = Path("/tmp") / f"{FOLDER_PREFIX}{ledger.run_id}"  # noqa: S108 - its name is this run's, and it must be new
        armed = ledger.arm(RemoveFolder(str(path)), f"scratch directory {path}")
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            armed.strike_off()
            raise MachineLacks(f"{path} is there already, and not ours", "run the command again") from None
        others = [each for each in self.processes.uids(self.agents) if each != os.geteuid()]
        path.chmod(0o777 if others else 0o700)
        self._scratch, self._armed_scratch = path, armed

    def _remove_scratch(self) -> None:
        """One ledger may serve several attachments, one after the other."""
        if self._armed_scratch is not None:
            self._armed_scratch.undo()
            self._scratch = self._armed_scratch = None

    # --- what the harness sees of it ---

    @property
    def network(self) -> Network:
        if self._network is None:
            raise MachineLacks(
                f"{Ability.ISOLATION} can't be had here: {self.missing.get(Ability.ISOLATION, _OWN)}", LEAVE_OUT
            )
        return self._network

    @property
    def disks(self) -> Disks:
        raise self.lacks(Ability.DISKS)

    @property
    def syncs(self) -> Syncs:
        raise self.lacks(Ability.SYNCS)

    @property
    def clocks(self) -> Clocks:
        raise self.lacks(Ability.CLOCKS)

    @property
    def members(self) -> Members:
        raise self.lacks(Ability.MEMBERSHIP)

    @property
    def hasched(self) -> list[str]:
        return [sys.executable, "-P", "-m", "hasched"]

    @property
    def scratch(self) -> str:
        """Raises MachineLacks if tasks may run on other machines."""
        if self._elsewhere or self._scratch is None:
            raise MachineLacks(
                f"the tasks of {', '.join(self._elsewhere) or 'this cluster'} can't write to a directory of this machine",
                "what tasks did can only be seen from outside where all agents run on this machine",
            )
        return str(self._scratch)

    def context(self, *managers: str) -> Context:
        """By their API URLs as the cluster has them; without names, the user's own context."""
        if not managers:
            return self._context
        return Context([self._views[name].api_url for name in managers], self._context.ca, self._context.token)

    def logs(self) -> dict[str, str]:
        """Of those whose standard error is a file that we may read."""
        found = {}
        for name in [*self.managers, *self.agents]:
            pid = self.processes.pid(name)
            text = _end_of(Path(f"/proc/{pid}/fd/2")) if pid is not None else ""
            if text:
                found[name] = text
        return found


def _end_of(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
