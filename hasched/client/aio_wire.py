"""How the asynchronous client asks: a pool of connections, tries on one manager after the other, signs of life of the slow."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Self, TypeVar

import aiohttp

from hasched.client.calls import Call
from hasched.client.context import Context
from hasched.client.policy import LIFE_PATH, Endpoints, NotReached, OneTry, Tries
from hasched.client.problems import error_of
from hasched.client.tls import MANAGER_HOSTNAME, client_context
from hasched.client.vigil import Lives, Vigil
from hasched.model.errors import HaschedError, NotFound

T = TypeVar("T")
DEFAULT_TIMEOUT_S = 30.0
STREAM_SILENCE_S = 45.0  # a stream says something at least every 15 s


class AsyncWire:
    """What every part of `AsyncClient` is made with: `_do` makes a call, `_open` begins a stream."""

    def __init__(
        self,
        context: Context,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        connections: int = 100,
        retries: bool = True,
    ) -> None:
        self._timeout_s = timeout_s
        self._kind_of_tries = Tries if retries else OneTry
        self._endpoints = Endpoints(context.managers)
        try:
            self._tls = client_context(Path(context.ca).expanduser())
        except OSError as error:
            raise NotFound(f"the CA certificate {context.ca} can't be read: {error}", "check the context") from None
        self._headers = {"Authorization": f"Bearer {context.token}"} if context.token else {}
        self._connections = connections
        self._lives = Lives(self._ask_for_life)
        self._http: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        await self._lives.close()
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _do(self, call: Call[T]) -> T:
        tries = self._tries(call)
        while True:
            vigil = Vigil(self._lives, tries.url, tries.attempt_timeout_s(time.monotonic()))
            try:
                async with (
                    vigil,
                    self._session().request(
                        call.method,
                        tries.url + call.path,
                        data=call.body or None,
                        headers=call.headers,
                        server_hostname=MANAGER_HOSTNAME,
                        timeout=aiohttp.ClientTimeout(total=None, sock_connect=tries.connect_timeout_s),
                        trace_request_ctx=vigil,
                    ) as response,
                ):
                    body = await response.read()
                    if response.status >= 400:
                        raise error_of(response.status, body)
                    return call.decode(body)
            except NotFound:
                if call.method == "DELETE" and tries.uncertain:
                    return call.decode(b"")  # an earlier try did it
                raise
            except (OSError, HaschedError, aiohttp.ClientError) as error:
                cause = as_oserror(error)
                if isinstance(cause, OSError) and not (vigil.begun or isinstance(cause, NotReached)):
                    cause = NotReached(cause)
                pause = tries.failed(cause, time.monotonic())
            await asyncio.sleep(pause)

    def _tries(self, call: Call[T] | None = None) -> Tries:
        started = time.monotonic()
        if call is None:
            return self._kind_of_tries(self._endpoints, started, self._timeout_s)
        return self._kind_of_tries(
            self._endpoints,
            started,
            self._timeout_s,
            writes=call.writes,
            submission_ids=call.submission_ids,
            patience_s=call.patience_s,
        )

    async def _ask_for_life(self, url: str) -> None:
        """On a connection of its own, since all others may be waiting for answers."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls, force_close=True)) as session,
            session.get(url + LIFE_PATH, server_hostname=MANAGER_HOSTNAME) as response,
        ):
            await response.read()

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            connector = aiohttp.TCPConnector(ssl=self._tls, limit=self._connections)
            sent = aiohttp.TraceConfig()
            sent.on_request_headers_sent.append(_begin_vigil)
            self._http = aiohttp.ClientSession(
                connector=connector,
                headers=self._headers,
                read_bufsize=2**20,
                trace_configs=[sent],
                middlewares=[_send_once],
            )
        return self._http

    async def _open(self, tries: Tries, path: str) -> aiohttp.ClientResponse:
        """A stream. Raises the error that the manager answers with."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=tries.connect_timeout_s, sock_read=STREAM_SILENCE_S)
        async with asyncio.timeout(tries.attempt_timeout_s(time.monotonic())):
            response = await self._session().get(tries.url + path, server_hostname=MANAGER_HOSTNAME, timeout=timeout)
        if response.status >= 400:
            async with response:
                raise error_of(response.status, await response.read())
        return response


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp sends a GET or DELETE again by itself when its connection breaks. A second DELETE finds nothing, and would be
    taken for one that did nothing; whether to try again is for `Tries` to say.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ConnectionResetError(str(error)) from error


async def _begin_vigil(_session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
    if isinstance(context.trace_request_ctx, Vigil):
        context.trace_request_ctx.begin()


def as_oserror(error: Exception) -> HaschedError | OSError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return NotReached(ssl.SSLCertVerificationError(str(error.certificate_error)))
    if isinstance(error, aiohttp.ClientConnectorError):
        return NotReached(error.os_error)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return NotReached(error)
    if isinstance(error, HaschedError | OSError):
        return error
    return ConnectionResetError(f"the answer broke off ({type(error).__name__}: {error})")
