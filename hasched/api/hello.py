"""The hello that opens an agent's stream: what it must be, and who has to wait.

An attempt is started once. So an agent that has forgotten what may run on its node, because its disk was lost, isn't let
in: it would be told to start those attempts again. It is not heard either, so the node's grace goes on as if nobody were
there. At its end the attempts are given up like those of any silent node, and by then the lease of the supervisor that
may still run them is over.
"""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import WSMsgType, web

from hasched.model.ids import AttemptId, NodeId
from hasched.model.wire import (
    MAX_HELLO_FRAMES,
    PROTOCOL_VERSION,
    FromAgent,
    Hello,
    MoreAttempts,
    decode_from_agent,
)
from hasched.statemachine.queries import forgotten_attempts
from hasched.statemachine.state import State

HELLO_TIMEOUT_S = 10.0


class ProtocolViolation(Exception):
    """The agent said what the protocol doesn't know."""


async def receive_hello(socket: web.WebSocketResponse, name: NodeId) -> Hello:
    """The first frame of the stream of node `name`. Raises ProtocolViolation, TimeoutError."""
    async with asyncio.timeout(HELLO_TIMEOUT_S):
        match await _receive(socket):
            case [Hello() as hello]:
                pass
            case _:
                raise ProtocolViolation("the first frame is a hello and nothing else")
        if not 0 <= hello.following < MAX_HELLO_FRAMES:
            raise ProtocolViolation(f"a hello has at most {MAX_HELLO_FRAMES} frames")
        attempts = list(hello.attempts)
        for _ in range(hello.following):
            match await _receive(socket):
                case [MoreAttempts() as more]:
                    attempts += more.attempts
                case _:
                    raise ProtocolViolation("the rest of the hello follows it")
        hello = msgspec.structs.replace(hello, attempts=tuple(attempts), following=0)
    if hello.protocol != PROTOCOL_VERSION:
        raise ProtocolViolation(f"this manager speaks protocol {PROTOCOL_VERSION}, the agent {hello.protocol}")
    if hello.node_id != name:
        raise ProtocolViolation(f"the certificate is {name}'s, the hello another node's")
    return hello


async def _receive(socket: web.WebSocketResponse) -> list[FromAgent]:
    frame = await socket.receive()
    if frame.type is not WSMsgType.BINARY:
        raise ProtocolViolation("the first frame is a hello")
    return decode(frame.data)


def decode(data: bytes) -> list[FromAgent]:
    """Raises ProtocolViolation."""
    try:
        return decode_from_agent(data)
    except msgspec.DecodeError as error:
        raise ProtocolViolation(f"malformed frame: {error}") from error


def find_amnesia(state: State, hello: Hello) -> str:
    """What the agent should know and doesn't, as a sentence; empty if it may be let in."""
    known = {AttemptId(key.job_id, key.index, key.attempt) for key in hello.attempts}
    forgotten = len(forgotten_attempts(state, hello.node_id, hello.info, known))
    if not forgotten:
        return ""
    return f"it knows nothing of {forgotten} attempts that may still run here; it is taken in once they are given up"
