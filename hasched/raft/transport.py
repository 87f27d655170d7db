"""The transport between managers: mutual TLS, one connection for each direction of each pair.

A manager dials every other one and sends over that connection alone; it hears the other over the connection that the
other dialled. Who is at the far end is what the certificate says; the hello must name the same manager and cluster (14,
24), and whether that manager is welcome its handler says. A manager that dials again puts its older connection out of
use, and what came over that and wasn't delivered yet is dropped. There is no resending: what a broken connection lost,
the engine finds out by probing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol, cast

import structlog

from hasched.model.identity import identity_of, manager_hostname
from hasched.model.ids import ManagerId
from hasched.raft.frames import FrameInvalid, FrameReader, Outlet, encode_frame
from hasched.raft.messages import PROTOCOL_VERSION, Hello, Message, Refusal

HELLO_FRAME_BYTES = 4096  # all that is read of a peer before it has said who it is
HELLO_TIMEOUT_S = 3.0
CONNECT_TIMEOUT_S = 3.0
REDIAL_MIN_S, REDIAL_MAX_S = 0.02, 0.5
REDIAL_REFUSED_S = 3.0  # one who was refused may be welcome later
RELISTEN_S = 1.0
USER_TIMEOUT_MS = 2500  # after so long without an acknowledgement by the peer's kernel, a connection is dead
NOT_SENT_BYTES = 64 * 2**10  # that the kernel takes ahead of the network: what it has, nothing can pass any more
MAX_BUFFERED_BYTES = 64 * 2**20  # for a peer that doesn't read; beyond this its connection is cut

TCP_NOTSENT_LOWAT = 25  # Linux; the socket module has no name for it before Python 3.12

log = structlog.get_logger(__name__)


class Heard(Protocol):
    """A connection over which `peer` speaks to us; it isn't `current` any more once a newer one has taken its place."""

    @property
    def peer(self) -> ManagerId: ...
    @property
    def current(self) -> bool: ...


class Handler(Protocol):
    """Whom the transport asks and tells. Each is called on the loop and must not block."""

    def hello(self) -> Hello: ...
    def judge(self, hello: Hello) -> str:
        """Why the sender of `hello` is not welcome, or nothing."""
        ...

    def refusal(self, cause: str) -> Refusal: ...
    def on_refused(self, peer: ManagerId, refusal: Refusal) -> None: ...
    def on_connected(self, peer: ManagerId, blank: bool) -> None: ...
    def on_disconnected(self, peer: ManagerId) -> None: ...
    def on_message(self, link: Heard, message: Message) -> None: ...
    def on_lost(self, peer: ManagerId) -> None: ...


class Links(Protocol):
    """What a replica needs of its connections to the others."""

    async def start(self) -> None:
        """Listen and dial. Raises OSError if the address can't be listened on."""

    async def stop(self) -> None: ...

    def send(self, peer: ManagerId, messages: Sequence[Message]) -> None:
        """In order, but small messages pass large ones (`frames.py`); dropped if there is no connection to `peer`."""

    def is_connected(self, peer: ManagerId) -> bool: ...

    def set_addresses(self, addresses: Mapping[ManagerId, tuple[str, int]]) -> None:
        """These are the peers from now on: new ones are dialled, and those that are gone are cut off and refused."""


@dataclass(frozen=True)
class LinksConfig:
    """Who speaks, to whom. `addresses` names the peers. Who `waits` listens even if he knows none.

    The server context requires client certificates of the cluster's CA, the client context shows this manager's own.
    """

    cluster_id: str
    manager_id: ManagerId
    listen: tuple[str, int]
    addresses: Mapping[ManagerId, tuple[str, int]]
    server_ssl: ssl.SSLContext
    client_ssl: ssl.SSLContext
    random: Random
    waits: bool = False


class _Refused(Exception):
    """The peer is not who it must be."""


class _Unwelcome(_Refused):
    """It is who it says, and is told why that is not enough."""


