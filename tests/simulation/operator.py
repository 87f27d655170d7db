"""The operator of a simulated cluster: adds and removes managers, through whichever manager answers."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

from hasched.model.errors import HaschedError
from hasched.statemachine.commands import AddManager, Command, RemoveManager
from tests.simulation.manager import SimulatedManager, ask, member
from tests.simulation.network import Certificate

if TYPE_CHECKING:
    from tests.simulation.world import World

PATIENCE_S = 8.0


class Operator:
    """One change at a time is begun; each is told again and again until a manager has taken it."""

    def __init__(self, world: World) -> None:
        self.busy = False
        self.retired: list[SimulatedManager] = []
        self._world = world
        self._random = world.stream("operator")
        self._loop = world.client("operator")
        self._numbers = count(len(world.managers) + 1)

    def grow(self, by: int) -> None:
        self._begin(self._add(by))

    def shrink(self, names: list[str]) -> None:
        self._begin(self._remove(names))

    @property
    def done(self) -> bool:
        """The managers that there are to be are the members, and all of them vote."""
        leader = self._world.leader()
        if self.busy or leader is None:
            return False
        return leader.core.engine.membership.voters == sorted(self._world.managers)

    def close(self) -> None:
        """At the end of the world."""
        for manager in self.retired:
            manager.kill()

    def _begin(self, change: Any) -> None:
        self.busy = True
        self._loop.create_task(change)

    async def _add(self, by: int) -> None:
        for name in [f"m{next(self._numbers)}" for _ in range(by)]:
            managers = self._world.managers
            managers[name] = SimulatedManager(self._world, name, list(managers))
            managers[name].start()
            there = member(name)
            await self._tell(
                AddManager(actor="operator", manager_id=name, api_url=there.api_url, raft_address=there.raft_address)
            )
        self.busy = False

    async def _remove(self, names: list[str]) -> None:
        """Who was removed runs on, until somebody thinks of stopping it."""
        await self._tell(*(RemoveManager(actor="operator", manager_id=name) for name in names))
        for name in names:
            while self._is_member(name):
                await asyncio.sleep(0.2)
            retired = self._world.managers.pop(name)
            self.retired.append(retired)
            self._world.after(5 * self._world.settings.tuning.election_max_s, retired.kill)
        self.busy = False

    def _is_member(self, name: str) -> bool:
        leader = self._world.leader()
        return leader is None or leader.core.engine.membership.get(name) is not None

    async def _tell(self, *commands: Command) -> None:
        certificate = Certificate("user", "operator")
        while True:
            manager = self._random.choice(list(self._world.managers))
            try:
                async with asyncio.timeout(PATIENCE_S):
                    outcomes = await ask(
                        self._loop, certificate, manager, lambda host: host.replica.propose_many(commands)
                    )
                self._world.note("operator", repr(commands), repr(outcomes))
                if getattr(outcomes[0], "code", "") != "managers_not_recorded":
                    return
            except (HaschedError, OSError):
                pass
            await asyncio.sleep(self._random.uniform(0.2, 1.0))
