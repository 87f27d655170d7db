"""Who the managers of an own cluster are, changed as an administrator does it: files and a daemon, then the API."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from chaos.cluster.steps import in_thread
from chaos.errors import Unsettled
from chaos.safety.audit import Act
from chaos.safety.ledger import Ledger
from chaos.wholeness import obstacles
from hasched.client.aio import AsyncClient
from hasched.model.errors import HaschedError, NotFound
from hasched.model.views import ManagerPage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chaos.cluster.own import OwnCluster

POLL_S = 0.1
CHANGE_S = 60.0
SERVER_ERRORS = 500  # from this status on


class OwnMembers:
    """Implements `Members`. One change at a time."""

    def __init__(self, cluster: OwnCluster, ledger: Ledger) -> None:
        self._cluster = cluster
        self._ledger = ledger
        self._lock = asyncio.Lock()
        self._used = len(cluster.managers)  # names are never used again

    async def add(self) -> str:
        """Raises Unsettled if it has no vote in time; then it stays wanted, and is among the managers. Any other error: the
        cluster would not have it, and it is gone again."""
        cluster = self._cluster
        async with self._lock:
            self._used += 1
            name = f"m{self._used}"
            await self._note(f"{name} is added to the managers")
            member = await in_thread(lambda: cluster.add_manager(name))
            await cluster.daemons.start(name)
            try:
                await self._insist(lambda client: client.add_manager(name, member.api, member.raft))
            except BaseException:
                with contextlib.suppress(HaschedError):  # if it was wanted after all
                    await self._insist(lambda client: client.remove_manager(name))
                await self._stop(name)
                raise
            cluster.managers.append(name)
            await self._until(f"a vote of {name}", lambda page: not obstacles(page, None, [name], []))
        return name

    async def remove(self, manager: str) -> None:
        """From when the cluster has agreed it is no longer among the managers. Raises Unsettled if the others don't go on
        without it in time; then its daemon still runs."""
        cluster = self._cluster
        async with self._lock:
            await self._note(f"{manager} is removed from the managers")
            with contextlib.suppress(NotFound):  # it was heard, though its answer wasn't
                await self._insist(lambda client: client.remove_manager(manager))
            cluster.managers.remove(manager)
            cluster.forget_manager(manager)
            await self._until(f"{manager} to be out", lambda page: all(each.id != manager for each in page.managers))
            await self._stop(manager)

    async def _note(self, what: str) -> None:
        await in_thread(lambda: self._ledger.audit.write(Act.STRIKE, what))

    async def _stop(self, manager: str) -> None:
        self._cluster.forget_manager(manager)
        try:
            await self._cluster.daemons.terminate(manager)
        except Unsettled:  # it is being frozen
            await self._cluster.daemons.kill(manager)
        self._cluster.daemons.forget(manager)

    async def _insist(self, change: Callable[[AsyncClient], Awaitable[object]]) -> None:
        """Both changes may be asked for again and again, so nobody need wonder whether one was made. Raises HaschedError."""
        deadline = time.monotonic() + CHANGE_S
        async with self._cluster.client(timeout_s=CHANGE_S) as client:
            while True:
                try:
                    await change(client)
                    return
                except HaschedError as error:
                    if error.status < SERVER_ERRORS or time.monotonic() > deadline:
                        raise
                await asyncio.sleep(POLL_S)

    async def _until(self, what: str, probe: Callable[[ManagerPage], bool]) -> None:
        last = "nobody answered"
        try:
            async with asyncio.timeout(CHANGE_S), self._cluster.client() as client:
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
            raise Unsettled(
                f"waited {CHANGE_S:.0f} s in vain for {what}; {last}",
                f"see the managers' logs in {self._cluster.folder}, while the cluster is there, or in the report",
            ) from None
