"""The agent's end of the supervisor: finds it, starts it where there is none, and talks to it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import structlog

from hasched.agent.protocol import (
    Configure,
    FrameBuffer,
    FrameTooLarge,
    FromSupervisor,
    Inventory,
    Launch,
    ToSupervisor,
    decode_from_supervisor,
    encode,
    joined,
)
from hasched.agent.supervisor import READY, SOCKET

START_TIMEOUT_S = 10.0
MAX_LOG_BYTES = 4 * 1024 * 1024
_log = structlog.get_logger(__name__)


class SupervisorFailed(Exception):
    """The supervisor can't be started; `supervisor.log` says why."""


class SupervisorConnection(asyncio.Protocol):
    """One connection. `on_messages` gets what the supervisor says, `on_lost` is called once when it ends."""

    def __init__(self, on_messages: Callable[[list[FromSupervisor]], None], on_lost: Callable[[], None]) -> None:
        self._on_messages = on_messages
        self._on_lost = on_lost
        self._frames = FrameBuffer()
        self._parts: list[Inventory] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                for message in decode_from_supervisor(frame):
                    self._take(message)
        except (FrameTooLarge, msgspec.MsgspecError) as error:
            _log.error("supervisor_misunderstood", cause=str(error))
            self.close()

    def _take(self, message: FromSupervisor) -> None:
        """The parts of an inventory become one: half of it would say that the other half is gone."""
        if isinstance(message, Inventory):
            self._parts.append(message)
            if message.more:
                return
            message, self._parts = joined(self._parts), []
        self._on_messages([message])

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()

    def send(self, messages: Sequence[ToSupervisor]) -> None:
        """In order. A launch has a frame of its own, so that no frame grows beyond the cap."""
        assert self._transport is not None, "connected"
        small: list[ToSupervisor] = []
        for message in messages:
            if isinstance(message, Launch):
                self._write(small)
                self._write([message])
                small = []
            else:
                small.append(message)
        self._write(small)

    def _write(self, messages: Sequence[ToSupervisor]) -> None:
        if messages and self._transport is not None:
            self._transport.write(encode(messages))

    def close(self) -> None:
        """Send what is waiting, then end."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End at once: a peer that doesn't read takes nothing more."""
        if self._transport is not None:
            self._transport.abort()


async def connect(
    data_dir: Path,
    settings: Configure,
    on_messages: Callable[[list[FromSupervisor]], None],
    on_lost: Callable[[], None],
) -> SupervisorConnection:
    """A connection to the data directory's supervisor, which is started if there is none. Raises SupervisorFailed."""
    endpoint = _dial(data_dir)
    if endpoint is None:
        await asyncio.to_thread(start, data_dir)
        endpoint = _dial(data_dir)
        if endpoint is None:
            raise SupervisorFailed(f"the supervisor started, but doesn't answer in {data_dir}")
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: SupervisorConnection(on_messages, on_lost), sock=endpoint)
    connection.send([settings])
    return connection


def _dial(data_dir: Path) -> socket.socket | None:
    """The path goes through /proc: a socket's path is at most 107 bytes long, a data directory's is not."""
    directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    endpoint = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        endpoint.connect(f"/proc/self/fd/{directory}/{SOCKET}")
    except (FileNotFoundError, ConnectionRefusedError):
        endpoint.close()
        return None
    finally:
        os.close(directory)
    endpoint.setblocking(False)
    return endpoint


def start(data_dir: Path) -> int:
    """Start a supervisor in its own session, wait until it listens, and return its process id. Raises SupervisorFailed."""
    log_path = data_dir / "supervisor.log"
    if log_path.exists() and log_path.stat().st_size > MAX_LOG_BYTES:
        log_path.replace(log_path.with_suffix(".log.1"))
    ready, readiness = os.pipe()
    try:
        argv = [sys.executable, "-I", "-m", "hasched.agent.supervisor", str(data_dir)]
        pid = os.posix_spawn(
            sys.executable,
            argv,
            {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, readiness, 1),
                (os.POSIX_SPAWN_OPEN, 2, str(log_path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGTERM, signal.SIGINT),
        )
    finally:
        os.close(readiness)
    try:
        readable, _, _ = select.select([ready], [], [], START_TIMEOUT_S)
        said = os.read(ready, len(READY)) if readable else b""
    finally:
        os.close(ready)
    if said != READY:
        raise SupervisorFailed(f"the supervisor did not start; {log_path} says why")
    _log.info("supervisor_started", pid=pid)
    return pid


def collect(pid: int) -> None:
    """Collect a supervisor that was our child and has died; one that an earlier agent started isn't ours to collect."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
