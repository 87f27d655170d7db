"""The stream to the leading manager: found through any manager, opened again whenever it breaks.

Pauses between tries grow and are random within their bound, so that a thousand agents don't call a new leader in one moment.
A manager that doesn't acknowledge heartbeats counts as gone, whatever TCP believes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Protocol

import aiohttp
import msgspec
import structlog

from hasched.agent.environment import CONNECT_TIMEOUT_S, Environment
from hasched.agent.origin import FILE as ORIGIN_FILE
from hasched.client.tls import MANAGER_HOSTNAME
from hasched.model.errors import ForeignCluster
from hasched.model.wire import (
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    AttemptKey,
    FromAgent,
    Heartbeat,
    HeartbeatAck,
    Hello,
    NodeInfo,
    NodeUsage,
    OtherCluster,
    Redirect,
    ToAgent,
    Welcome,
    decode_to_agent,
    encode_frame,
    hello_frames,
)

STREAM_PATH = "/v1/agent/stream"
CLOSE_TIMEOUT_S = 0.5  # a manager that is gone doesn't answer a goodbye, and work waits elsewhere
FIRST_PAUSE_S = 0.05
SILENT_HEARTBEATS = 5  # unacknowledged for so many intervals, but at least MIN_SILENCE_MS: the manager is gone
MIN_SILENCE_MS = 3_000
MAX_REDIRECTS = 3  # without a pause
_log = structlog.get_logger(__name__)


class Agent(Protocol):
    """What the link asks of the agent, and tells it."""

    def describe(self) -> tuple[NodeInfo, tuple[AttemptKey, ...]]:
        """The content of `Hello`."""
        ...

    def origin(self) -> str:
        """Of the cluster that the agent belongs to, empty if it has met none."""
        ...

    def belong_to(self, origin: str) -> None:
        """Of the leaders of this cluster orders are taken from now on, and of no others, if it had met none before.

        Raises OSError if that can't be kept; then it has met none.
        """
        ...

    def usage(self) -> NodeUsage: ...

    def accepts(self) -> bool:
        """Whether the agent wants more work."""
        ...

    def opened(self, welcome: Welcome, hello_ms: int) -> None:
        """A session begins. `hello_ms` is when it was asked for (CLOCK_BOOTTIME)."""
        ...

    def heartbeat_sent(self, number: int, at_ms: int) -> None: ...

    def received(self, messages: Sequence[ToAgent]) -> None: ...

    def closed(self) -> None:
        """The session that `opened` announced has ended."""
        ...


class Refused(Exception):
    """This manager doesn't take us now; `api_url` is the one that may, if known."""

    def __init__(self, cause: str, api_url: str = "") -> None:
        super().__init__(cause)
        self.api_url = api_url


