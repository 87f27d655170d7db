"""Who the managers of an own cluster are, changed as an administrator does it: files and a daemon, then the API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chaos.cluster.steps import in_thread
from chaos.errors import Unsettled
from hasched.model.errors import HaschedError
from hasched.model.views import ManagerPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.cluster.own import OwnCluster

POLL_S = 0.1
CHANGE_S = 60.0


class OwnMembers:
    """Implements `Members`. One change at a time."""

    def __init__(self, cluster: OwnCluster) -> None:
        self._cluster = cluster
        self._lock = asyncio.Lock()
        self._used = len(cluster.managers)  # names are never used again

    async def add(self) -> str:
        """Raises Unsettled if it has no vote in time; then it stays wanted, and is among the managers."""
        cluster = self._cluster
        async with self._lock:
            self._used += 1
            name = f"m{self._used}"
            member = await in_thread(lambda: cluster.add_manager(name))
            cluster.managers.append(name)
            await cluster.daemons.start(name)
            async with cluster.client() as client:
                await client.add_manager(name, member.api, member.raft)
            await self._until(f"a vote of {name}", lambda page: _votes(page, name))
        return name

    async def remove(self, manager: str) -> None:
        """Raises Unsettled if the others don't go on without it in time; then it is still there."""
        cluster = self._cluster
        async with self._lock:
            others = [name for name in cluster.managers if name != manager]
            async with cluster.client(*others) as client:
                await client.remove_manager(manager)
            await self._until(
                f"{manager} to be out", lambda page: all(each.id != manager for each in page.managers), *others
            )
            cluster.managers.remove(manager)
            cluster.files.members[:] = [member for member in cluster.files.members if member.name != manager]
            await cluster.daemons.terminate(manager)
            cluster.daemons.forget(manager)

    async def _until(self, what: str, probe: Callable[[ManagerPage], bool], *asked: str) -> None:
        last = "nobody answered"
        try:
            async with asyncio.timeout(CHANGE_S), self._cluster.client(*asked) as client:
                while True:
                    try:
                        page = await client.managers()
                    except HaschedError as error:
                        last = error.cause
                    else:
                        if probe(page):
                            return
                        last = ", ".join(f"{each.id} is {each.membership}" for each in page.managers)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise Unsettled(f"waited {CHANGE_S:.0f} s in vain for {what}; {last}") from None


def _votes(page: ManagerPage, name: str) -> bool:
    return any(each.id == name and each.membership == "voter" and each.filled is not False for each in page.managers)
