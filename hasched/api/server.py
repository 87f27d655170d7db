"""The HTTPS server: one listening address for users, managers and agents.

aiohttp reads and writes HTTP; which handler answers is our own affair. A client can't hold us up: heads, bodies and
answers have deadlines, bodies and connections have caps, and whatever is asked for by a stranger is refused unread.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from hasched.api.auth import peer_of
from hasched.api.call import Call
from hasched.api.context import ApiContext, ApiLimits
from hasched.api.problem import problem_response, unforeseen
from hasched.api.routing import Route, Router
from hasched.api.table import ROUTES
from hasched.model.errors import BadRequest, Forbidden, HaschedError

BACKLOG = 1024
MAX_HEAD_LINE = 16 * 1024
MAX_HEADERS = 64
SHUTDOWN_S = 3.0
BLOCKING_BYTES = 32 * 1024  # smaller answers fit the socket's buffer, whether the client reads or not

log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode


class ApiServer:
    """Serves `context` between `start` and `stop`. `server_ssl` takes client certificates without requiring them;
    `client_ssl` shows this manager's own to the other managers."""

    def __init__(
        self,
        context: ApiContext,
        listen_host: str,
        listen_port: int,
        server_ssl: ssl.SSLContext,
        client_ssl: ssl.SSLContext,
    ) -> None:
        self.context = context
        self._address = (listen_host, listen_port)
        self._server_ssl = server_ssl
        self._client_ssl = client_ssl
        self._router = Router(ROUTES)
        self._http: _HttpServer | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises OSError if the address can't be listened on."""
        loop = asyncio.get_running_loop()
        limits = self.context.limits
        self._http = _HttpServer(self._handle, limits)
        self.context.peers.start(self._client_ssl)
        host, port = self._address
        self._listener = await loop.create_server(
            self._http,
            host,
            port,
            ssl=self._server_ssl,
            ssl_handshake_timeout=limits.handshake_s,
            backlog=BACKLOG,
            reuse_address=True,
        )

    @property
    def port(self) -> int:
        """Where it listens, for a server that was made with port 0."""
        assert self._listener is not None
        return int(self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Take no more requests, let those under way end for a moment, and close every connection."""
        if self._listener is not None:
            self._listener.close()
        self.context.feed.close()
        await self.context.rehearsals.close()
        await self.context.peers.stop()
        if self._http is not None:
            self._http.pre_shutdown()
            await self._http.shutdown(SHUTDOWN_S)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.Request)
        path, _, query = request.raw_path.partition("?")
        try:
            route, arguments = self._router.find(request.method, path)
            return await self._answer(request, route, arguments, query)
        except HaschedError as error:
            return problem_response(error, path)
        except web.HTTPException as error:  # of aiohttp itself, at the opening of a WebSocket
            text = (error.text or error.reason).strip()
            kind = Forbidden if error.status == Forbidden.status else BadRequest
            return problem_response(kind(text), path)
        except ConnectionError:
            raise
        except Exception as error:
            return problem_response(unforeseen(error, request.method, path), path)

    async def _answer(
        self, request: web.Request, route: Route, arguments: Mapping[str, Any], query: str
    ) -> web.StreamResponse:
        context = self.context
        actor = context.authenticator.identify(request) if route.access == "user" else ""
        if self._http is not None and (actor or (route.access == "agent" and peer_of(request) is not None)):
            self._http.trust(request.protocol)
        if route.by_leader and not context.hub.leading:
            return await context.peers.pass_on(request, actor, context.limits.write_s)
        call = Call(context, request, route, actor)
        given = dict(arguments)
        if route.query is not None:
            given["query"] = route.query.read(query)
        elif query:
            raise BadRequest("this takes no query parameters", "leave them out")
        if route.body_type is not None:
            given["body"] = route.read_body(await call.read_body())
        result = await route.handler(call, **given)
        if isinstance(result, web.StreamResponse):
            return result
        return _json_response(call, result)


def _json_response(call: Call, result: object) -> web.Response:
    headers = call.headers
    headers["Cache-Control"] = "no-store"
    if result is None:
        return web.Response(status=call.status, headers=headers)
    headers["Content-Type"] = "application/json"
    body = _encode(result)
    if len(body) < BLOCKING_BYTES:
        return web.Response(status=call.status, body=body, headers=headers)
    return _LargeResponse(call.context.limits.write_s, status=call.status, body=body, headers=headers)


class _LargeResponse(web.Response):
    """An answer that a client may be too slow to take; then it is cut off."""

    def __init__(self, write_s: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._write_s = write_s
        self._transport: asyncio.Transport | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        self._transport = request.transport
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        try:
            async with asyncio.timeout(self._write_s):
                await super().write_eof(data)
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()
            raise ConnectionResetError("the client was too slow to take its answer") from None


class _HttpServer(web.Server):
    """Makes a protocol for each connection, up to a cap. A handler is cancelled when its client goes away.

    A stranger is a connection whose client has not shown yet who it is; at the cap the oldest stranger gives place.
    """

    def __init__(self, handler: Any, limits: ApiLimits) -> None:
        super().__init__(
            handler,
            request_factory=self._make_web_request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=limits.idle_s,
            lingering_time=limits.linger_s,
            max_line_size=MAX_HEAD_LINE,
            max_field_size=MAX_HEAD_LINE,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
        )
        self._max_connections = limits.connections
        self._head_s = limits.head_s
        self._strangers: dict[RequestHandler, None] = {}  # the oldest first
        self._full = False

    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        full = len(self._connections) >= self._max_connections
        if full != self._full:
            self._full = full
            log.warning("connections_full" if full else "connections_free", limit=self._max_connections)
        super().connection_made(handler, transport)
        if full and self._strangers:
            oldest = next(iter(self._strangers))
            self._forget_stranger(oldest)
            oldest.force_close()
        elif full:
            transport.abort()
            return
        self._strangers[handler] = None
        assert isinstance(handler, _Protocol)
        self._loop.call_later(self._head_s, handler.expect_head)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self._forget_stranger(handler)
        super().connection_lost(handler, exc)

    def trust(self, handler: RequestHandler) -> None:
        """Its client has shown who it is."""
        self._forget_stranger(handler)

    def _forget_stranger(self, handler: RequestHandler) -> None:
        self._strangers.pop(handler, None)

    def _make_web_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.Request:
        return _Request(message, payload, protocol, writer, task, self._loop)


class _Request(web.Request):
    """Its answers say what product they are of, and not of which version of what."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers["Server"] = "hasched"


class _Protocol(RequestHandler):
    """Answers what is not HTTP with a problem document, as everything else."""

    __slots__ = ()

    def expect_head(self) -> None:
        """Called when the first request must be there."""
        if self._request_count == 0 and self.transport is not None:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer is out already")
        error: HaschedError
        if status < 500:
            error = BadRequest(f"this is not HTTP: {(message or 'malformed').strip().splitlines()[0]}")
        else:
            error = unforeseen(exc or RuntimeError(message or "unknown"), request.method, request.path)
        response = problem_response(error)
        response.force_close()
        return response
