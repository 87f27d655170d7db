"""Logs through the stream: a window at a time, to the end or with a reason, with room for everybody."""

from __future__ import annotations

import asyncio

import pytest

from hasched.api.hub import LOG_WINDOW_BYTES
from hasched.model.errors import NodeUnreachable, Overloaded
from hasched.model.wire import Heartbeat, HeartbeatAck, LogCancel, LogChunk, LogRead, NodeUsage
from tests.manager.stream import Agent, Manager


async def read(manager: Manager, actor: str = "ada", **options: object) -> tuple[bytes, str]:
    """The whole answer, and its error if it had one."""
    data, error = b"", ""
    chunks = manager.hub.read_log("n1", job_id=1, index=0, attempt=0, stream="stdout", actor=actor, **options)  # type: ignore[arg-type]
    async for chunk in chunks:
        data, error = data + chunk.data, chunk.error
    return data, error


async def serve_log(agent: Agent, log: bytes, size: int) -> list[LogRead]:
    """Answer requests for `log` in chunks until its end has been sent."""
    requests = []
    while True:
        request = await agent.expect(LogRead)
        requests.append(request)
        start = request.offset if request.offset >= 0 else max(len(log) + request.offset, 0)
        stop = min(start + request.limit, len(log))
        for at in range(start, max(stop, start + 1), size):
            data = log[at : min(at + size, stop)]
            await agent.send(LogChunk(request.request, at, data, end=at + size >= stop))
        if stop == len(log):
            return requests


async def test_a_log_is_read_from_the_node_window_by_window(manager: Manager) -> None:
    log = bytes(range(256)) * (LOG_WINDOW_BYTES // 128)
    async with manager.agent() as agent:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read(manager))
            serving = group.create_task(serve_log(agent, log[:-100], 64 * 1024))
        assert reading.result() == (log[:-100], "")
        assert [request.offset for request in serving.result()] == [0, LOG_WINDOW_BYTES]


async def test_a_limit_and_a_tail_are_kept(manager: Manager) -> None:
    log = b"0123456789" * 100
    async with manager.agent() as agent:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read(manager, offset=-7))
            group.create_task(serve_log(agent, log, 1000))
        assert reading.result() == (b"3456789", "")
        reading = asyncio.create_task(read(manager, offset=5, limit=10))
        request = await agent.expect(LogRead)
        await agent.send(LogChunk(request.request, 5, log[5:15], end=True))
        assert await reading == (log[5:15], "")


async def test_a_log_that_can_not_be_read_says_why(manager: Manager) -> None:
    async with manager.agent() as agent:
        reading = asyncio.create_task(read(manager))
        request = await agent.expect(LogRead)
        await agent.send(LogChunk(request.request, 0, b"", end=True, error="that log is gone"))
        assert await reading == (b"", "that log is gone")


async def test_a_reader_that_leaves_cancels_at_the_agent(manager: Manager) -> None:
    async with manager.agent() as agent:
        reading = asyncio.create_task(read(manager, follow=True))
        request = await agent.expect(LogRead)
        reading.cancel()
        assert await agent.expect(LogCancel) == LogCancel(request.request)
        await agent.send(LogChunk(request.request, 0, b"too late"), Heartbeat(1, NodeUsage()))
        await agent.expect(HeartbeatAck)


async def test_more_of_a_log_than_was_asked_for_closes_the_stream(manager: Manager) -> None:
    async with manager.agent() as agent:
        reading = asyncio.create_task(read(manager, limit=10))
        request = await agent.expect(LogRead)
        await agent.send(LogChunk(request.request, 0, b"x" * 11))
        assert await agent.closed() == (1008, "more of a log than was asked for")
        with pytest.raises(NodeUnreachable):
            await reading


async def test_a_log_of_a_node_that_is_or_goes_away_is_unreachable(manager: Manager) -> None:
    with pytest.raises(NodeUnreachable):
        await read(manager)
    async with manager.agent() as agent:
        reading = asyncio.create_task(read(manager))
        await agent.expect(LogRead)
    with pytest.raises(NodeUnreachable):
        await reading


async def test_readers_share_the_memory_and_one_actor_leaves_room_for_others(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hasched.api.hub.MAX_LOG_READS_PER_AGENT", 4)
    monkeypatch.setattr("hasched.api.hub.LOG_MEMORY_BYTES", 3_000)
    async with manager.agent() as agent:
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(read(manager)) for _ in range(2)]
            requests = [await agent.expect(LogRead) for _ in readers]
            with pytest.raises(Overloaded):
                await read(manager)
            readers.append(group.create_task(read(manager, "bob")))
            requests.append(await agent.expect(LogRead))
            assert [request.limit for request in requests] == [3_000, 1_500, 1_000]
            for request in requests:
                await agent.send(LogChunk(request.request, 0, b"x", end=True))
        assert [reader.result() for reader in readers] == [(b"x", "")] * 3
        assert not manager.hub._readers


async def test_a_reader_that_was_let_in_reads_to_the_end_though_others_are_refused(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hasched.api.hub.MAX_LOG_READS_PER_AGENT", 2)
    monkeypatch.setattr("hasched.api.hub.LOG_WINDOW_BYTES", 100)
    async with manager.agent() as agent:
        reading = asyncio.create_task(read(manager))
        first = await agent.expect(LogRead)
        with pytest.raises(Overloaded):
            await read(manager)
        await agent.send(LogChunk(first.request, 0, b"x" * 100, end=True))
        second = await agent.expect(LogRead)
        assert (second.offset, second.limit) == (100, 100)
        await agent.send(LogChunk(second.request, 100, b"y", end=True))
        assert await reading == (b"x" * 100 + b"y", "")
