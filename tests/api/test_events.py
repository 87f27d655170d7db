"""The event stream: in order, without gaps, resumable; and honest when it can't be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from api_server import Manager

from hasched.api.feed import EventFeed, EventId, Wanted, parse_event_id
from hasched.client.tls import MANAGER_HOSTNAME
from hasched.model.errors import EventsCompacted
from hasched.model.views import EventView

PATIENCE_S = 10


@asynccontextmanager
async def following(manager: Manager, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[EventView]]:
    async with manager.session.get(
        f"{manager.url}/v1/events{query}",
        headers={"Authorization": f"Bearer {manager.pki.token}", **headers},
        server_hostname=MANAGER_HOSTNAME,
    ) as response:
        assert response.headers["Content-Type"] == "text/event-stream"

        async def events() -> AsyncIterator[EventView]:
            async for line in response.content:
                if line.startswith(b"data: "):
                    yield msgspec.json.decode(line[6:], type=EventView)

        yield events()


async def take(events: AsyncIterator[EventView], count: int) -> list[EventView]:
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(events) for _ in range(count)]


async def test_a_stream_shows_what_happens_from_now_on(manager: Manager) -> None:
    await manager.submit(name="before")
    async with following(manager) as events:
        job_id = await manager.submit(name="after")
        await manager.post(f"/v1/jobs/{job_id}/cancel")
        seen = await take(events, 3)
    assert [event.type for event in seen] == ["JobSubmitted", "JobCancelRequested", "JobEnded"]
    assert {event.job_id for event in seen} == {job_id}
    assert seen[0].data["name"] == "after"
    assert seen[2].data == {"state": "CANCELLED"}


async def test_a_stream_shows_all_that_is_held(manager: Manager) -> None:
    job_id = await manager.submit(name="before")
    async with following(manager, f"?after=held&job={job_id}") as events:
        assert (await take(events, 1))[0].data["name"] == "before"


@pytest.mark.parametrize("by_header", [False, True])
async def test_a_stream_resumes_after_any_event_of_it(manager: Manager, by_header: bool) -> None:
    async with following(manager) as events:
        jobs = [{"spec": {"command": ["true"]}} for _ in range(20)]
        await manager.post("/v1/jobs/batch", {"jobs": jobs})
        await manager.post("/v1/jobs/batch", {"jobs": jobs})
        whole = await take(events, 40)
    ids = [parse_event_id(event.id) for event in whole]
    assert ids == sorted(set(ids))
    for place in (0, 7, 19, 20, 38):
        last = whole[place].id
        query, headers = ("", {"Last-Event-ID": last}) if by_header else (f"?after={last}", {})
        async with following(manager, query, **headers) as events:
            assert await take(events, 39 - place) == whole[place + 1 :]


async def test_a_stream_of_one_job_shows_no_other(manager: Manager) -> None:
    mine = await manager.submit()
    async with following(manager, f"?job={mine}&type=JobEnded") as events:
        other = await manager.submit()
        await manager.post(f"/v1/jobs/{other}/cancel")
        await manager.post(f"/v1/jobs/{mine}/cancel")
        (event,) = await take(events, 1)
    assert (event.type, event.job_id) == ("JobEnded", mine)


async def test_a_stream_of_one_execution_shows_no_other(manager: Manager) -> None:
    document = {"name": "w", "tasks": {"ask": {"approval": "Really?"}}}
    headers = {"Content-Type": "application/json"}
    numbers = []
    for key in ("one", "two"):
        body = msgspec.json.encode({"workflow": document})
        done = await manager.request("POST", "/v1/executions", data=body, headers={**headers, "Idempotency-Key": key})
        numbers.append(done.json["id"])
    first, second = numbers
    async with following(manager, f"?execution={second}") as events:
        for number in (first, second):
            await manager.post(f"/v1/executions/{number}/cancel", {})
        (event,) = await take(events, 1)
    assert (event.type, event.data["execution_id"]) == ("ExecutionStopRequested", second)
    assert (await manager.get("/v1/events?execution=99")).code == "no_such_execution"
    assert (await manager.get(f"/v1/events?execution={second}&job=1")).code == "bad_request"


async def test_a_reader_that_waits_for_a_later_index_misses_nothing(manager: Manager) -> None:
    """It comes from a manager that was ahead of this one."""
    index = manager.replica.applied_index
    async with following(manager, f"?after={index + 1}.0") as events:
        await manager.submit()
        second = await manager.submit()
        (event,) = await take(events, 1)
    assert event.job_id == second


async def test_what_is_no_longer_held_is_said_to_be_gone(manager: Manager) -> None:
    feed = EventFeed(manager.replica, capacity=3)
    start = manager.replica.applied_index
    for _ in range(5):
        await manager.submit()
    with pytest.raises(EventsCompacted):
        feed.follow(EventId(start, 0), Wanted())
    with feed.follow(EventId(start + 2, 2**31 - 1), Wanted()) as held:
        assert [record.log_index for record in await held.take(10)] == [start + 3, start + 4, start + 5]
    with feed.follow(parse_event_id("held"), Wanted()) as held:
        assert [record.log_index for record in await held.take(10)] == [start + 3, start + 4, start + 5]
    late = EventFeed(manager.replica)
    with pytest.raises(EventsCompacted):
        late.follow(EventId(1, 0), Wanted())


async def test_compacted_events_are_a_problem_of_their_own(manager: Manager) -> None:
    manager.server.context.feed._floor = 10**6
    answer = await manager.get("/v1/events?after=5.0")
    assert (answer.status, answer.code) == (410, "events_compacted")


async def test_a_silent_stream_is_heard(manager: Manager) -> None:
    context = manager.server.context
    context.limits = msgspec.structs.replace(context.limits, keep_alive_s=0.02)
    async with manager.session.get(
        f"{manager.url}/v1/events",
        headers={"Authorization": f"Bearer {manager.pki.token}"},
        server_hostname=MANAGER_HOSTNAME,
    ) as response:
        async with asyncio.timeout(PATIENCE_S):
            while not (await response.content.readline()).startswith(b": at "):
                pass


async def test_a_stream_ends_when_the_manager_stops(manager: Manager) -> None:
    async with following(manager) as events:
        stopping = asyncio.create_task(manager.server.stop())
        async with asyncio.timeout(PATIENCE_S):
            assert [event async for event in events] == []
        await stopping


async def test_a_reader_that_left_is_forgotten(manager: Manager) -> None:
    feed: Any = manager.server.context.feed
    job_id = await manager.submit()
    async with following(manager), following(manager, f"?job={job_id}"):
        assert len(feed._of_all) == 1
        assert list(feed._of_job) == [job_id]
    async with asyncio.timeout(PATIENCE_S):
        while feed._of_all or feed._of_job:
            await asyncio.sleep(0.005)