class Link:
    def __init__(
        self,
        agent: Agent,
        node_id: str,
        managers: Sequence[str],
        tls: ssl.SSLContext,
        *,
        max_pause_ms: int,
        environment: Environment,
    ) -> None:
        self._agent = agent
        self._node_id = node_id
        self._managers = [url.rstrip("/") for url in managers]
        self._tls = tls
        self._max_pause_s = max_pause_ms / 1000
        self._random = environment.random
        self._boot_ms = environment.boot_ms
        self._open_http = environment.open_http
        self._socket: aiohttp.ClientWebSocketResponse | None = None  # of the open session
        self._outgoing: list[FromAgent] = []
        self._wake = asyncio.Event()
        self._acknowledged_ms = 0
        self._silent = False
        self._mute: dict[str, None] = {}
        self._foreign: dict[str, str] = {}  # managers of other clusters, and what was said of them
        self._beats = 0
        self._complaint = ""  # about reading the usage, so that it is logged once
        self._unkept = ""  # why the origin couldn't be kept, so that it is logged once
        self._closing: asyncio.Task[bool] | None = None  # held, so that it isn't collected before it is done

    async def run(self) -> None:
        """Keep a session open until cancelled."""
        preferred = ""
        failures = 0
        redirects = 0
        async with self._open_http() as http:
            while True:
                url = preferred or self._choose()
                preferred = ""
                try:
                    await self._session(http, url)
                    failures = redirects = 0
                    preferred = url
                    _log.info("session_closed", manager=url)
                except Refused as refused:
                    _log.info("manager_refused", manager=url, cause=str(refused), leader=refused.api_url)
                    leader = refused.api_url.rstrip("/")
                    if leader in self._mute:
                        self._mute[url] = None  # it leads nowhere either, until all have been asked
                    elif leader and redirects < MAX_REDIRECTS:
                        preferred = leader
                        redirects += 1
                        continue
                    failures += 1
                except ForeignCluster as error:
                    self._complain(url, error)
                    self._mute[url] = None
                    failures += 1
                except (aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
                    _log.info("manager_not_reached", manager=url, cause=str(error) or repr(error))
                    self._mute[url] = None
                    failures += 1
                redirects = 0
                bound_s = min(self._max_pause_s, FIRST_PAUSE_S * 2 ** min(failures, 16))
                await asyncio.sleep(self._random.uniform(bound_s / 2, bound_s))

    def _complain(self, url: str, error: ForeignCluster) -> None:
        """Loudly, and once of each manager as long as it stays what it is: it is asked again and again."""
        if self._foreign.get(url) != error.cause:
            self._foreign[url] = error.cause
            _log.error(error.code, manager=url, cause=error.cause, hint=error.hint)

    def _choose(self) -> str:
        """One that was silent or not reached has its turn again when all others were, too: it may be frozen."""
        answering = [url for url in self._managers if url not in self._mute]
        if not answering:
            self._mute.clear()
        return self._random.choice(answering or self._managers)

    def send(self, message: FromAgent) -> None:
        """Send soon, together with whatever else is waiting. Without a session it is dropped: the next one compares anew."""
        if self._socket is not None:
            self._outgoing.append(message)
            self._wake.set()

    async def send_now(self, message: FromAgent) -> None:
        """Send at the peer's pace. Raises ConnectionResetError without a session."""
        if self._socket is None:
            raise ConnectionResetError("no session")
        await self._socket.send_bytes(encode_frame([message]))

    def beat(self) -> None:
        """Send a heartbeat now, if there is a session."""
        if self._socket is None:
            return
        self._beats += 1
        self._agent.heartbeat_sent(self._beats, self._boot_ms())
        self.send(Heartbeat(self._beats, self._usage(), self._agent.accepts()))

    def _usage(self) -> NodeUsage:
        """A node whose usage can't be read is alive: its heartbeats go on."""
        try:
            usage, complaint = self._agent.usage(), ""
        except Exception as error:
            usage, complaint = NodeUsage(), repr(error)
        if complaint and complaint != self._complaint:
            _log.error("usage_not_read", cause=complaint)
        self._complaint = complaint
        return usage

    def reconnect(self) -> None:
        """End the session, so that a new one compares everything."""
        if self._socket is not None:
            self._closing = asyncio.create_task(self._socket.close())

    async def _session(self, http: aiohttp.ClientSession, url: str) -> None:
        """One session with one manager, until it ends.

        Raises Refused or ForeignCluster if it never began, TimeoutError if it fell silent.
        """
        async with http.ws_connect(
            f"{url}{STREAM_PATH}",
            ssl=self._tls,
            server_hostname=MANAGER_HOSTNAME,
            max_msg_size=MAX_FRAME_BYTES,
            compress=0,
            timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
        ) as socket:
            info, attempts = self._agent.describe()
            hello_ms = self._boot_ms()
            session = f"{self._random.getrandbits(64):016x}"
            hello = Hello(PROTOCOL_VERSION, self._node_id, session, info, attempts, self._agent.origin())
            for frame in hello_frames(hello):
                await socket.send_bytes(frame)
            welcome, rest = await self._await_welcome(socket)
            _log.info("session_opened", manager=url, leader=welcome.leader, term=welcome.term)
            self._acknowledged_ms = self._boot_ms()
            self._silent = False
            self._mute.clear()
            self._outgoing.clear()
            self._socket = socket
            self._agent.opened(welcome, hello_ms)
            writer = asyncio.create_task(self._write(socket))
            heart = asyncio.create_task(self._beat(socket, welcome.heartbeat_ms))
            try:
                self._deliver(rest)
                async for message in socket:
                    if message.type is not aiohttp.WSMsgType.BINARY:
                        break
                    self._deliver(decode_to_agent(message.data))
            finally:
                self._socket = None
                writer.cancel()
                heart.cancel()
                self._agent.closed()
            if self._silent:
                raise TimeoutError("it fell silent")

    async def _await_welcome(self, socket: aiohttp.ClientWebSocketResponse) -> tuple[Welcome, list[ToAgent]]:
        try:
            message = await socket.receive(timeout=CONNECT_TIMEOUT_S)
        except TimeoutError:
            raise Refused("the manager doesn't answer the hello") from None
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise Refused(f"the manager closed the stream: {message.extra or socket.close_code}")
        first, *rest = decode_to_agent(message.data)
        match first:
            case Welcome(origin=origin):
                self._check_origin(origin)
                self._keep_origin(origin)
                return first, rest
            case OtherCluster(origin=origin):
                self._check_origin(origin)
                raise Refused("the manager takes this agent for one of another cluster")
            case Redirect(leader=leader, api_url=api_url):
                raise Refused(f"{leader or 'nobody known'} leads", api_url)
            case _:
                raise Refused(f"the manager began with {type(first).__name__}")

    def _check_origin(self, origin: str) -> None:
        """Nothing that another cluster's leader says is listened to. Raises ForeignCluster."""
        ours = self._agent.origin()
        if ours and origin != ours:
            raise ForeignCluster(
                f"it leads a cluster of origin {origin or '(none)'}, and this agent belongs to {ours}",
                f"mend or stop that manager; to move this agent to its cluster, stop it and remove {ORIGIN_FILE} "
                "in its data_dir",
            )

    def _keep_origin(self, origin: str) -> None:
        """No order is obeyed before it is kept whose orders they are. Raises Refused: the next try may find room."""
        try:
            self._agent.belong_to(origin)
        except OSError as error:
            cause = error.strerror or str(error)  # without the name of the file beside, which is another one each time
            if self._unkept != cause:
                self._unkept = cause
                _log.error("origin_not_kept", cause=cause, effect="this agent takes no work until it can be written")
            raise Refused(f"the origin of its cluster can't be kept: {cause}") from None
        self._unkept = ""

    def _deliver(self, messages: Sequence[ToAgent]) -> None:
        if any(isinstance(message, HeartbeatAck) for message in messages):
            self._acknowledged_ms = self._boot_ms()
        self._agent.received(messages)

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Send what is waiting, one frame after the other: what comes meanwhile shares the next."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            messages, self._outgoing = self._outgoing, []
            try:
                await socket.send_bytes(encode_frame(messages))
            except ConnectionError:
                return  # the reader sees the end of the session

    async def _beat(self, socket: aiohttp.ClientWebSocketResponse, heartbeat_ms: int) -> None:
        silence_ms = max(MIN_SILENCE_MS, SILENT_HEARTBEATS * heartbeat_ms)
        while True:
            self.beat()
            await asyncio.sleep(heartbeat_ms / 1000)
            if self._boot_ms() - self._acknowledged_ms > silence_ms:
                _log.warning("manager_silent", silent_ms=self._boot_ms() - self._acknowledged_ms)
                self._silent = True
                await socket.close()
                return