class _Link(asyncio.Protocol):
    """What both kinds of connection share: framing, and the hello that comes first."""

    def __init__(self) -> None:
        self.wire: asyncio.Transport | None = None
        self.certified: ManagerId | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = FrameReader(HELLO_FRAME_BYTES)
        self._greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = cast(asyncio.Transport, transport)
        _tune_socket(transport.get_extra_info("socket"))
        identity = identity_of(transport.get_extra_info("peercert"))
        if identity is not None and identity.role == "manager":
            self.certified = identity.name

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._reader.feed(data):
                if self._greeted:
                    self.on_message(message)
                elif isinstance(message, Refusal):
                    self.on_refusal(message)
                elif isinstance(message, Hello):
                    self._greeted = True
                    self._reader.lift_limit()
                    self.on_hello(message)
                else:
                    raise _Refused("it doesn't begin with a hello")
        except (FrameInvalid, _Refused) as error:
            self.refuse(error)

    def refuse(self, error: _Refused | FrameInvalid) -> None:
        log.warning("link_refused", peer=self.certified, cause=str(error))
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def abort(self) -> None:
        if self.wire is not None:
            self.wire.abort()

    def close(self) -> None:
        """After what was written is sent; at once if nothing waits."""
        if self.wire is not None and self.wire.get_write_buffer_size() == 0:
            self.wire.abort()
        elif self.wire is not None:
            self.wire.close()

    def on_hello(self, hello: Hello) -> None:
        raise NotImplementedError

    def on_refusal(self, refusal: Refusal) -> None:
        raise _Refused("it refuses what it asked for")

    def on_message(self, message: Message) -> None:
        raise NotImplementedError


class Incoming(_Link):
    """A connection that a peer dialled: over it the peer speaks to us."""

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self._transport = transport
        self.peer: ManagerId = ""
        self.current = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._transport.incoming.append(self)
        self._deadline = asyncio.get_running_loop().call_later(HELLO_TIMEOUT_S, self.abort)

    def on_hello(self, hello: Hello) -> None:
        self.peer = hello.manager_id
        self._transport.check_hello(hello, self.certified)
        assert self.wire is not None
        self.wire.write(encode_frame(self._transport.hello()))
        if self._deadline is not None:
            self._deadline.cancel()
        self._transport.accept(self)

    def refuse(self, error: _Refused | FrameInvalid) -> None:
        if not isinstance(error, _Unwelcome) or self.wire is None:
            super().refuse(error)
            return
        self._transport.note_unwelcome(self.peer, str(error))
        self.wire.write(encode_frame(self._transport.handler.refusal(str(error))))
        self.wire.close()

    def on_message(self, message: Message) -> None:
        if self.current:
            self._transport.handler.on_message(self, message)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if self._deadline is not None:
            self._deadline.cancel()
        self._transport.incoming.remove(self)
        if self.current:
            self.current = False
            self._transport.handler.on_lost(self.peer)


