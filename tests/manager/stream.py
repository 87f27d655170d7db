"""A manager's HTTPS endpoint with the agents' stream, and an agent that speaks the wire protocol to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import aiohttp
from aiohttp import web

from hasched.api.agents import AGENT_STREAM_PATH, AgentStreams, StreamSettings
from hasched.api.hub import AgentHub
from hasched.certs.issuing import create_ca, issue_agent, issue_manager
from hasched.client.tls import MANAGER_HOSTNAME, client_context, server_context
from hasched.manager.leader import LeaderDuties
from hasched.manager.settings import LeaderSettings
from hasched.model.spec import Resources
from hasched.model.wire import (
    PROTOCOL_VERSION,
    AttemptKey,
    FromAgent,
    Hello,
    NodeInfo,
    ToAgent,
    Welcome,
    decode_to_agent,
    encode_frame,
    hello_frames,
)
from hasched.raft.replica import Replica

INFO = NodeInfo(hostname="n1", agent_version="1", resources=Resources(cpu_milli=4000))
AGENTS = ("n1", "n2")
_Message = TypeVar("_Message")


def make_certs(folder: Path) -> None:
    create_ca(folder, "test")
    issue_manager(folder, "m1", ["localhost"])
    for name in AGENTS:
        issue_agent(folder, name)


class Manager:
    """A leading part of a manager: hub, streams and duties, served on a free port."""

    def __init__(self, replica: Replica, certs: Path, settings: LeaderSettings, hub: AgentHub | None = None) -> None:
        self.replica = replica
        self.certs = certs
        self.hub = hub or AgentHub()
        streams = StreamSettings(heartbeat_ms=settings.heartbeat_ms, lease_ms=settings.lease_ms)
        self.streams = AgentStreams(replica, self.hub, streams)
        self.duties = LeaderDuties(replica, self.hub, settings)
        self.port = 0

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Manager]:
        app = web.Application()
        app.router.add_get(AGENT_STREAM_PATH, self.streams.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        context = server_context(self.certs / "ca.crt", self.certs / "m1.crt", self.certs / "m1.key")
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.duties.start()
        try:
            yield self
        finally:
            await self.duties.stop()
            await runner.cleanup()

    @asynccontextmanager
    async def connect(self, name: str | None = "n1") -> AsyncIterator[Agent]:
        """A stream with the agent's certificate, or with none; nothing has been said on it yet."""
        certificate = () if name is None else (self.certs / f"{name}.crt", self.certs / f"{name}.key")
        context = client_context(self.certs / "ca.crt", *certificate)
        async with aiohttp.ClientSession() as session:
            url = f"https://127.0.0.1:{self.port}{AGENT_STREAM_PATH}"
            async with session.ws_connect(url, ssl=context, server_hostname=MANAGER_HOSTNAME) as socket:
                yield Agent(socket, name or "n1")

    @asynccontextmanager
    async def agent(self, name: str = "n1", attempts: Sequence[AttemptKey] = ()) -> AsyncIterator[Agent]:
        """An agent that has been welcomed."""
        async with self.connect(name) as agent:
            await agent.hello(attempts)
            await agent.expect(Welcome)
            yield agent


class Agent:
    """The other end of a stream. Messages are taken in order, each once."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, name: str) -> None:
        self.socket = socket
        self.name = name
        self._received: list[ToAgent] = []

    async def hello(self, attempts: Sequence[AttemptKey] = (), info: NodeInfo = INFO, session: str = "s") -> None:
        for frame in hello_frames(Hello(PROTOCOL_VERSION, self.name, session, info, tuple(attempts))):
            await self.socket.send_bytes(frame)

    async def send(self, *messages: FromAgent) -> None:
        await self.socket.send_bytes(encode_frame(messages))

    async def expect(self, kind: type[_Message] | tuple[type[_Message], ...]) -> _Message:
        """The next message, which has to be of this kind, or of one of these."""
        async with asyncio.timeout(10):
            while not self._received:
                frame = await self.socket.receive()
                assert frame.type is aiohttp.WSMsgType.BINARY, f"closed: {self.socket.close_code} {frame.extra}"
                self._received += decode_to_agent(frame.data)
        message = self._received.pop(0)
        assert isinstance(message, kind), f"expected {kind}, got {message}"
        return message

    async def closed(self) -> tuple[int | None, str]:
        """Wait for the close: its code, and what it says. Whatever comes before it is dropped."""
        async with asyncio.timeout(10):
            while True:
                frame = await self.socket.receive()
                if frame.type is aiohttp.WSMsgType.CLOSE:
                    return frame.data, frame.extra or ""
                if frame.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.ERROR):
                    return self.socket.close_code, ""
