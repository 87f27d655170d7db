"""The event stream: what happens, as server-sent events, without gaps across managers.

Every stream says something at least every few seconds, so silence means that it is dead. A manager that knows no leader
ends its streams: it may be cut off, and the others know more.
"""

from __future__ import annotations

import asyncio
import typing
from typing import Annotated

import msgspec
from aiohttp import web

from hasched.api.call import Call
from hasched.api.feed import HOUSEKEEPING, EventId, Subscription, Wanted, parse_event_id
from hasched.api.jobs import no_such_job
from hasched.api.routing import Routes
from hasched.api.workflows import find_execution
from hasched.model.errors import BadRequest
from hasched.model.kinds import suggest
from hasched.raft.replica import Replica
from hasched.statemachine.events import Event

EVENTS_PER_WRITE = 512
RECONNECT_MS = 500
TYPES = tuple(kind.__name__ for kind in typing.get_args(Event) if kind not in HOUSEKEEPING)

routes = Routes("events")


class FollowEvents(msgspec.Struct, frozen=True, kw_only=True):
    after: Annotated[
        str,
        msgspec.Meta(
            description="Resume after the event with this id, as by `Last-Event-ID`. `held`: the first that is still held."
        ),
    ] = ""
    job: Annotated[int | None, msgspec.Meta(description="Only events of this job.")] = None
    execution: Annotated[int | None, msgspec.Meta(description="Only events of this execution of a workflow.")] = None
    type: Annotated[list[str], msgspec.Meta(description="Only events of this type; may be repeated.")] = []


@routes.add("GET", "/v1/events")
async def follow_events(call: Call, query: FollowEvents) -> web.StreamResponse:
    """Follow what happens, as server-sent events: from now on, after the event `after`, or, with `after=held`, all that is held.

    Each message's `data` is an event. Ids are the same on every manager: after a break, resume on any of them with the last
    id seen. If what follows it is no longer held, the answer is 410 `events_compacted`: read the state anew.
    """
    context = call.context
    text = call.request.headers.get("Last-Event-ID") or query.after
    after: EventId | None = parse_event_id(text) if text else None
    for name in query.type:
        if name not in TYPES:
            raise BadRequest(
                f"there is no event type {name[:40]!r}", suggest(name, TYPES) or f"known are: {', '.join(TYPES)}"
            )
    if query.job is not None and query.execution is not None:
        raise BadRequest("`job` and `execution` exclude each other", "an event is of one of them")
    jobs = {} if query.job is None else (await call.read_state("linearizable")).jobs
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    with context.feed.follow(after, Wanted(query.job, query.execution, frozenset(query.type))) as subscription:
        if query.job is not None and query.job not in jobs and not subscription.waiting:
            raise no_such_job(query.job)  # and nothing is left to tell of it
        if query.execution is not None and not subscription.waiting:
            find_execution(await call.read_state("linearizable"), query.execution)
        await response.prepare(call.request)
        stream = _Stream(response, context.limits.write_s)
        try:
            await stream.write(b"retry: %d\n\n" % RECONNECT_MS)
            await _copy(subscription, stream, context.replica, context.limits.keep_alive_s)
        except TimeoutError:  # It reads nothing: there is nobody to say goodbye to.
            if call.request.transport is not None:
                call.request.transport.abort()
    return response


class _Stream:
    def __init__(self, response: web.StreamResponse, write_s: float) -> None:
        self._response = response
        self._write_s = write_s

    async def write(self, data: bytes) -> None:
        """Raises TimeoutError if the reader takes nothing."""
        async with asyncio.timeout(self._write_s):
            await self._response.write(data)


async def _copy(subscription: Subscription, stream: _Stream, replica: Replica, keep_alive_s: float) -> None:
    while True:
        try:
            async with asyncio.timeout(keep_alive_s):
                records = await subscription.take(EVENTS_PER_WRITE)
        except TimeoutError:
            if replica.leader is None:
                return
            await stream.write(b": at %d\n\n" % replica.applied_index)
            continue
        if not records:
            return
        await stream.write(b"".join([record.render() for record in records]))
