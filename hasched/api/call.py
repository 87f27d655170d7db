"""One request on its way through a handler: who asks, what was sent, and what goes back beside the answer."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal, TypeAlias

import msgspec
from aiohttp import web

from hasched.api.context import ApiContext
from hasched.api.problem import refusal
from hasched.api.routing import Route
from hasched.model.errors import BodyTooLarge, MalformedBody, RequestTimeout
from hasched.statemachine.commands import Command
from hasched.statemachine.outcomes import Outcome, Rejected
from hasched.statemachine.queries.names import with_hint
from hasched.statemachine.state import State

APPLIED_INDEX_HEADER = "Hasched-Applied-Index"
APPLIED_AGE_HEADER = "Hasched-Applied-Age-Ms"

Consistency: TypeAlias = Annotated[
    Literal["linearizable", "stale"],
    msgspec.Meta(
        description="`linearizable` sees all that was answered before; `stale` asks nobody else, and works without a leader."
    ),
]


class Call:
    """`status` and `headers` may be changed by the handler."""

    __slots__ = ("actor", "context", "headers", "request", "route", "status")

    def __init__(self, context: ApiContext, request: web.Request, route: Route, actor: str) -> None:
        self.context = context
        self.request = request
        self.route = route
        self.actor = actor
        self.status = route.status
        self.headers: dict[str, str] = {}

    async def read_body(self) -> bytes:
        """The body within its cap and deadline. Raises BodyTooLarge, RequestTimeout, MalformedBody."""
        request, cap = self.request, self.route.body_bytes
        length = request.content_length
        if length is not None and length > cap:
            raise _too_large(cap)
        content = request.content
        if not content.is_eof():
            return await self._receive(cap)
        data = content.read_nowait()
        if len(data) > cap:
            raise _too_large(cap)
        return data

    async def _receive(self, cap: int) -> bytes:
        """A body that comes in parts."""
        request, parts, size = self.request, [], 0
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        deadline_s = self.context.limits.body_s
        try:
            async with asyncio.timeout(deadline_s):
                while part := await request.content.readany():
                    size += len(part)
                    if size > cap:
                        raise _too_large(cap)
                    parts.append(part)
        except TimeoutError:
            raise RequestTimeout(f"the body did not come within {deadline_s:g} s", "send it faster") from None
        except web.RequestPayloadError as error:
            raise MalformedBody(f"the body can't be received: {error}") from None
        return b"".join(parts)

    async def propose(self, command: Command) -> Outcome:
        """What the state machine says, once this manager has applied it. Raises what a refusal means to a user."""
        outcome = await self.context.replica.propose(command)
        if isinstance(outcome, Rejected):
            raise refusal(with_hint(outcome, command, self.context.replica.state))
        return outcome

    async def read_state(self, consistency: Consistency) -> State:
        """The state to answer from; the answer says how far it goes."""
        replica = self.context.replica
        if consistency == "linearizable":
            await replica.read_barrier()
        state = replica.state
        self.headers[APPLIED_INDEX_HEADER] = str(replica.applied_index)
        if consistency == "stale":
            self.headers[APPLIED_AGE_HEADER] = str(max(0, self.context.now_ms() - state.now_ms))
        return state


def _too_large(cap: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than the {cap} bytes that are taken here", "send less at once")
