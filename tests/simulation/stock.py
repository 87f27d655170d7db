"""The negative control: stock pysyncobj 0.3.17 in the same network, under the same faults, clients and checks.

What its journal was told is there after a kill, as files are. A power cut takes what the kernel had not written back yet,
since the library never syncs; the profile `stock` has none, so nothing that is found there comes from its files. No
snapshots are taken. A read is a replicated command that does nothing, since
the library has no other that is linearizable. Errors that it gives for commands whose fate it doesn't know are taken as
`OutcomeUnknown`. What is left is its consensus.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated, syncobj
from pysyncobj.journal import MemoryJournal
from pysyncobj.transport import Transport

from hasched.model.errors import HaschedError, NoLeader, OutcomeUnknown
from hasched.raft.replica import ReplicaStatus
from hasched.raft.surroundings import NoPoller, Peer
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import Command, decode_batch, encode_batch, encode_command
from hasched.statemachine.outcomes import Outcome
from hasched.statemachine.state import State
from tests.simulation.checks import Checks
from tests.simulation.clocks import HostClock
from tests.simulation.loop import HostLoop
from tests.simulation.network import Certificate, End
from tests.simulation.patches import Patches
from tests.simulation.sockets import API_PORT

if TYPE_CHECKING:
    from tests.simulation.world import World

PORT = 4321
LEADER = 2
TICK_S = 0.05
NOTHING_WAS_DONE = (
    FAIL_REASON.QUEUE_FULL,
    FAIL_REASON.MISSING_LEADER,
    FAIL_REASON.NOT_LEADER,
    FAIL_REASON.REQUEST_DENIED,
)


class StockTransport(Transport):  # type: ignore[misc]
    """One connection for each pair, dialled by the one with the smaller name, as the library's own does it."""

    def __init__(self, host: StockManager, peers: dict[str, Peer]) -> None:
        super().__init__(None, None, ())
        self._host = host
        self._peers = peers
        self._ends: dict[str, End] = {}

    def open(self) -> None:
        network, loop = self._host.world.network, self._host.loop
        network.listen_for(loop, PORT, self._accept, self._host.certificate)
        for name in self._peers:
            if self._host.name < name:
                loop.create_task(self._keep_dialling(name))

    def send(self, node: Peer, message: dict[str, Any]) -> bool:
        end = self._ends.get(node.id)
        if end is None:
            return False
        end.send(message)
        return True

    async def _keep_dialling(self, name: str) -> None:
        loop = self._host.loop
        while True:
            lost = loop.create_future()
            with suppress(OSError):
                end = await self._host.world.network.dial(loop, name, PORT, self._host.certificate)
                self._use(end, name, lambda _, lost=lost: None if lost.done() else lost.set_result(None))
                await lost
            await asyncio.sleep(self._host.random.uniform(0.1, 0.5))

    def _accept(self, end: End) -> None:
        self._use(end, end.other.host, lambda _: None)

    def _use(self, end: End, name: str, on_lost: Callable[[Any], None]) -> None:
        older = self._ends.pop(name, None)
        if older is not None:
            older.abort()
        self._ends[name] = end

        def lose(error: Any) -> None:
            if self._ends.get(name) is end:
                del self._ends[name]
                self._onNodeDisconnected(self._peers[name])
            on_lost(error)

        def take(message: dict[str, Any]) -> None:
            if self._ends.get(name) is end:
                with suppress(Exception):  # its own thread logs it, and goes on without the message
                    self._onMessageReceived(self._peers[name], message)
                self._host.tick()

        end.on_data, end.on_lost = take, lose
        self._onNodeConnected(self._peers[name])


class StockReplica(SyncObj):  # type: ignore[misc]
    """What clients use of `hasched.raft.replica.Replica`, over the library as it is."""

    def __init__(self, host: StockManager) -> None:
        tuning = host.world.settings.tuning
        conf = SyncObjConf(
            autoTick=False,
            raftMinTimeout=tuning.election_min_s,
            raftMaxTimeout=tuning.election_max_s,
            appendEntriesPeriod=tuning.beat_s,
            appendEntriesBatchSizeBytes=tuning.append_bytes,
            connectionTimeout=2 * tuning.election_max_s,
            useFork=False,
            logCompactionMinEntries=10**9,
            logCompactionMinTime=10**9,
            onStateChanged=self._changed,
        )
        self.host = host
        self.state = State()
        peers = {name: Peer(name, place) for place, name in enumerate(sorted(host.world.managers))}
        myself = peers.pop(host.name)
        self.links = StockTransport(host, peers)
        super().__init__(myself, list(peers.values()), conf, transport=self.links)
        self._poller = NoPoller()

    def _changed(self, _before: int, now: int) -> None:
        if now == LEADER:
            self.host.became_leader(self.host.name, self.term)

    @property
    def term(self) -> int:
        return int(self.raftCurrentTerm)

    @property
    def status(self) -> ReplicaStatus:
        role = "leader" if self._isLeader() else "follower"
        applied = int(self.raftLastApplied)
        return ReplicaStatus(self.host.name, role, self.term, None, applied, int(self.raftCommitIndex), applied, [])

    @replicated  # type: ignore[untyped-decorator]
    def apply_batch(self, data: bytes) -> list[Outcome]:
        applied = apply(self.state, self.raftLastApplied + 1, decode_batch(data))
        for watch in self.host.world.on_applied:
            watch(self.host, applied)
        return applied.outcomes

    async def propose(self, command: Command) -> Outcome:
        return (await self.propose_many([command]))[0]

    async def propose_many(self, commands: Sequence[Command]) -> list[Outcome]:
        future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()

        def settle(outcomes: list[Outcome] | None, failure: int) -> None:
            if future.done():
                return
            if failure == FAIL_REASON.SUCCESS and outcomes is not None:
                future.set_result(outcomes)
            else:
                future.set_exception(_error_of(failure))

        now_ms = max(self.host.clock.wall_ms(), self.state.now_ms)
        self.apply_batch(encode_batch(now_ms, [encode_command(each) for each in commands]), callback=settle)
        return await future

    async def read_barrier(self) -> int:
        await self.propose_many([])
        return int(self.raftLastApplied)


