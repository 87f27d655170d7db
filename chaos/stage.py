"""What a nemesis is given: the cluster, its own chance, and who it may hit without stepping on others' toes.

`spare` keeps the promise testable: harm that a majority must survive (a lost disk, a damaged file) may only hit one manager
at a time, and only while all others are whole. Kills, freezes and cuts may hit anybody at any time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from chaos.abilities import Ability
from chaos.cluster.base import Cluster, Fault, Pair
from chaos.record import Record, Struck
from chaos.wholeness import obstacles
from hasched.model.errors import HaschedError
from hasched.model.views import ManagerPage

LOOK_TIMEOUT_S = 5.0
RECOVERED_S = 60.0  # until whoever was hit takes part again
POLL_S = 0.1
ASK_S = 0.3


class Skipped(Exception):
    """There is nobody to hit, or it would break more than the promise covers; the text says which."""


class Claims:
    """Who is being hit at the moment. One of these for all stages of a run."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.links: list[Pair] = []
        self.fragile = asyncio.Lock()  # held by whoever endangers a manager's disk


class Stage:
    """For one strike. `chance` comes from the strike's own seed, so that it draws the same whatever others do."""

    def __init__(
        self, cluster: Cluster, record: Record, claims: Claims, struck: Struck, *, seed: str, over: asyncio.Event
    ) -> None:
        self.cluster = cluster
        self.record = record
        self.chance = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self._claims = claims
        self._struck = struck
        self._over = over

    # --- time ---

    async def hold(self, seconds: float) -> None:
        """Let so much time pass; less if the run is being ended."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    async def until(self, probe: Callable[[], object], seconds: float) -> bool:
        """Whether `probe` came true in time."""
        try:
            async with asyncio.timeout(seconds):
                while not probe():  # noqa: ASYNC110 - of a process, a file: nothing tells when
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            return False
        return True

    async def under(self, seconds: float, *faults: Fault) -> None:
        """All these faults together, for so long."""
        async with AsyncExitStack() as harm:
            for fault in faults:
                await harm.enter_async_context(fault)
            await self.hold(seconds)

    async def eventually(self, probe: Callable[[], Awaitable[object]], seconds: float) -> bool:
        """Whether `probe`, which asks the cluster, came true in time. That it can't be asked counts as not yet."""
        try:
            async with asyncio.timeout(seconds):
                while not await self._ask(probe):  # noqa: ASYNC110 - the cluster is asked again and again
                    await asyncio.sleep(ASK_S)
        except TimeoutError:
            return False
        return True

    @staticmethod
    async def _ask(probe: Callable[[], Awaitable[object]]) -> object:
        try:
            return await probe()
        except (HaschedError, Skipped):
            return None

    def note(self, text: str) -> None:
        """For the report: what was done, what came of it."""
        self._struck.notes.append(text)

    # --- whom to hit ---

    @asynccontextmanager
    async def claim(self, *names: str) -> AsyncIterator[None]:
        """These are ours for a while. Raises Skipped if somebody has one of them."""
        taken = [name for name in names if name in self._claims.held]
        if taken:
            raise Skipped(f"{taken[0]} is being hit already")
        self._claims.held += names
        self._struck.targets += [name for name in names if name not in self._struck.targets]
        try:
            yield
        finally:
            for name in names:
                self._claims.held.remove(name)

    @asynccontextmanager
    async def claim_links(self, pairs: Sequence[Pair], *targets: str) -> AsyncIterator[None]:
        """These links are ours, whoever hits the daemons at their ends; `targets` is what the report shows. Raises Skipped."""
        taken = [pair for pair in pairs if pair in self._claims.links]
        if taken:
            raise Skipped(f"the link from {taken[0][0]} to {taken[0][1]} is being hit already")
        self._claims.links += pairs
        self._struck.targets += [name for name in targets if name not in self._struck.targets]
        try:
            yield
        finally:
            for pair in pairs:
                self._claims.links.remove(pair)

    @asynccontextmanager
    async def spare_manager(self) -> AsyncIterator[str]:
        """A manager whose disk the others can do without: all are voters, filled and reachable. It is ours until its disk is
        filled again: until then it is one of those that may be lost. Raises Skipped.
        """
        if self._claims.fragile.locked():
            raise Skipped("another manager's disk is in danger already")
        async with self._claims.fragile:
            page = await self.look()
            if obstacles(page, None, self.cluster.managers, []) or self._claims_managers():
                raise Skipped("not all managers are whole")
            name = self.chance.choice(self.free(self.cluster.managers))
            async with self.claim(name):
                self._struck.endangered.append(name)
                yield name
                if not await self.recovers(name):
                    self.note(f"{name} was not a filled voter again after {RECOVERED_S:.0f} s")

    async def recovers(self, name: str, seconds: float = RECOVERED_S) -> bool:
        """Whether the leader counts on this manager and its disk, or has a stream to this agent, in time. One that has ended
        is started, by whoever does that here."""

        async def probe() -> bool:
            if Ability.RESTARTS not in self.cluster.missing:
                await self.cluster.processes.start(name)
            if name in self.cluster.managers:
                return not obstacles(await self.look(), None, [name], [])
            async with self.cluster.client(timeout_s=LOOK_TIMEOUT_S) as client:
                return (await client.node(name)).connected

        return await self.eventually(probe, seconds)

    def free(self, names: Iterable[str]) -> list[str]:
        """Those that nobody is hitting. Raises Skipped if there is none."""
        found = [name for name in names if name not in self._claims.held]
        if not found:
            raise Skipped("everybody is being hit already")
        return found

    def any_manager(self) -> str:
        return self.chance.choice(self.free(self.cluster.managers))

    def any_agent(self) -> str:
        return self.chance.choice(self.free(self.cluster.agents))

    def some(self, names: Sequence[str], count: int) -> list[str]:
        """So many of them that are free. Raises Skipped."""
        found = self.free(names)
        if len(found) < count:
            raise Skipped(f"only {len(found)} of {len(names)} are free")
        return self.chance.sample(found, count)

    async def leader(self) -> str:
        """Raises Skipped if nobody leads, or if it is being hit already."""
        leader = (await self.look()).leader
        if leader is None:
            raise Skipped("nobody leads")
        self.free([leader])
        return leader

    async def look(self) -> ManagerPage:
        """The managers as the first to answer describes them. Raises Skipped if none does."""
        try:
            async with self.cluster.client(timeout_s=LOOK_TIMEOUT_S) as client:
                return await client.managers()
        except HaschedError as error:
            raise Skipped(f"no manager answers: {error.cause}") from None

    def _claims_managers(self) -> bool:
        return any(name in self._claims.held for name in self.cluster.managers)
