"""A simulated agent: the product's driver, core and link on a node whose supervisor, table and tasks outlive it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hasched.agent.config import AgentConfig, Capacity, TlsFiles
from hasched.agent.driver import Driver
from hasched.agent.environment import Environment
from hasched.agent.events import Row, Save
from hasched.model.ids import AttemptId
from hasched.model.spec import Resources
from hasched.model.wire import NodeInfo, NodeUsage
from tests.simulation.clocks import HostClock
from tests.simulation.loop import HostLoop
from tests.simulation.network import Certificate
from tests.simulation.sockets import API_PORT, SimulatedHttp
from tests.simulation.supervisor import Connection, SimulatedSupervisor
from tests.simulation.tasks import Kernel

if TYPE_CHECKING:
    from tests.simulation.world import World


class SimulatedTable:
    """`hasched.agent.table` over rows that outlive the agent. What is queued is one transaction, durable after a while."""

    def __init__(self, host: SimulatedAgent, on_saved: Callable[[int, str], None]) -> None:
        self._host = host
        self._loop = host.loop
        self._on_saved = on_saved
        self._queue: list[Save] = []
        self._writing = False

    @property
    def table_id(self) -> str:
        return f"{self._host.name}-{self._host.disks}"

    def open(self) -> tuple[Row, ...]:
        return tuple(self._host.rows[key] for key in sorted(self._host.rows))

    def save(self, save: Save) -> None:
        self._queue.append(save)
        self._begin()

    def close(self) -> None:
        pass

    def _begin(self) -> None:
        if self._queue and not self._writing:
            self._writing = True
            saves, self._queue = self._queue, []
            self._host.world.after(self._host.disk_delay(), self._loop.deliver, self._write, saves)

    def _write(self, saves: list[Save]) -> None:
        self._writing = False
        if self._host.disk_full:
            self._on_saved(saves[-1].number, "the disk is full")
        else:
            for save in saves:
                self._write_one(save)
            self._on_saved(saves[-1].number, "")
        self._begin()

    def _write_one(self, save: Save) -> None:
        rows = self._host.rows
        for row in save.added:
            rows.setdefault(row.key, row)
        for ended in save.ended:
            key = AttemptId(ended.job_id, ended.index, ended.attempt)
            supervisor = rows[key].supervisor if key in rows else ""
            rows[key] = Row(key, supervisor, ended)
        for key in save.removed:
            rows.pop(key, None)


class Left:
    """The node as it is to a supervisor whose data directory was lost: its tasks are there, and no agent comes any more."""

    def __init__(self, node: SimulatedAgent, supervisor: SimulatedSupervisor) -> None:
        self.world, self.name, self.clock, self.random = node.world, node.name, node.clock, node.random
        self.kernel = node.kernel
        self.kernel._host = self  # type: ignore[assignment]
        self.supervisor = supervisor
        supervisor.node = self  # type: ignore[assignment]
        supervisor.forsake()

    def child_ended(self) -> None:
        self.supervisor.wake()

    def cut_power(self) -> None:
        self.supervisor.die()
        self.kernel.kill_all()


class SimulatedAgent:
    """One node. Its agent process, its supervisor and the machine itself each have faults of their own."""

    loop: HostLoop

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.random = world.stream(f"agent {name}")
        settings = world.settings
        self.clock = HostClock(world, self.random, 1 + self.random.uniform(-settings.drift, settings.drift))
        self.clock.wall_ahead_ms = self.random.randint(-settings.skew_ms, settings.skew_ms)
        self.certificate = Certificate("agent", name)
        self.kernel = Kernel(self)
        self.supervisor: SimulatedSupervisor | None = None
        self.rows: dict[AttemptId, Row] = {}
        self.origin = ""
        self.powered = True
        self.alive = False
        self.disk_full = False
        self.disks = 1
        self.left: list[Left] = []
        self.boots = 1

    # --- what happens to it ---

    def start(self) -> None:
        """The agent's process begins, if it isn't running; the machine too."""
        if self.alive:
            return
        if not self.powered:
            self.powered = True
            self.boots += 1
            self.clock.reboot()
        self.alive = True
        self.loop = HostLoop(self.world, self.name, self.clock, self.disk_delay)
        self.loop.open = True
        self.world.note("start", self.name)
        self.loop.create_task(self._live(self.loop), name=f"agent {self.name}")

    def kill(self) -> None:
        """SIGKILL of the agent: the supervisor and the tasks go on."""
        if self.alive:
            self.world.note("kill", self.name)
            self._end()
            self.world.network.drop_process(self.loop)

    def kill_supervisor(self) -> None:
        """SIGKILL of the supervisor: the tasks go on with nobody to watch them, until the next supervisor ends them."""
        if self.supervisor is not None:
            self.world.note("kill supervisor", self.name)
            self.supervisor.die()
            self.supervisor = None

    def cut_power(self) -> None:
        """Agent, supervisor and tasks are gone at once; nobody is told."""
        self.world.note("power cut", self.name)
        if self.alive:
            self._end()
            self.world.network.drop_machine(self.loop)
        if self.supervisor is not None:
            self.supervisor.die()
            self.supervisor = None
        self.kernel.kill_all()
        for each in self.left:
            each.cut_power()
        self.powered = False

    def lose_disk(self) -> None:
        """Its data directory is gone, in the agent's next life. What runs has only a supervisor that nobody can find."""
        self.world.note("lose disk", self.name)
        self.kill()
        self.rows.clear()
        self.origin = ""
        self.disks += 1
        if self.supervisor is not None:
            self.left.append(Left(self, self.supervisor))
            self.supervisor, self.kernel = None, Kernel(self)

    def pause(self) -> None:
        """SIGSTOP of the agent."""
        if self.alive:
            self.world.note("pause", self.name)
            self.loop.pause()

    def go_on(self) -> None:
        if self.alive:
            self.loop.go_on()

    def heal(self) -> None:
        self.disk_full = False
        self.go_on()
        self.start()

    def disk_delay(self) -> float:
        return self.random.uniform(0.0005, 0.02)

    def child_ended(self) -> None:
        if self.supervisor is not None:
            self.supervisor.wake()

    # --- its life ---

    def _end(self) -> None:
        self.alive = False
        self.loop.die()
        self.world.inter(self.loop)

    async def _live(self, loop: HostLoop) -> None:
        """As `hasched.agent.main` does it."""
        try:
            driver = Driver(self._config(), None, self._environment(loop))  # type: ignore[arg-type]
            await driver.start()
            await driver.run()
        except BaseException as error:
            if not loop.dead:
                self.world.complain(self.name, "the agent failed", error)

    def _config(self) -> AgentConfig:
        return AgentConfig(
            data_dir=f"/nonexistent/{self.name}",
            managers=[f"https://{name}:{API_PORT}" for name in self.world.managers],
            tls=TlsFiles(ca="", cert="", key=""),
            name=self.name,
            capacity=Capacity(),
        )

    def _environment(self, loop: HostLoop) -> Environment:
        async def connect(_: object, settings: Any, on_messages: Any, on_lost: Any) -> Connection:
            await asyncio.sleep(self.disk_delay())
            if self.supervisor is None:
                self.kernel.kill_all()  # what the last one left behind
                self.supervisor = SimulatedSupervisor(self)
            connection = Connection(loop, self.supervisor, on_messages, on_lost)
            connection.send([settings])
            return connection

        return Environment(
            boot_ms=self.clock.boot_ms,
            wall_ms=self.clock.wall_ms,
            random=self.random,
            open_http=lambda: SimulatedHttp(loop, self.certificate),  # type: ignore[arg-type, return-value]
            open_table=lambda _path, on_saved, _on_failed: SimulatedTable(self, on_saved),
            connect_supervisor=connect,
            collect_supervisor=lambda _pid: None,
            discover=lambda _config, _isolation: self._info(),
            open_inventory=lambda _config: None,
            read_usage=lambda _path: NodeUsage(),
            probe=self._probe,
            read_origin=lambda _: self.origin,
            keep_origin=self._keep_origin,
        )

    def _info(self) -> NodeInfo:
        slots = self.world.settings.slots
        return NodeInfo(
            hostname=self.name,
            agent_version="simulated",
            resources=Resources(cpu_milli=slots * 1000, memory_bytes=slots * 2**30),
            boot_id=f"{self.name}-{self.boots}",
        )

    def _keep_origin(self, _path: object, origin: str) -> None:
        self.origin = origin

    def _probe(self, _path: object) -> None:
        if self.disk_full:
            raise OSError("the disk is full")
