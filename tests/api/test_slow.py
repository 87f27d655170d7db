"""Clients that are slow, or too many: cut off by our own deadlines, while everybody else is served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from api_server import Manager, Pki, running_manager

from hasched.api.context import ApiLimits
from hasched.client.tls import MANAGER_HOSTNAME

IMPATIENT = ApiLimits(
    body_s=0.3, write_s=0.3, idle_s=0.4, handshake_s=0.3, linger_s=0.1, connections=8, keep_alive_s=0.05
)
PATIENCE_S = 10


@pytest.fixture
async def impatient(tmp_path: Path, pki: Pki) -> AsyncIterator[Manager]:
    async with running_manager(tmp_path, pki, IMPATIENT) as manager:
        yield manager


@asynccontextmanager
async def connected(
    manager: Manager, receive_buffer: int = 0
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    raw = socket.socket()
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", manager.server.port))
    reader, writer = await asyncio.open_connection(
        sock=raw, ssl=manager.pki.client(), server_hostname=MANAGER_HOSTNAME, limit=2**12
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def head(manager: Manager, method: str, path: str, *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {manager.pki.token}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    except ConnectionResetError:
        return b""


async def test_a_body_that_never_comes_is_answered_408(impatient: Manager) -> None:
    before = impatient.digest
    async with connected(impatient) as (reader, writer):
        writer.write(head(impatient, "POST", "/v1/jobs", "Content-Length: 100") + b'{"command"')
        answer = await read_to_end(reader)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer
    assert impatient.digest == before
    assert (await impatient.get("/livez")).status == 200


async def test_a_head_that_never_ends_is_cut_off(impatient: Manager) -> None:
    async with connected(impatient) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")

        async def drip() -> None:
            while True:
                writer.write(b"z")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert await read_to_end(reader) == b""
        dripping.cancel()


async def test_a_handshake_that_never_comes_is_not_waited_for(impatient: Manager) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", impatient.server.port)
    assert (await impatient.get("/livez")).status == 200
    assert await read_to_end(reader) == b""
    writer.close()


async def test_a_stranger_that_says_nothing_is_sent_away_before_others_are(tmp_path: Path, pki: Pki) -> None:
    async with running_manager(tmp_path, pki, ApiLimits(head_s=0.2, idle_s=600)) as manager:
        async with connected(manager) as (reader, writer), connected(manager) as (silent, _):
            writer.write(head(manager, "GET", "/livez"))
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            assert await read_to_end(silent) == b""
            writer.write(head(manager, "GET", "/livez", "Connection: close"))
            assert (await read_to_end(reader)).count(b"HTTP/1.1 200") == 1


async def test_an_event_stream_that_nobody_reads_is_cut_off(impatient: Manager) -> None:
    async with connected(impatient, receive_buffer=4096) as (reader, writer):
        writer.write(head(impatient, "GET", "/v1/events"))
        await reader.readuntil(b"retry: ")
        writer.transport.pause_reading()
        jobs = [{"spec": {"command": ["true"]}} for _ in range(5000)]
        feed = impatient.server.context.feed
        async with asyncio.timeout(PATIENCE_S):
            while feed._of_all:
                await impatient.post("/v1/jobs/batch", {"jobs": jobs})
    assert (await impatient.get("/livez")).status == 200


async def test_an_answer_that_nobody_takes_is_cut_off(impatient: Manager) -> None:
    jobs = [{"spec": {"command": ["true"], "name": "x" * 100}} for _ in range(2000)]
    await impatient.post("/v1/jobs/batch", {"jobs": jobs})
    async with connected(impatient, receive_buffer=4096) as (_reader, writer):
        writer.transport.pause_reading()
        for _ in range(20):
            writer.write(head(impatient, "GET", "/v1/jobs?limit=1000"))
        http = impatient.server._http
        assert http is not None
        async with asyncio.timeout(PATIENCE_S):
            while len(http.connections) > 1:  # the session's own
                await asyncio.sleep(0.01)


async def knock(manager: Manager) -> bool:
    try:
        async with connected(manager) as (reader, writer):
            writer.write(head(manager, "GET", "/livez"))
            return (await reader.readline()).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


async def test_connections_are_capped(tmp_path: Path, pki: Pki) -> None:
    async with running_manager(tmp_path, pki, ApiLimits(connections=8)) as manager:
        async with AsyncExitStack() as users:
            for _ in range(8):
                reader, writer = await users.enter_async_context(connected(manager))
                writer.write(head(manager, "GET", "/v1/managers"))
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            assert not await knock(manager)
        async with asyncio.timeout(PATIENCE_S):
            while not await knock(manager):
                await asyncio.sleep(0.01)


async def test_strangers_keep_nobody_out(tmp_path: Path, pki: Pki) -> None:
    """At the cap the oldest connection gives place whose client never showed who it is; a user's stays."""
    async with running_manager(tmp_path, pki, ApiLimits(connections=8)) as manager, AsyncExitStack() as held:
        user, user_writer = await held.enter_async_context(connected(manager))
        user_writer.write(head(manager, "GET", "/v1/events"))
        await user.readuntil(b"retry: ")
        strangers = [await held.enter_async_context(connected(manager)) for _ in range(7)]
        assert await knock(manager)
        assert await read_to_end(strangers[0][0]) == b""
        await manager.submit()
        async with asyncio.timeout(PATIENCE_S):
            await user.readuntil(b"JobSubmitted")


async def test_what_is_not_http_gets_a_problem(impatient: Manager) -> None:
    async with connected(impatient) as (reader, writer):
        writer.write(b"HELO there\r\n\r\n")
        answer = await read_to_end(reader)
    assert answer.startswith(b"HTTP/1.0 400 ") or answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"bad_request"' in answer


async def test_a_head_that_is_too_long_gets_a_problem(impatient: Manager) -> None:
    async with connected(impatient) as (reader, writer):
        writer.write(head(impatient, "GET", "/livez", "X-Long: " + "x" * 100_000))
        answer = await read_to_end(reader)
    assert b" 400 " in answer.split(b"\r\n")[0]


async def test_expect_continue_is_answered_before_the_body(impatient: Manager) -> None:
    async with connected(impatient) as (reader, writer):
        body = b'{"command": ["true"]}'
        more = (f"Content-Length: {len(body)}", "Expect: 100-continue", "Connection: close")
        writer.write(head(impatient, "POST", "/v1/jobs", *more))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await read_to_end(reader)).startswith(b"HTTP/1.1 201 ")
