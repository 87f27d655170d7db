"""The other managers, asked over HTTPS: for themselves, or on behalf of a user whose request only the leader can answer.

Each link pins the name of the manager that it means. A request that has been passed on once is not passed on again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from hasched.api.auth import ACTOR_HEADER, is_forwarded
from hasched.model.errors import HaschedError, NoLeader, NotLeader
from hasched.model.identity import manager_hostname
from hasched.raft.replica import Member, Replica

CONNECT_TIMEOUT_S = 2.0
SILENCE_S = 60.0
MAX_LINKS = 256
LEADER_CHECK_S = 0.25
_PASSED_UP = ("Content-Type", "Cache-Control", "Retry-After", "Hasched-Log-Offset", "Hasched-Log-First-Offset")

T = TypeVar("T", bound=msgspec.Struct)


class Peers:
    """Opened with this manager's client certificate by `start`."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._asking: aiohttp.ClientSession | None = None
        self._passing: aiohttp.ClientSession | None = None

    def start(self, client_ssl: ssl.SSLContext) -> None:
        self._asking = _session(client_ssl, MAX_LINKS)
        # As many as there are users: the server caps those, and followed streams must not wait for each other.
        self._passing = _session(client_ssl, 0)

    async def stop(self) -> None:
        for session in (self._asking, self._passing):
            if session is not None:
                await session.close()

    async def ask(self, member: Member, path: str, answer: type[T], timeout_s: float) -> T:
        """What `member` says of itself. Raises HaschedError, whatever goes wrong."""
        try:
            async with asyncio.timeout(timeout_s), _get(self._asking, member, path, {}) as response:
                body = await response.read()
                if response.status != 200:
                    raise NoLeader(f"manager {member.manager_id} answered {response.status}", "look at its log")
                return msgspec.json.decode(body, type=answer)
        except (OSError, TimeoutError, aiohttp.ClientError, msgspec.DecodeError) as error:
            raise NoLeader(f"manager {member.manager_id} can't be asked: {error}", "look whether it runs") from None

    async def pass_on(self, request: web.BaseRequest, actor: str, write_s: float) -> web.StreamResponse:
        """Have the leader answer a GET, and stream its answer as long as it leads. Raises NoLeader, NotLeader."""
        leader = self._replica.leader
        if leader is None or leader.manager_id == self._replica.manager_id:
            raise NoLeader("no manager leads at the moment", "retry after a moment")
        if is_forwarded(request):
            raise NotLeader(leader.manager_id)
        response: web.StreamResponse | None = None
        try:
            async with (
                self._while_leading(leader),
                _get(self._passing, leader, request.raw_path, {ACTOR_HEADER: actor}) as answer,
            ):
                kept = {name: answer.headers[name] for name in _PASSED_UP if name in answer.headers}
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for data in answer.content.iter_any():
                    async with asyncio.timeout(write_s):
                        await response.write(data)
                return response
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            if response is None:
                raise _unreachable(leader, error) from None
            # Part of the answer is out, so the only way to say that it is not whole is to break off.
            if request.transport is not None:
                request.transport.abort()
            return response

    @asynccontextmanager
    async def _while_leading(self, leader: Member) -> AsyncIterator[None]:
        """Raises TimeoutError when another manager leads: the old one may be frozen, and would be waited for in vain."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            now_leading = self._replica.leader
            if now_leading is not None and now_leading.manager_id != leader.manager_id:
                limit.reschedule(loop.time())
            else:
                timers[:] = [loop.call_later(LEADER_CHECK_S, look)]

        async with asyncio.timeout(None) as limit:
            timers = [loop.call_later(LEADER_CHECK_S, look)]
            try:
                yield
            finally:
                timers[0].cancel()


def _session(client_ssl: ssl.SSLContext, max_links: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=client_ssl, limit=max_links),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_S),
        auto_decompress=False,
    )


@asynccontextmanager
async def _get(
    session: aiohttp.ClientSession | None, member: Member, path: str, headers: dict[str, str]
) -> AsyncIterator[aiohttp.ClientResponse]:
    assert session is not None, "started before anything is asked"
    async with session.get(
        URL(member.api_url.rstrip("/") + path, encoded=True),
        headers=headers,
        server_hostname=manager_hostname(member.manager_id),
        allow_redirects=False,
    ) as response:
        yield response


def _unreachable(leader: Member, error: Exception) -> HaschedError:
    cause = str(error) or type(error).__name__
    return NoLeader(f"the leader {leader.manager_id} can't be reached from here: {cause}", "ask another manager")
