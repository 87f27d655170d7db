"""WebSockets over the simulated network: what `hasched.api.agents` and `hasched.agent.link` use of aiohttp's."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from aiohttp import WSMsgType

from tests.simulation.loop import HostLoop
from tests.simulation.network import Certificate, End

API_PORT = 7411
CONNECT_TIMEOUT_S = 5.0
SERVER_CLOSE_TIMEOUT_S = 2.0
CLIENT_CLOSE_TIMEOUT_S = 0.5


class Frame(NamedTuple):
    type: WSMsgType
    data: Any = None
    extra: str | None = None


_CLOSED = Frame(WSMsgType.CLOSED)
_ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class SimulatedSocket:
    """One side of a WebSocket."""

    def __init__(self, end: End, close_timeout_s: float) -> None:
        self._end = end
        self._close_timeout_s = close_timeout_s
        self._frames: deque[Frame] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] = end.loop.create_future()
        self._said_close = False
        self._heard_close = False
        self.close_code: int | None = None
        end.on_data, end.on_lost = self._take, self._lose

    @property
    def closed(self) -> bool:
        return self._said_close or self._gone.done()

    async def send_bytes(self, data: bytes) -> None:
        if self.closed:
            raise ConnectionResetError("Cannot write to closing transport")
        self._end.send(Frame(WSMsgType.BINARY, bytes(data)))

    async def receive(self, timeout: float | None = None) -> Frame:
        async with asyncio.timeout(timeout):
            while not self._frames:
                if self._gone.done() or self._said_close:
                    return _CLOSED
                self._waiting = self._end.loop.create_future()
                try:
                    await self._waiting
                finally:
                    self._waiting = None
        frame = self._frames.popleft()
        if frame.type is WSMsgType.CLOSE:
            self._heard_close = True
            self.close_code = frame.data
            await self.close()
        return frame

    def __aiter__(self) -> SimulatedSocket:
        return self

    async def __anext__(self) -> Frame:
        frame = await self.receive()
        if frame.type in _ENDS:
            raise StopAsyncIteration
        return frame

    async def close(self, code: int = 1000, message: bytes = b"") -> bool:
        """Say so, and wait a little for the other side to say it too."""
        if self._said_close:
            return False
        self._said_close = True
        self._wake()
        if not self._gone.done():
            self._end.send(Frame(WSMsgType.CLOSE, int(code), message.decode()))
            if not self._heard_close:
                await asyncio.wait([self._gone], timeout=self._close_timeout_s)
            self._end.close()
        return True

    def abort(self) -> None:
        self._end.abort()

    def _take(self, frame: Frame) -> None:
        if self._said_close:
            if frame.type is WSMsgType.CLOSE and not self._gone.done():
                self.close_code = frame.data
                self._gone.set_result(None)
            return
        self._frames.append(frame)
        self._wake()

    def _lose(self, _error: Exception | None) -> None:
        if not self._gone.done():
            self._gone.set_result(None)
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class SimulatedHttp:
    """In place of an `aiohttp.ClientSession`: it opens streams to managers."""

    def __init__(self, loop: HostLoop, certificate: Certificate) -> None:
        self._loop = loop
        self._certificate = certificate

    async def __aenter__(self) -> SimulatedHttp:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def ws_connect(self, url: str, **_: Any) -> _Opening:
        return _Opening(self._loop, self._certificate, url)


class _Opening:
    def __init__(self, loop: HostLoop, certificate: Certificate, url: str) -> None:
        self._loop = loop
        self._certificate = certificate
        self._address = urlsplit(url)
        self._end: End | None = None

    async def __aenter__(self) -> SimulatedSocket:
        host, port = self._address.hostname, self._address.port
        assert host is not None and port is not None
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            self._end = await self._loop.world.network.dial(self._loop, host, port, self._certificate)
        self._end.send("stream")
        self._socket = SimulatedSocket(self._end, CLIENT_CLOSE_TIMEOUT_S)
        return self._socket

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._socket.close()
