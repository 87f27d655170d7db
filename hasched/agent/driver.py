"""The driver: brings events to the core and obeys its instructions. Everything that the agent does to the world is here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

import hasched
from hasched.agent.config import AgentConfig, Isolation
from hasched.agent.core import AgentCore
from hasched.agent.environment import Environment, Supervision
from hasched.agent.events import (
    CheckDevices,
    Connected,
    DevicesSeen,
    Disconnected,
    Event,
    Happened,
    HeartbeatSent,
    Received,
    Reconnect,
    Recovered,
    Save,
    Saved,
    SaveFailed,
    Send,
    SupervisorDown,
    SupervisorUp,
    Tick,
)
from hasched.agent.health import Health
from hasched.agent.inventory import describe, devices_of
from hasched.agent.link import Link
from hasched.agent.logs import LogServer, Retention
from hasched.agent.protocol import Configure, FromSupervisor, Inventory, ToSupervisor
from hasched.agent.supervisor_client import SupervisorFailed
from hasched.agent.table import TableFailed
from hasched.model.ids import AttemptId
from hasched.model.wire import (
    AttemptKey,
    LogCancel,
    LogRead,
    NodeInfo,
    NodeUsage,
    OtherCluster,
    Redirect,
    ToAgent,
    Welcome,
)

SUPERVISOR_PAUSE_S = 1.0  # between two tries to start one
INVENTORY_TIMEOUT_S = 30.0  # a supervisor that is stopped, or stuck, says nothing
SWEEP_INTERVAL_S = 60.0
_log = structlog.get_logger(__name__)


class Driver:
    """Implements `link.Agent`."""

    def __init__(self, config: AgentConfig, tls: ssl.SSLContext, environment: Environment | None = None) -> None:
        self._config = config
        self._environment = environment = environment or Environment()
        self._data_dir = Path(config.data_dir)
        self._loop = asyncio.get_running_loop()
        self._settings = Configure(
            config.node_id, config.path, config.logs.max_bytes, config.isolation is Isolation.AUTO, config.pids_max
        )
        self._origin = ""  # of the cluster that this agent belongs to
        self._isolation = "rlimit"
        self._found = environment.discover(config, self._isolation)  # but for its devices, where there is an inventory
        self._info = self._found
        self._inventory = environment.open_inventory(config)
        self._devices_doubted = asyncio.Event()
        self._devices = tuple(devices_of(self._info))
        self._core = AgentCore(self._devices, config.node_id)
        self._told_info = self._info
        self._table = environment.open_table(str(self._data_dir / "attempts.db"), self._on_saved, self._on_table_failed)
        self._table_failed: asyncio.Future[None] = self._loop.create_future()
        self._link = Link(
            self,
            config.node_id,
            config.managers,
            tls,
            max_pause_ms=config.reconnect_max,
            environment=environment,
        )
        self._logs = LogServer(self._data_dir, self._core.is_active, self._core.latest_attempt, self._link.send_now)
        self._retention = Retention(self._data_dir, config.logs.keep, config.logs.keep_bytes)
        self._health = Health(self._data_dir, self._link.beat, environment.probe)
        self._supervisor: Supervision | None = None
        self._supervisor_lost = asyncio.Event()
        self._inventoried = asyncio.Event()
        self._supervisor_pid = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0

    async def start(self) -> None:
        """Read the table and meet the supervisor. Raises sqlite3.Error, SupervisorFailed, OSError."""
        self._origin = self._environment.read_origin(self._data_dir)
        rows = self._table.open()
        self._found = msgspec.structs.replace(self._found, table_id=self._table.table_id)
        self._info = self._found
        await self._look_at_devices()
        self._handle(Recovered(rows))
        await self._connect_supervisor()

    async def run(self) -> None:
        """Until cancelled. Raises TableFailed (in a group)."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_table(), name="table")
            tasks.create_task(self._keep_supervisor(), name="supervisor")
            tasks.create_task(self._link.run(), name="link")
            tasks.create_task(self._health.run(), name="health")
            tasks.create_task(self._sweep(), name="retention")
            tasks.create_task(self._watch_devices(), name="devices")

    def close(self) -> None:
        """Let go of everything; the tasks go on under the supervisor."""
        self._logs.cancel_all()
        if self._inventory is not None:
            self._inventory.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._supervisor is not None:
            self._supervisor.close()
        self._table.close()

    # The core.

    def _handle(self, event: Event) -> None:
        to_supervisor: list[ToSupervisor] = []
        for instruction in self._core.handle(event):
            match instruction:
                case Save():
                    self._table.save(instruction)
                case Send(reports=reports):
                    self._link.send(reports)
                case Reconnect(reason=reason):
                    _log.info("session_dropped", cause=reason)
                    self._link.reconnect()
                case CheckDevices():
                    self._devices_doubted.set()
                case _:
                    to_supervisor.append(instruction)
        if to_supervisor and self._supervisor is not None:
            self._supervisor.send(to_supervisor)
        self._set_timer()

    def _set_timer(self) -> None:
        """One timer, moved only when the core wants to be woken earlier than it is set to."""
        wake_ms = self._core.wake_at_ms
        if wake_ms is None or (self._timer is not None and self._timer_ms <= wake_ms):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ms = wake_ms
        self._timer = self._loop.call_later(max(0, wake_ms - self._environment.boot_ms()) / 1000, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._handle(Tick(self._environment.now()))

    # The table.

    def _on_saved(self, number: int, failure: str) -> None:
        """Called in the table's thread."""
        self._loop.call_soon_threadsafe(self._saved, number, failure)

    def _on_table_failed(self, error: Exception) -> None:
        """Called in the table's thread."""
        failed = TableFailed(f"the table can't be written any more: {error!r}")
        self._loop.call_soon_threadsafe(self._table_failed.set_exception, failed)

    async def _watch_table(self) -> None:
        await self._table_failed

    def _saved(self, number: int, failure: str) -> None:
        if failure:
            self._health.failed(failure)  # before the reports: the managers must know it when they read them
            self._handle(SaveFailed(number, failure, self._environment.now()))
        else:
            self._handle(Saved(number, self._environment.now()))

    # The supervisor.

    async def _connect_supervisor(self) -> None:
        """Meet the supervisor. An idle one of another release is replaced, so there may be a second try."""
        if not await self._try_supervisor() and not await self._try_supervisor():
            raise SupervisorFailed("the supervisor closed the connection, or said nothing, before its inventory")

    async def _try_supervisor(self) -> bool:
        self._inventoried.clear()
        self._supervisor_lost.clear()
        self._supervisor = await self._environment.connect_supervisor(
            self._data_dir, self._settings, self._on_supervisor, self._supervisor_lost.set
        )
        lost = asyncio.create_task(self._supervisor_lost.wait())
        met = asyncio.create_task(self._inventoried.wait())
        await asyncio.wait([lost, met], timeout=INVENTORY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        met.cancel()
        if not self._inventoried.is_set():
            self._supervisor.abort()
            await self._supervisor_lost.wait()
        return self._inventoried.is_set()

    async def _keep_supervisor(self) -> None:
        """Have a supervisor again whenever one is lost."""
        while True:
            await self._supervisor_lost.wait()
            _log.warning("supervisor_lost", pid=self._supervisor_pid)
            self._supervisor = None
            self._handle(SupervisorDown())
            self._environment.collect_supervisor(self._supervisor_pid)
            try:
                await self._connect_supervisor()
            except (SupervisorFailed, OSError) as error:
                _log.error("supervisor_not_started", cause=str(error))
                self._supervisor_lost.set()
                await asyncio.sleep(SUPERVISOR_PAUSE_S)

    def _on_supervisor(self, messages: Sequence[FromSupervisor]) -> None:
        for message in messages:
            if isinstance(message, Inventory):
                self._meet(message)
            else:
                if message.node_failure:
                    self._health.failed(message.node_failure)
                self._handle(Happened(message, self._environment.now()))

    def _meet(self, inventory: Inventory) -> None:
        _log.info(
            "supervisor_met",
            pid=inventory.pid,
            running=len(inventory.running),
            ended=len(inventory.ended),
            isolation=inventory.isolation,
        )
        self._supervisor_pid = inventory.pid
        if inventory.release != hasched.__version__ and not inventory.running and not inventory.ended:
            _log.info("supervisor_replaced", release=inventory.release)
            os.kill(inventory.pid, signal.SIGTERM)
            return
        if inventory.isolation != self._isolation:
            self._isolation = inventory.isolation
            self._found = msgspec.structs.replace(self._found, isolation=inventory.isolation)
            self._info = msgspec.structs.replace(self._info, isolation=inventory.isolation)
        self._handle(SupervisorUp(inventory, self._environment.now()))
        self._inventoried.set()

    # Devices.

    async def _watch_devices(self) -> None:
        """Look at them every now and then, and whenever the core wants to know."""
        refresh_s = self._config.devices.refresh / 1000 if self._inventory is not None else None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(refresh_s):
                    await self._devices_doubted.wait()
            self._devices_doubted.clear()
            await self._look_at_devices()

    async def _look_at_devices(self) -> None:
        """Tell the core what there is now and, if that is something else than before, the managers."""
        if self._inventory is not None:
            try:
                self._devices = tuple(await self._inventory.read())
            except Exception:  # of a driver's library anything may come, and tasks must not depend on it
                _log.exception("devices_not_read", effect="what is known of them stands")
        self._handle(DevicesSeen(self._devices, self._environment.now()))
        info = describe(self._found, self._devices) if self._inventory is not None else self._found
        if info != self._info:
            _log.info(
                "devices_changed",
                gpus=info.resources.gpus,
                countables=dict(info.resources.countables),
                unwell={device.id: device.health for device in info.devices if device.health},
            )
            self._info = info
            self._link.reconnect()

    # The link.

    def describe(self) -> tuple[NodeInfo, tuple[AttemptKey, ...]]:
        self._told_info = self._info
        return self._info, self._core.attempts()

    def origin(self) -> str:
        return self._origin

    def usage(self) -> NodeUsage:
        return self._environment.read_usage(self._config.data_dir)

    def accepts(self) -> bool:
        return self._health.accepts

    def belong_to(self, origin: str) -> None:
        """On disk first: an agent that forgot it would take orders from any cluster after its next start."""
        if origin and not self._origin:
            self._environment.keep_origin(self._data_dir, origin)
            self._origin = origin
            _log.info("cluster_met", origin=origin)

    def opened(self, welcome: Welcome, hello_ms: int) -> None:
        self._handle(Connected(welcome, hello_ms, self._environment.now()))
        if self._told_info is not self._info:
            self._link.reconnect()  # it has changed while the hello was on its way

    def heartbeat_sent(self, number: int, at_ms: int) -> None:
        self._handle(HeartbeatSent(number, at_ms))

    def received(self, messages: Sequence[ToAgent]) -> None:
        for message in messages:
            match message:
                case LogRead():
                    self._logs.start(message)
                case LogCancel(request=request):
                    self._logs.cancel(request)
                case Welcome() | Redirect() | OtherCluster():
                    _log.warning("message_out_of_place", message=type(message).__name__)
                case _:
                    self._handle(Received(message, self._environment.now()))

    def closed(self) -> None:
        self._logs.cancel_all()
        self._handle(Disconnected())

    # Housekeeping.

    async def _sweep(self) -> None:
        """Keep the logs of ended attempts within their bounds; a pass that is slow comes less often."""
        while True:
            began_s = self._loop.time()
            active = frozenset(AttemptId(key.job_id, key.index, key.attempt) for key in self._core.attempts())
            try:
                removed = await asyncio.to_thread(self._retention.sweep, active)
            except OSError as error:
                _log.error("logs_not_removed", cause=str(error))
            else:
                if removed:
                    _log.info("logs_removed", attempts=removed)
            await asyncio.sleep(max(SWEEP_INTERVAL_S, 20 * (self._loop.time() - began_s)))
