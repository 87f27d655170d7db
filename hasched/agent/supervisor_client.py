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
from hasched.agent.supervisor import READY, SOCKET, TAKEN

START_TIMEOUT_S = 30.0  # a disk may stall
TAKEN_PAUSE_S = 0.05
MAX_LOG_BYTES = 4 * 1024 * 1024
QUOTED_BYTES = 1024
_log = structlog.get_logger(__name__)


class SupervisorFailed(Exception):
    """The supervisor can't be started; `supervisor.log` says more."""


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
    """A connection to the data directory's supervisor, which is started if there is none. Raises SupervisorFailed, OSError.

    One that is there and doesn't listen is about to (an agent before us has just started it), or is at its end.
    """
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + START_TIMEOUT_S
    while (endpoint := _dial(data_dir)) is None:
        if loop.time() >= give_up_s:
            raise SupervisorFailed(f"there is a supervisor in {data_dir}, but it doesn't answer")
        if await asyncio.to_thread(start, data_dir) is None:
            await asyncio.sleep(TAKEN_PAUSE_S)
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


def start(data_dir: Path) -> int | None:
    """Start a supervisor in its own session, wait until it listens, and return its process id; None if there is one already.

    Raises SupervisorFailed.
    """
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
    if said == READY:
        _log.info("supervisor_started", pid=pid)
        return pid
    if not readable:
        raise SupervisorFailed(f"the supervisor said nothing for {START_TIMEOUT_S:.0f} s; {_quote(log_path)}")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == TAKEN:
        return None
    raise SupervisorFailed(f"the supervisor did not start, and ended with {status}; {_quote(log_path)}")


def _quote(log_path: Path) -> str:
    """What the log says last; more may be there to read, unless its folder is gone by then."""
    with log_path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - QUOTED_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return f"the end of {log_path}: {lines[-1]}" if lines else f"{log_path} is empty"


def collect(pid: int) -> None:
    """Collect a supervisor that was our child and has died; one that an earlier agent started isn't ours to collect."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
