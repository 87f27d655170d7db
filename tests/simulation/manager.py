"""A simulated manager: the product from its journal to its duties, on a host that can fail in every way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hasched.api.agents import AgentStreams, StreamSettings
from hasched.api.hub import AgentHub
from hasched.manager.leader import LeaderDuties
from hasched.model.errors import StorageFailed
from hasched.raft.core import Core
from hasched.raft.divergence import StateDiverged
from hasched.raft.environment import Environment
from hasched.raft.node import ReplicaConfig, ReplicaNode, open_replica
from hasched.raft.replica import Applied, Member
from tests.simulation.clocks import HostClock
from tests.simulation.disk import SimulatedDisk
from tests.simulation.loop import HostLoop
from tests.simulation.network import Certificate, End
from tests.simulation.sockets import API_PORT, SERVER_CLOSE_TIMEOUT_S, SimulatedSocket

if TYPE_CHECKING:
    from tests.simulation.world import World

CLUSTER = "simulated"
RAFT_PORT = 7412
DATA_DIR = Path("/data")
RESTART_S = 2.0  # after which the service manager starts a manager again that has failed
_T = TypeVar("_T")


def member(name: str) -> Member:
    return Member(name, f"https://{name}:{API_PORT}", f"{name}:{RAFT_PORT}")


class SimulatedManager:
    """One host with a disk, and the manager process that runs on it while it is up."""

    replica: ReplicaNode
    loop: HostLoop

    def __init__(self, world: World, name: str, founders: list[str]) -> None:
        """One that isn't among the `founders` waits to be added."""
        self.world = world
        self.name = name
        self.joins = name not in founders
        self.members = [member(each) for each in (*founders, *((name,) if self.joins else ()))]
        self.random = world.stream(f"manager {name}")
        settings = world.settings
        self.clock = HostClock(world, self.random, 1 + self.random.uniform(-settings.drift, settings.drift))
        self.clock.wall_ahead_ms = self.random.randint(-settings.skew_ms, settings.skew_ms)
        self.certificate = Certificate("manager", name)
        self.powered = True
        self.alive = False
        self.lives = 0
        self.disk = SimulatedDisk(world.stream(f"disk {name}"))
        self.disk.on_crash = self._lose_power
        self.slow_disk = 1.0  # so many times as slow as usual
        self._back_after_s = 0.0
        self.pauses = 0
        self.fenced = 0  # how often it stopped because its state had gone wrong
        self.failure: BaseException | None = None  # what ended its last life, if it ended by itself

    # --- what happens to it ---

    def start(self) -> None:
        """Its process begins, if it isn't running."""
        if self.alive:
            return
        if not self.powered:
            self.powered = True
            self.clock.reboot()
        self.lives += 1
        self.disk.start()
        self.alive, self.failure = True, None
        self.loop = HostLoop(self.world, self.name, self.clock, self.disk_delay)
        self._stop = asyncio.Event()
        self.world.note("start", self.name)
        self.loop.create_task(self._live(self.loop), name=f"manager {self.name}")

    def stop(self) -> None:
        """SIGTERM: it ends when it has handed over and let go of everything."""
        if self.alive:
            self.loop.deliver(self._stop.set)

    def kill(self) -> None:
        """SIGKILL: its kernel closes what it had open."""
        if self.alive:
            self.world.note("kill", self.name)
            self._end()
            self.disk.kill()
            self.world.network.drop_process(self.loop)

    def cut_power(self) -> None:
        """Nothing that wasn't synced is on its disk any more, and nobody is told that it is gone."""
        self.world.note("power cut", self.name)
        if self.alive:
            self._end()
            self.world.network.drop_machine(self.loop)
        self.disk.cut_power()
        self.powered = False

    def pause(self) -> None:
        """SIGSTOP."""
        if self.alive:
            self.world.note("pause", self.name)
            self.pauses += 1
            self.loop.pause()

    def go_on(self) -> None:
        if self.alive:
            self.loop.go_on()

    def wipe(self) -> None:
        """Its disk dies with it; it starts again with an empty one."""
        self.cut_power()
        self.disk.wipe()

    def cut_power_at(self, operation: int, back_after_s: float | None = None) -> None:
        """In the middle of the n-th thing that its disk changes from now on; it comes back after a while."""
        self._back_after_s = self.random.uniform(0.05, 3.0) if back_after_s is None else back_after_s
        self.disk.crash_at(operation)

    def _lose_power(self) -> None:
        """Told by the disk, whose power is cut already; the process is in the middle of something, and does nothing more."""
        self.cut_power()
        self.world.after(self._back_after_s, self.start)

    def flip_state(self) -> bool:
        """A bit of its memory flips, where nothing notices it at once. False if there is nothing yet that could."""
        jobs = list(self.replica.state.jobs.values()) if self.running else []
        if not jobs:
            return False
        job = self.random.choice(jobs)
        job.submitted_ms ^= 1
        self.world.flips += 1
        self.world.note("flip", self.name, job.id)
        return True

    def heal(self) -> None:
        self.disk.heal()
        self.slow_disk = 1.0
        self.go_on()
        self.start()

    def disk_delay(self) -> float:
        chance = self.random.random()
        for share, longest in self.world.settings.disk_s:
            if chance < share:
                return self.random.uniform(0, longest) * self.slow_disk
            chance -= share
        return 0.0

    # --- what it is ---

    @property
    def running(self) -> bool:
        """It has read its disk, and takes part."""
        return self.alive and self.loop.open

    @property
    def core(self) -> Core:
        """Of its latest life."""
        return self.replica._core

    @property
    def unsynced(self) -> bool:
        """Whether it knows what its disk doesn't, yet."""
        return self.core.engine._journal.dirty

    def clock_ms(self) -> int:
        """What an entry would carry now, by its own clock."""
        outer, self.world.running = self.world.running, self.loop
        try:
            return self.replica.clock_ms()
        finally:
            self.world.running = outer

    @property
    def has_vote(self) -> bool:
        return self.running and self.core.engine.voter

    @property
    def leads(self) -> bool:
        return self.running and not self.loop.paused and self.core.leading

    def run(self, work: Callable[[SimulatedManager], Awaitable[_T]]) -> asyncio.Task[_T]:
        """Have the manager's own process do something, as its API would."""
        return self.loop.create_task(work(self))  # type: ignore[return-value, arg-type]

    # --- its life ---

    def _end(self) -> None:
        self.alive = False
        self.loop.die()
        self.world.inter(self.loop)

    async def _live(self, loop: HostLoop) -> None:
        try:
            await self._serve(loop)
            failure: BaseException | None = None
        except BaseException as error:
            failure = error
        if loop.dead:
            return
        self.failure = failure
        flipped = isinstance(failure, StateDiverged) and self.world.flips
        self.fenced += isinstance(failure, StateDiverged)
        if isinstance(failure, StorageFailed) or flipped:
            self.world.note("failed", self.name, str(failure))
        elif failure is not None:
            self.world.complain(self.name, "the manager failed", failure)
        self.kill()
        if failure is not None:
            self.world.after(RESTART_S, self._restart, self.lives)

    def _restart(self, life: int) -> None:
        if life == self.lives:
            self.start()

    async def _serve(self, loop: HostLoop) -> None:
        """As `hasched.manager.main` does it."""
        replica = self._open()
        hub = AgentHub(loop.time)
        leading = self.world.settings.leading
        self.duties = duties = LeaderDuties(replica, hub, leading)
        self.streams = AgentStreams(
            replica, hub, StreamSettings(heartbeat_ms=leading.heartbeat_ms, lease_ms=leading.lease_ms)
        )
        self.replica, self.hub = replica, hub
        replica.subscribe(partial(self._note_applied, loop))
        for tell in self.world.on_start:
            tell(self)
        duties.start()
        await replica.start()
        network = self.world.network
        network.listen_for(loop, API_PORT, self._accept, self.certificate)
        loop.open = True
        failing = loop.create_task(replica.wait_failed())
        stopping = loop.create_task(self._stop.wait())
        try:
            await asyncio.wait([failing, stopping], return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                failing.result()
        finally:
            await duties.stop()
            network.unlisten(loop, API_PORT)
            await replica.stop()

    def _open(self) -> ReplicaNode:
        config = ReplicaConfig(
            cluster_id=CLUSTER,
            manager_id=self.name,
            members=self.members,
            listen=f"{self.name}:{RAFT_PORT}",
            data_dir=DATA_DIR,
            join=self.joins,
            server_ssl=self.certificate,  # type: ignore[arg-type]
            client_ssl=self.certificate,  # type: ignore[arg-type]
            tuning=self.world.settings.tuning,
        )
        return open_replica(config, Environment(disk=self.disk, wall_ms=self.clock.wall_ms, random=self.random))

    def _note_applied(self, loop: HostLoop, applied: Applied) -> None:
        if loop.dead:
            return
        self.world.note("applied", self.name, applied.index, len(applied.events), applied.now_ms)
        for watch in self.world.on_applied:
            watch(self, applied)

    # --- its API ---

    def _accept(self, end: End) -> None:
        end.on_data = partial(self._begin, end)

    def _begin(self, end: End, opening: Any) -> None:
        """The first thing that is said on a connection is what it is for."""
        if opening == "stream":
            socket = SimulatedSocket(end, SERVER_CLOSE_TIMEOUT_S)
            end.loop.create_task(self._stream(end, socket))
        else:
            end.on_data = partial(self._begin, end)
            end.loop.create_task(self._answer(end, opening))

    async def _stream(self, end: End, socket: SimulatedSocket) -> None:
        try:
            name, peer = end.other.certificate.name, end.other.host
            await self.streams.serve(socket, socket, name, peer)  # type: ignore[arg-type]
        except ConnectionError:
            pass
        except Exception as error:
            self.world.complain(self.name, "a stream failed", error)
        finally:
            end.close()

    async def _answer(self, end: End, work: Callable[[SimulatedManager], Awaitable[Any]]) -> None:
        """A request: whatever the client wants done here, and what came of it."""
        try:
            answer: Any = await work(self)
        except Exception as error:
            answer = error
        end.send((answer,))


async def ask(
    loop: HostLoop, certificate: Certificate, manager: str, work: Callable[[SimulatedManager], Awaitable[_T]]
) -> _T:
    """A client's request: `work` is done by the manager's own process, and its result or exception comes back.

    Raises OSError where the connection fails: then it may or may not have been done.
    """
    answered: asyncio.Future[Any] = loop.create_future()

    def take(answer: tuple[Any]) -> None:
        if not answered.done():
            answered.set_result(answer[0])

    def lose(error: Exception | None) -> None:
        if not answered.done():
            answered.set_exception(error or ConnectionResetError("the manager closed the connection"))
            answered.exception()  # the client may have given up already

    end = await loop.world.network.dial(loop, manager, API_PORT, certificate, take, lose)
    try:
        end.send(work)
        answer = await answered
    finally:
        end.close()
    if isinstance(answer, Exception):
        raise answer
    return answer