class _Outgoing(_Link):
    """A connection that we dialled: over it we speak to a peer, and hear nothing but its hello."""

    def __init__(self, transport: Transport, peer: ManagerId) -> None:
        super().__init__()
        self._transport = transport
        self._peer = peer
        self.greeting: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()
        self._outlet: Outlet | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.wire is not None
        self._outlet = Outlet(self.wire)
        self._outlet.send([self._transport.hello()])

    def speak(self, messages: Sequence[Message]) -> None:
        assert self._outlet is not None, "it has said its hello"
        self._outlet.send(messages)
        if self._outlet.unsent_bytes > MAX_BUFFERED_BYTES:
            log.warning("link_cut", peer=self._peer, cause="it doesn't read what it is sent")
            self.abort()

    def pause_writing(self) -> None:
        if self._outlet is not None:
            self._outlet.pause()

    def resume_writing(self) -> None:
        if self._outlet is not None:
            self._outlet.resume()

    def on_hello(self, hello: Hello) -> None:
        self._transport.check_hello(hello, self.certified)
        if hello.manager_id != self._peer:
            raise _Refused(f"it is {hello.manager_id!r}, not {self._peer!r}")
        if not self.greeting.done():
            self.greeting.set_result(hello)

    def on_refusal(self, refusal: Refusal) -> None:
        if self.certified == self._peer:
            self._transport.handler.on_refused(self._peer, refusal)
            self._fail(_Unwelcome(refusal.cause))

    def refuse(self, error: _Refused | FrameInvalid) -> None:
        if isinstance(error, _Unwelcome):
            self._transport.note_unwelcome(self._peer, str(error))
            self._fail(error)
            self.abort()
        else:
            super().refuse(error)

    def _fail(self, error: Exception) -> None:
        if not self.greeting.done():
            self.greeting.set_exception(error)
            self.greeting.exception()  # the dialler may have given up already

    def on_message(self, message: Message) -> None:
        raise _Refused("it speaks on a connection that is ours to speak on")

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._fail(error or ConnectionError("it closed the connection before its hello"))


