"""What tasks wrote: raw bytes, read from the node that keeps them through the leader's stream to its agent.

Offsets count from an attempt's first byte for ever. A body is without gaps: where bytes are no longer kept, it begins or
goes on in a new answer whose `Hasched-Log-Offset` says where. One that can't be finished is broken off, never cut short.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from hasched.api.call import Call
from hasched.api.routing import Routes
from hasched.api.tasks import view_task
from hasched.model.errors import BadRequest, Conflict, HaschedError, NodeUnreachable, NotFound
from hasched.model.ids import AttemptId
from hasched.model.units import MAX_INTEGER
from hasched.model.views import AttemptView, TaskView
from hasched.model.wire import LogChunk

FIRST_CHUNK_S = 10.0
FIRST_FOLLOWED_CHUNK_S = 0.3  # a task that is silent sends none, and its reader wants an answer now

routes = Routes("logs")


_Positive = Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]


class ReadLog(msgspec.Struct, frozen=True, kw_only=True):
    stream: Literal["stdout", "stderr"] = "stdout"
    attempt: Annotated[_Positive | None, msgspec.Meta(description="Which attempt; the latest by default.")] = None
    offset: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER, description="The first byte wanted.")] = 0
    limit: Annotated[_Positive | None, msgspec.Meta(description="At most so many bytes.")] = None
    tail: Annotated[_Positive | None, msgspec.Meta(description="Only so many of the last bytes.")] = None
    follow: Annotated[bool, msgspec.Meta(description="Go on until the attempt has ended.")] = False


@routes.add("GET", "/v1/jobs/{job_id}/tasks/{index}/logs", by_leader=True)
async def read_log(call: Call, job_id: int, index: int, query: ReadLog) -> web.StreamResponse:
    """Read what an attempt wrote, as raw bytes.

    `Hasched-Log-Offset` is the offset of the first byte of the body, `Hasched-Log-First-Offset` that of the oldest byte still
    kept. A body that ends without its last chunk is not whole: go on from where it broke off.
    """
    if query.tail is not None and query.offset:
        raise BadRequest("`offset` and `tail` exclude each other", "send one of them")
    task = view_task(await call.read_state("linearizable"), job_id, index)
    attempt = _choose(task, query.attempt)
    chunks = call.context.hub.read_log(
        attempt.node_id,
        actor=call.actor,
        job_id=job_id,
        index=index,
        attempt=attempt.attempt,
        stream=query.stream,
        offset=-query.tail if query.tail else query.offset,
        limit=query.limit or 0,
        follow=query.follow,
    )
    assert isinstance(chunks, AsyncGenerator)
    async with aclosing(chunks):
        return await _Copy(call, query, AttemptId(job_id, index, attempt.attempt)).run(chunks)


def _choose(task: TaskView, wanted: int | None) -> AttemptView:
    number = task.attempt if wanted is None else wanted
    for attempt in task.attempts:
        if attempt.attempt == number:
            return attempt
    name = f"{task.job_id}.{task.task_index}"
    if wanted is not None and task.attempts and task.attempts[0].attempt <= wanted <= task.attempt:
        kept = "the first few attempts of a task and the latest are kept"
        raise NotFound(f"attempt {wanted} of task {name} is not kept any more", kept, code="no_such_attempt")
    if wanted is None:
        raise Conflict(f"task {name} has not been started", "wait until it is", code="no_attempt")
    raise NotFound(f"task {name} has no attempt {wanted}", f"it has {task.attempt}", code="no_such_attempt")


class _Copy:
    """One answer. Its head waits for the first chunk, which says where the bytes begin."""

    def __init__(self, call: Call, query: ReadLog, attempt_id: AttemptId) -> None:
        self._call = call
        self._follow = query.follow
        self._from_end = query.tail is not None
        self._offset = 0 if self._from_end else query.offset
        self._attempt_id = attempt_id
        self._response: web.StreamResponse | None = None

    async def run(self, chunks: AsyncGenerator[LogChunk]) -> web.StreamResponse:
        reading = asyncio.ensure_future(anext(chunks, None))
        try:
            early = self._follow and not self._from_end
            await asyncio.wait([reading], timeout=FIRST_FOLLOWED_CHUNK_S if early else FIRST_CHUNK_S)
            if not reading.done():
                if not self._follow:
                    raise NodeUnreachable("the node did not send the log in time", "try again")
                await self._begin(0)
            while (chunk := await reading) is not None:
                if not await self._take(chunk):
                    break
                reading = asyncio.ensure_future(anext(chunks, None))
        except (HaschedError, TimeoutError):
            if self._response is None:
                raise
            self._break_off()
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.wait([reading])
        assert self._response is not None, "a log has at least one chunk"
        return self._response

    async def _take(self, chunk: LogChunk) -> bool:
        """Whether another chunk follows. Raises HaschedError, TimeoutError."""
        if chunk.error:
            raise NotFound(f"the log of attempt {self._attempt_id} can't be read: {chunk.error}", "", code="no_log")
        if self._response is None:
            self._offset = chunk.offset
            await self._begin(chunk.first_offset)
        elif chunk.offset != self._offset and chunk.data:
            raise NotFound("bytes in the middle are no longer kept", "")
        if chunk.data:
            assert self._response is not None
            async with asyncio.timeout(self._call.context.limits.write_s):
                await self._response.write(chunk.data)
        self._offset += len(chunk.data)
        return not chunk.end

    async def _begin(self, first_offset: int) -> None:
        self._response = web.StreamResponse(
            headers={
                "Content-Type": "application/octet-stream",
                "Cache-Control": "no-store",
                "Hasched-Log-Offset": str(self._offset),
                "Hasched-Log-First-Offset": str(first_offset),
            }
        )
        await self._response.prepare(self._call.request)

    def _break_off(self) -> None:
        if self._call.request.transport is not None:
            self._call.request.transport.abort()
