"""An agent that speaks the real protocol, as far as logs go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from api_server import Manager

from hasched.client.tls import MANAGER_HOSTNAME
from hasched.model.spec import Resources
from hasched.model.wire import (
    PROTOCOL_VERSION,
    FromAgent,
    Hello,
    LogChunk,
    LogRead,
    NodeInfo,
    Welcome,
    decode_to_agent,
    encode_frame,
)
from hasched.statemachine.commands import Placement, PlacePlan

PATIENCE_S = 10
INFO = NodeInfo(hostname="host", agent_version="1", resources=Resources(cpu_milli=8000, memory_bytes=2**33))
Answer = Callable[[LogRead], list[LogChunk]]


class Agent:
    """Node n1's agent, as far as logs go: `answer` says which chunks a read gets."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.answer: Answer = lambda _: []
        self.reads: list[LogRead] = []
        self.welcome = asyncio.Event()

    async def send(self, *messages: FromAgent) -> None:
        await self.socket.send_bytes(encode_frame(messages))

    async def run(self) -> None:
        async for frame in self.socket:
            for message in decode_to_agent(frame.data):
                if isinstance(message, Welcome):
                    self.welcome.set()
                if isinstance(message, LogRead):
                    self.reads.append(message)
                    if chunks := self.answer(message):
                        await self.send(*chunks)


@asynccontextmanager
async def connected_agent(manager: Manager) -> AsyncIterator[Agent]:
    connector = aiohttp.TCPConnector(ssl=manager.pki.client("n1"))
    async with aiohttp.ClientSession(connector=connector) as session:
        async with (
            session.ws_connect(f"{manager.url}/v1/agent/stream", server_hostname=MANAGER_HOSTNAME) as socket,
            asyncio.timeout(PATIENCE_S),
        ):
            agent = Agent(socket)
            await agent.send(Hello(PROTOCOL_VERSION, "n1", "session", INFO, ()))
            running = asyncio.create_task(agent.run())
            await agent.welcome.wait()
            try:
                yield agent
            finally:
                running.cancel()


async def start(manager: Manager) -> int:
    """A job whose task has been given to the node."""
    job_id = await manager.submit()
    await manager.replica.propose(PlacePlan(placements=(Placement(job_id, "n1", (0,)),)))
    return job_id


def whole(text: bytes, first: int = 0) -> Answer:
    """An agent that keeps `text` from byte `first` on, and sends it in chunks of 4 bytes."""

    def answer(read: LogRead) -> list[LogChunk]:
        begin = max(len(text) + read.offset if read.offset < 0 else read.offset, first)
        end = min(len(text), begin + read.limit) if read.limit else len(text)
        chunks = [LogChunk(read.request, at, text[at : min(at + 4, end)], first) for at in range(begin, end, 4)]
        return [*chunks, LogChunk(read.request, max(begin, end), b"", first, True)]

    return answer