class Transport:
    """The links over TCP and TLS, which every real manager has."""

    def __init__(self, config: LinksConfig, handler: Handler) -> None:
        self.handler = handler
        self.incoming: list[Incoming] = []
        self._config = config
        self._addresses = dict(config.addresses)
        self._server: asyncio.Server | None = None
        self._started = False
        self._diallers: dict[ManagerId, asyncio.Task[None]] = {}
        self._cancelled: list[asyncio.Task[None]] = []
        self._pauses: dict[ManagerId, asyncio.Event] = {}
        self._spoken: dict[ManagerId, _Outgoing] = {}
        self._heard: dict[ManagerId, Incoming] = {}
        self._unwelcome: dict[ManagerId, str] = {}
        self._relisten: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen and dial. Raises OSError if the address can't be listened on."""
        if self._addresses or self._config.waits:
            await self._listen()
        self._started = True
        self.set_addresses(self._addresses)

    async def _listen(self) -> None:
        host, port = self._config.listen
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Incoming(self), host, port, ssl=self._config.server_ssl, ssl_handshake_timeout=HELLO_TIMEOUT_S
        )

    async def _keep_trying_to_listen(self) -> None:
        """The first other manager was added. If the address is taken, that is said, and tried again."""
        while self._server is None:
            try:
                await self._listen()
            except OSError as error:
                log.error("listen_failed", address=self._config.listen, cause=str(error))
                await asyncio.sleep(RELISTEN_S)

    def set_addresses(self, addresses: Mapping[ManagerId, tuple[str, int]]) -> None:
        """A peer whose address changed is dialled anew; one that is gone is cut off, and refused from now on."""
        changed = [peer for peer in self._diallers if addresses.get(peer) != self._addresses.get(peer)]
        self._addresses = dict(addresses)
        for peer in changed:
            dialler = self._diallers.pop(peer)
            dialler.cancel()
            self._cancelled = [task for task in self._cancelled if not task.done()] + [dialler]
        for link in [link for link in self.incoming if link.peer and link.peer not in self._addresses]:
            link.abort()
        if self._started:
            for peer in self._addresses:
                if peer not in self._diallers:
                    dialler = asyncio.get_running_loop().create_task(self._dial(peer), name=f"dial {peer}")
                    self._diallers[peer] = dialler
            if self._addresses and self._server is None and self._relisten is None:
                self._relisten = asyncio.get_running_loop().create_task(self._keep_trying_to_listen(), name="listen")

    async def stop(self) -> None:
        self._started = False
        tasks = [*self._diallers.values(), *([self._relisten] if self._relisten is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._cancelled, return_exceptions=True)
        links: list[_Link] = [*self.incoming, *self._spoken.values()]
        for link in links:
            link.abort()
        if links:
            await asyncio.wait([link.closed for link in links], timeout=1)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def send(self, peer: ManagerId, messages: Sequence[Message]) -> None:
        """Over the link to `peer`, in order; dropped if there is none."""
        link = self._spoken.get(peer)
        if link is not None:
            link.speak(messages)

    def is_connected(self, peer: ManagerId) -> bool:
        return peer in self._spoken

    def hello(self) -> Hello:
        return self.handler.hello()

    def note_unwelcome(self, peer: ManagerId, cause: str) -> None:
        """It will come again and again; that is said once."""
        if self._unwelcome.get(peer) != cause:
            self._unwelcome[peer] = cause
            log.warning("link_refused", peer=peer, cause=cause)

    def check_hello(self, hello: Hello, certified: ManagerId | None) -> None:
        """Raises _Refused unless it comes from a manager of this cluster who is welcome."""
        if hello.version != PROTOCOL_VERSION:
            raise _Refused(f"it speaks version {hello.version} of the protocol, not {PROTOCOL_VERSION}")
        if hello.cluster_id != self._config.cluster_id:
            raise _Refused(f"it is of cluster {hello.cluster_id!r}, not {self._config.cluster_id!r}")
        if certified is None or certified != hello.manager_id:
            raise _Refused(f"its certificate doesn't name manager {hello.manager_id!r}")
        cause = self.handler.judge(hello)
        if cause:
            raise _Unwelcome(cause)

    def accept(self, link: Incoming) -> None:
        """From now on `link` is where we hear its peer; what came over an older one counts no more."""
        older = self._heard.get(link.peer)
        if older is not None and older.current:
            older.current = False
            older.abort()
            self.handler.on_lost(link.peer)
        link.current = True
        self._heard[link.peer] = link
        self._unwelcome.pop(link.peer, None)
        if link.peer in self._pauses:
            self._pauses[link.peer].set()  # it is there, so it can be dialled

    async def _dial(self, peer: ManagerId) -> None:
        pause = REDIAL_MIN_S
        reason = ""
        while True:
            link: _Outgoing | None = None
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    link = await self._connect(peer)
                    hello = await link.greeting
                log.info("link_up", peer=peer)
                pause, reason = REDIAL_MIN_S, ""
                await self._hold(peer, link, hello)
            except (OSError, TimeoutError, ssl.CertificateError) as error:
                if str(error) != reason:
                    reason = str(error)
                    log.warning(
                        "link_failed", peer=peer, address=self._addresses.get(peer), cause=reason or "timed out"
                    )
            except _Refused:
                pause = REDIAL_REFUSED_S  # who refused whom, and why, was said
            finally:
                if link is not None:
                    link.close()
            await self._pause(peer, pause * self._config.random.uniform(0.5, 1))
            pause = min(pause * 2, REDIAL_MAX_S)

    async def _pause(self, peer: ManagerId, seconds: float) -> None:
        """Until it is time to dial `peer` again, or it has dialled us."""
        self._pauses[peer] = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._pauses[peer].wait()
        del self._pauses[peer]

    async def _connect(self, peer: ManagerId) -> _Outgoing:
        host, port = self._addresses[peer]
        _, link = await asyncio.get_running_loop().create_connection(
            lambda: _Outgoing(self, peer),
            host,
            port,
            ssl=self._config.client_ssl,
            server_hostname=manager_hostname(peer),
        )
        return link

    async def _hold(self, peer: ManagerId, link: _Outgoing, hello: Hello) -> None:
        self._spoken[peer] = link
        self.handler.on_connected(peer, hello.blank)
        try:
            await link.closed
        finally:
            if self._spoken.get(peer) is link:
                del self._spoken[peer]
                self.handler.on_disconnected(peer)
            log.info("link_down", peer=peer)


def _tune_socket(sock: socket.socket) -> None:
    """Send at once, and notice a peer that vanished without a word."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError):  # not offered by every kernel; without it a dead link is noticed later
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)