def _error_of(failure: int) -> HaschedError:
    if failure in NOTHING_WAS_DONE:
        return NoLeader(f"failure {failure}", "retry")
    return OutcomeUnknown(f"failure {failure}", "retry with the same submission id")


class StockManager:
    """A host of the simulated world that runs the library. Its disk keeps what it was told."""

    loop: HostLoop
    replica: StockReplica
    powered = True
    joins = False
    unsynced = False  # for all it knows
    became_leader: Callable[[str, int], None]

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.random = world.stream(f"manager {name}")
        self.clock = HostClock(world, self.random)
        self.certificate = Certificate("manager", name)
        self.journal = MemoryJournal()
        self._written: tuple[list[Any], int, Any] = ([], 0, None)
        self.alive = False
        self.lives = 0

    def start(self) -> None:
        if not self.alive:
            if not self.lives:
                self._write_back()
            self.alive, self.powered, self.lives = True, True, self.lives + 1
            self.loop = HostLoop(self.world, self.name, self.clock, lambda: 0.0)
            self.loop.create_task(self._live())

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            self.loop.die()
            self.world.inter(self.loop)
            self.world.network.drop_process(self.loop)

    def cut_power(self) -> None:
        """Back to what the kernel has written back."""
        if self.alive:
            self.alive = False
            self.loop.die()
            self.world.inter(self.loop)
            self.world.network.drop_machine(self.loop)
        self.powered = False
        entries, term, vote = self._written
        self.journal = MemoryJournal()
        for entry in entries:
            self.journal.add(*entry)
        self.journal.setCurrentTerm(term, vote)

    def cut_power_at(self, _operation: int, _back_after_s: float) -> None:
        self.cut_power()

    def _write_back(self) -> None:
        """As the kernel does, some time after a page was written."""
        journal = self.journal
        self._written = (journal[:], journal.getCurrentTerm(), journal.getVotedForNodeId())
        self.world.after(self.random.uniform(0.5, 5.0), self._write_back)

    def pause(self) -> None:
        if self.alive:
            self.loop.pause()

    def go_on(self) -> None:
        if self.alive:
            self.loop.go_on()

    def heal(self) -> None:
        self.go_on()
        self.start()

    @property
    def running(self) -> bool:
        return self.alive and self.loop.open

    @property
    def leads(self) -> bool:
        return self.running and bool(self.replica._isLeader())

    @property
    def core(self) -> SimpleNamespace:
        """As much of the product's as the harness asks for: the members are the founders."""
        membership = SimpleNamespace(voters=sorted(self.world.managers))
        return SimpleNamespace(engine=SimpleNamespace(membership=membership))

    async def _live(self) -> None:
        try:
            await self._serve()
        except Exception as error:
            self.world.complain(self.name, "the library failed", error)

    async def _serve(self) -> None:
        with Patches() as patches:
            patches.set(syncobj, "createJournal", lambda _: self.journal)
            self.replica = StockReplica(self)
        for tell in self.world.on_start:
            tell(self)
        self.replica.links.open()
        self.world.network.listen_for(self.loop, API_PORT, self._accept, self.certificate)
        self.loop.open = True
        while True:
            self.tick()
            await asyncio.sleep(TICK_S)

    def tick(self) -> None:
        """As its own thread does it: what is raised is tried again later."""
        with suppress(Exception):
            self.replica._onTick()

    def _accept(self, end: End) -> None:
        end.on_data = lambda work: self.loop.create_task(self._answer(end, work))
        end.on_lost = lambda _: None

    async def _answer(self, end: End, work: Any) -> None:
        try:
            answer: Any = await work(self)
        except Exception as error:
            answer = error
        end.send((answer,))


class StockChecks(Checks):
    """Those that look inside the product's engine have nothing to look at."""

    def _check_matches(self, manager: Any) -> None:
        pass

    def _started(self, manager: Any) -> None:
        self.monotone.restarted(manager.name)


def use_stock(world: World, patches: Patches, checks: Checks) -> None:
    """Put the library in place of every manager of the world."""
    logging.getLogger("pysyncobj").setLevel(logging.CRITICAL + 1)
    patches.set(syncobj, "random", Random(f"stock {world.seed}"))
    world.managers = {name: StockManager(world, name) for name in world.managers}  # type: ignore[misc]
    for manager in world.managers.values():
        manager.became_leader = checks.became_leader  # type: ignore[attr-defined]
    world.agree = lambda: agree(world)  # type: ignore[method-assign]


def agree(world: World) -> bool:
    replicas = [manager.replica for manager in world.managers.values() if manager.running]
    seen = {(replica.raftLastApplied, replica.raftCommitIndex, replica.raftCurrentTerm) for replica in replicas}
    return world.leader() is not None and len(replicas) == len(world.managers) and len(seen) == 1
