"""One agent's stream as the leader holds it: what waits to be sent, and what was said last.

Sending never waits. Messages queue here, and whatever has gathered by the time the last frame is out leaves as the next
one, so frames grow with the load. The queue is bounded in bytes and every frame in time: an agent that doesn't read is
cut off, and its next `Hello` puts right whatever it missed.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec
import structlog
from aiohttp import WSCloseCode, web

from hasched.model.ids import JobId, NodeId
from hasched.model.wire import HeartbeatAck, LogChunk, NodeUsage, PackedAssign, ToAgent

FULL_FRAME_BYTES = 1024 * 1024  # a frame takes nothing beyond it; one more message of the largest size still fits
MAX_QUEUED_MESSAGES = 65_536  # far more than a full node's work takes
MAX_QUEUED_CHUNKS = 4096
MAX_REPORTS_IN_FLIGHT = 16
SEND_TIMEOUT_S = 10.0

log = structlog.get_logger(__name__)
_encode = msgspec.msgpack.Encoder().encode


class LogRequest:
    """Chunks of a log on their way to a reader, and how many more bytes were asked for. None: the stream ended."""

    def __init__(self, allowance_bytes: int) -> None:
        self.chunks: asyncio.Queue[LogChunk | None] = asyncio.Queue()
        self.allowance_bytes = allowance_bytes


class AgentSession:
    """An open stream to an agent. `live` once it has been told what should run there; from then on changes flow."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        node_id: NodeId,
        name: str,
        opened: float,
        *,
        machine: tuple[str, str] = ("", ""),
    ) -> None:
        self.socket = socket
        self._transport = transport
        self.node_id = node_id
        self.name = name
        self.machine = machine  # hostname and boot id
        self.live = False
        self.last_seen = opened
        self.usage: NodeUsage | None = None
        self.specs_sent: set[JobId] = set()
        self.report_slots = asyncio.Semaphore(MAX_REPORTS_IN_FLIGHT)
        self.log_requests: dict[int, LogRequest] = {}
        self._queue: deque[ToAgent | PackedAssign] = deque()
        self._acks: deque[HeartbeatAck] = deque()  # they pass everything else: leases hang on them
        self._wake = asyncio.Event()
        self.closing: tuple[int, str] | None = None  # code and reason, once it was decided

    def send(self, message: ToAgent | PackedAssign) -> None:
        """Queue a message. On a stream that is closing it goes nowhere, as it might on any stream."""
        if self.closing is not None:
            return
        if len(self._queue) + len(self._acks) >= MAX_QUEUED_MESSAGES:
            self.close(WSCloseCode.POLICY_VIOLATION, "too slow: the queue to this agent is full")
            return
        if isinstance(message, HeartbeatAck):
            self._acks.append(message)
        else:
            self._queue.append(message)
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        """End the stream; what is still queued is dropped. The first reason counts."""
        if self.closing is None:
            self.closing = (code, reason)
            self._wake.set()

    async def write(self) -> None:
        """Send what is queued until the stream closes. The session's one writer."""
        while self.closing is None:
            await self._wake.wait()
            self._wake.clear()
            while (self._queue or self._acks) and self.closing is None:
                try:
                    async with asyncio.timeout(SEND_TIMEOUT_S):
                        await self.socket.send_bytes(self._next_frame())
                except TimeoutError:
                    self.close(WSCloseCode.POLICY_VIOLATION, "too slow: a frame could not be sent in time")
                    if self._transport is not None:
                        self._transport.abort()  # a close frame would wait behind what is stuck
                except ConnectionError:
                    self.close(WSCloseCode.ABNORMAL_CLOSURE, "the connection was lost")
        code, reason = self.closing
        log.info("agent_stream_closing", node=self.node_id, session=self.name, code=code, reason=reason)
        await self.socket.close(code=code, message=reason.encode()[:120])

    def deliver(self, chunk: LogChunk) -> None:
        """Hand a chunk to its reader. A reader that has left is fine; more than was asked for is not."""
        request = self.log_requests.get(chunk.request)
        if request is None:
            return
        request.allowance_bytes -= len(chunk.data)
        if request.allowance_bytes < 0 or request.chunks.qsize() >= MAX_QUEUED_CHUNKS:
            self.close(WSCloseCode.POLICY_VIOLATION, "more of a log than was asked for")
            return
        request.chunks.put_nowait(chunk)

    def end(self) -> None:
        """The stream is over: whoever waits for a log of it is told."""
        for request in self.log_requests.values():
            request.chunks.put_nowait(None)

    def _next_frame(self) -> bytes:
        """As many queued messages as one frame may carry."""
        size = 0
        messages: list[msgspec.Raw] = []
        while (queue := self._acks or self._queue) and size < FULL_FRAME_BYTES:
            data = _encode(queue.popleft())
            size += len(data)
            messages.append(msgspec.Raw(data))
        return _encode(messages)
