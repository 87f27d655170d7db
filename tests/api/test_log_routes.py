"""Logs: raw bytes from the node that keeps them, through the stream of its agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from api_server import Manager
from log_agent import PATIENCE_S, Agent, connected_agent, start, whole

from hasched.client.tls import MANAGER_HOSTNAME
from hasched.model.wire import AttemptKey, Heartbeat, LogChunk, NodeUsage


@pytest.fixture
async def agent(manager: Manager) -> AsyncIterator[Agent]:
    async with connected_agent(manager) as agent:
        yield agent


@pytest.mark.parametrize(
    ("query", "body", "offset"),
    [
        ("", b"hello, world\n", 0),
        ("?offset=7", b"world\n", 7),
        ("?offset=7&limit=3", b"wor", 7),
        ("?tail=6", b"world\n", 7),
        ("?offset=100", b"", 100),
        ("?stream=stderr&attempt=1", b"hello, world\n", 0),
        ("?follow=true", b"hello, world\n", 0),
    ],
)
async def test_bytes_of_a_log(manager: Manager, agent: Agent, query: str, body: bytes, offset: int) -> None:
    agent.answer = whole(b"hello, world\n")
    job_id = await start(manager)
    answer = await manager.get(f"/v1/jobs/{job_id}/tasks/0/logs{query}")
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["Hasched-Log-Offset"] == str(offset)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert [AttemptKey(read.job_id, read.index, read.attempt) for read in agent.reads] == [AttemptKey(job_id, 0, 1)]


async def test_a_log_whose_beginning_is_gone_says_where_it_begins(manager: Manager, agent: Agent) -> None:
    agent.answer = whole(b"hello, world\n", first=7)
    answer = await manager.get(f"/v1/jobs/{await start(manager)}/tasks/0/logs")
    assert (answer.body, answer.headers["Hasched-Log-Offset"]) == (b"world\n", "7")
    assert answer.headers["Hasched-Log-First-Offset"] == "7"


async def test_a_gap_in_the_middle_breaks_the_answer_off(manager: Manager, agent: Agent) -> None:
    agent.answer = lambda read: [LogChunk(read.request, 0, b"abc"), LogChunk(read.request, 9, b"xyz", 9, True)]
    with pytest.raises(aiohttp.ClientError):
        await manager.get(f"/v1/jobs/{await start(manager)}/tasks/0/logs")


async def test_an_agent_that_goes_away_breaks_the_answer_off(manager: Manager, agent: Agent) -> None:
    agent.answer = lambda read: [LogChunk(read.request, 0, b"abc")]
    job_id = await start(manager)
    reading = asyncio.create_task(manager.get(f"/v1/jobs/{job_id}/tasks/0/logs?follow=true"))
    async with asyncio.timeout(PATIENCE_S):
        while not agent.reads:
            await asyncio.sleep(0.005)
    await agent.socket.close()
    with pytest.raises(aiohttp.ClientError):
        await reading
    assert (await manager.get(f"/v1/jobs/{job_id}/tasks/0/logs")).code == "node_unreachable"


async def test_a_silent_log_that_is_followed_is_answered_at_once(manager: Manager, agent: Agent) -> None:
    job_id = await start(manager)
    async with manager.session.get(
        f"{manager.url}/v1/jobs/{job_id}/tasks/0/logs?follow=true",
        headers={"Authorization": f"Bearer {manager.pki.token}"},
        server_hostname=MANAGER_HOSTNAME,
    ) as response:
        assert (response.status, response.headers["Hasched-Log-Offset"]) == (200, "0")
        (read,) = agent.reads
        await agent.send(LogChunk(read.request, 0, b"now"))
        assert await response.content.readexactly(3) == b"now"
        await agent.send(LogChunk(read.request, 3, b"", 0, True))
        assert await response.content.read() == b""


async def test_a_reader_that_leaves_is_cancelled_at_the_agent(manager: Manager, agent: Agent) -> None:
    job_id = await start(manager)
    async with manager.session.get(
        f"{manager.url}/v1/jobs/{job_id}/tasks/0/logs?follow=true",
        headers={"Authorization": f"Bearer {manager.pki.token}"},
        server_hostname=MANAGER_HOSTNAME,
    ) as response:
        assert response.status == 200
        response.close()
    async with asyncio.timeout(PATIENCE_S):
        while manager.hub.sessions["n1"].log_requests:
            await asyncio.sleep(0.005)


async def test_what_there_is_no_log_of(manager: Manager, agent: Agent) -> None:
    waiting = await manager.submit()
    assert (await manager.get(f"/v1/jobs/{waiting}/tasks/0/logs")).code == "no_attempt"
    job_id = await start(manager)
    assert (await manager.get(f"/v1/jobs/{job_id}/tasks/0/logs?attempt=2")).code == "no_such_attempt"
    assert (await manager.get(f"/v1/jobs/{job_id}/tasks/0/logs?tail=1&offset=1")).code == "bad_request"
    assert (await manager.get(f"/v1/jobs/{job_id}/tasks/0/logs?stream=stdin")).code == "bad_request"
    agent.answer = lambda read: [LogChunk(read.request, 0, b"", 0, True, "this node holds no log of that attempt")]
    assert (await manager.get(f"/v1/jobs/{job_id}/tasks/0/logs")).code == "no_log"


async def test_a_node_shows_what_its_agent_says(manager: Manager, agent: Agent) -> None:
    await agent.send(Heartbeat(1, NodeUsage(250, 1024, 10, 99)))
    async with asyncio.timeout(PATIENCE_S):
        while (await manager.get("/v1/nodes/n1")).json["usage"] is None:
            await asyncio.sleep(0.005)
    await start(manager)
    (node,) = (await manager.get("/v1/nodes")).json["nodes"]
    assert (node["id"], node["connected"], node["running"]) == ("n1", True, 1)
    assert node["usage"] == {"cpu_milli": 250, "memory_bytes": 1024, "load_milli": 10, "disk_free_bytes": 99}
    assert (node["allocated"]["cpu_milli"], node["reason"]) == (1000, None)
    await agent.send(Heartbeat(2, NodeUsage(), accepts=False))
    async with asyncio.timeout(PATIENCE_S):
        while (await manager.get("/v1/nodes/n1")).json["reason"] is None:
            await asyncio.sleep(0.005)
    assert (await manager.get("/v1/nodes/n1")).json["reason"]["code"] == "refuses_work"
    assert (await manager.request("DELETE", "/v1/nodes/n1")).status == 409
    cluster = (await manager.get("/v1/cluster")).json
    assert (cluster["nodes"], cluster["tasks"]) == ({"healthy": 1}, {"SCHEDULED": 1})
