"""`GET /v1/agent/stream`: the agents' way in.

A stream opens with `Hello`. Its node is registered, which also proves that this manager still leads, and the agent is told
the difference between what it has and what the committed state wants. After that reports go up and are acknowledged once
they are committed; heartbeats are acknowledged once a majority has confirmed the leader, so that a manager which was
deposed and doesn't know it yet can't renew a lease. Anything that is not the protocol closes the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import assert_never

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from hasched.api.dispatch import Dispatcher
from hasched.api.hello import ProtocolViolation, decode, find_amnesia, receive_hello
from hasched.api.hub import AgentHub
from hasched.api.session import AgentSession
from hasched.model.errors import HaschedError, NoLeader, NotLeader, Overloaded
from hasched.model.identity import identity_of
from hasched.model.ids import NodeId, is_name
from hasched.model.spec import MAX_OUTPUT_BYTES
from hasched.model.states import NodeState
from hasched.model.wire import (
    MAX_FRAME_BYTES,
    AttemptEnded,
    AttemptKey,
    AttemptReport,
    Heartbeat,
    HeartbeatAck,
    Hello,
    LogChunk,
    MoreAttempts,
    OtherCluster,
    Redirect,
    Reports,
    ReportsAck,
    Welcome,
    encode_frame,
)
from hasched.raft.replica import Replica
from hasched.statemachine.commands import RegisterNode, ReportAttempts
from hasched.statemachine.outcomes import ATTEMPTS_FORGOTTEN, Outcome, Rejected, ReportsTaken

AGENT_STREAM_PATH = "/v1/agent/stream"
CLOSE_TIMEOUT_S = 2.0
OVERLOAD_PAUSE_S = 0.1
MISSED_HEARTBEATS = 3  # after so many an agent's place may be taken from another machine: it was moved, or rebooted
MAX_REPORTS_PER_COMMAND = 512
MAX_REPORT_BYTES_PER_COMMAND = 256 * 1024
REPORT_BYTES = 128  # at most, beside its output and reason
COMMAND_BYTES = 256  # at most, beside its reports

log = structlog.get_logger(__name__)


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What agents are told. The lease is shorter than the managers' grace, see `hasched.manager.grace`."""

    heartbeat_ms: int = 1_000
    lease_ms: int = 20_000


class AgentStreams:
    """Serves the agents' streams of one manager; only the leader keeps one open."""

    def __init__(self, replica: Replica, hub: AgentHub, settings: StreamSettings) -> None:
        self._replica = replica
        self._hub = hub
        self._settings = settings
        self._dispatcher = Dispatcher(replica, hub)
        self._beats: list[tuple[AgentSession, int]] = []
        self._acknowledging = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """One stream from its handshake to its end."""
        transport = request.transport
        identity = identity_of(transport.get_extra_info("peercert") if transport else None)
        if identity is None or identity.role != "agent" or not is_name(identity.name):
            raise web.HTTPForbidden(text="this stream is for agents, and needs an agent's certificate\n")
        socket = web.WebSocketResponse(max_msg_size=MAX_FRAME_BYTES, compress=False, timeout=CLOSE_TIMEOUT_S)
        await socket.prepare(request)
        await self.serve(socket, transport, identity.name, request.remote)
        return socket

    async def serve(
        self, socket: web.WebSocketResponse, transport: asyncio.Transport | None, name: NodeId, peer: str | None
    ) -> None:
        """The stream of the node whose certificate names it `name`, from the first frame on."""
        if not self._hub.leading:
            await self._redirect(socket)
            return
        try:
            hello = await receive_hello(socket, name)
        except (ProtocolViolation, TimeoutError) as error:
            reason = str(error) or "no hello"
            log.warning("agent_refused", node=name, peer=peer, reason=reason)
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=reason.encode()[:120])
            return
        machine = (hello.info.hostname, hello.info.boot_id)
        rival = self._hub.rival_of(hello.node_id, machine, MISSED_HEARTBEATS * self._settings.heartbeat_ms / 1000)
        if rival is not None:
            reason = f"machine {rival.machine[0]} is connected as {hello.node_id}; each needs a certificate of its own"
            log.error("agent_refused", node=name, peer=peer, machine=machine[0], reason=reason)
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=reason.encode()[:120])
            return
        if await self._is_foreign(socket, hello, peer):
            return
        if amnesia := find_amnesia(self._replica.state, hello):
            log.warning("agent_refused", node=name, peer=peer, reason=amnesia)
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=amnesia.encode()[:120])
            return
        session = AgentSession(socket, transport, hello.node_id, hello.session, self._hub.clock(), machine=machine)
        await self._serve(session, hello)

    async def _is_foreign(self, socket: web.WebSocketResponse, hello: Hello, peer: str | None) -> bool:
        """An agent of another cluster is shown which one this is, and not let in: its node isn't ours to plan with."""
        origin = self._replica.state.origin
        if not origin:  # this leader has only begun, and will say in a moment which cluster it leads
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"the cluster has no origin yet")
            return True
        if hello.origin in ("", origin):
            return False
        log.error("agent_of_other_cluster", node=hello.node_id, peer=peer, its_origin=hello.origin, origin=origin)
        await socket.send_bytes(encode_frame([OtherCluster(origin)]))
        await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"this is another cluster")
        return True

    async def _serve(self, session: AgentSession, hello: Hello) -> None:
        self._hub.admit(session)
        writer = asyncio.create_task(session.write())
        try:
            if await self._open(session, hello):
                await self._read(session)
                session.close(WSCloseCode.OK, "the agent went away")
        except ProtocolViolation as error:
            session.close(WSCloseCode.POLICY_VIOLATION, str(error))
        finally:
            session.close(WSCloseCode.INTERNAL_ERROR, "the manager gave up this stream")
            self._hub.leave(session)
            await writer

    async def _open(self, session: AgentSession, hello: Hello) -> bool:
        """Register the node and tell the agent the difference. False: not here, the agent is on its way elsewhere."""
        try:
            outcome = await self._register(hello)
        except (NoLeader, NotLeader):
            await self._redirect(session.socket)
            session.close(WSCloseCode.TRY_AGAIN_LATER, "this manager doesn't lead")
            return False
        except HaschedError as error:
            session.close(WSCloseCode.TRY_AGAIN_LATER, error.cause)
            return False
        if isinstance(outcome, Rejected):
            lasting = outcome.code != ATTEMPTS_FORGOTTEN
            code = WSCloseCode.POLICY_VIOLATION if lasting else WSCloseCode.TRY_AGAIN_LATER
            session.close(code, outcome.cause)
            return False
        if not self._leads():
            await self._redirect(session.socket)
            session.close(WSCloseCode.TRY_AGAIN_LATER, "this manager doesn't lead any more")
            return False
        if amnesia := find_amnesia(self._replica.state, hello):  # anew: a report may have been on its way
            session.close(WSCloseCode.TRY_AGAIN_LATER, amnesia)
            return False
        settings = self._settings
        replica = self._replica
        session.send(
            Welcome(replica.manager_id, replica.term, settings.heartbeat_ms, settings.lease_ms, replica.state.origin)
        )
        self._dispatcher.reconcile(session, hello.attempts)
        log.info("agent_stream_open", node=session.node_id, session=session.name, attempts=len(hello.attempts))
        return True

    def _leads(self) -> bool:
        """Asked after a proposal or barrier has come back: any manager can make one, and only a leader may go on."""
        return self._hub.leading and self._replica.is_leader

    async def _register(self, hello: Hello) -> Outcome | None:
        """Commit the node if it is new, changed or not healthy; else only confirm that this manager still leads."""
        state = self._replica.state
        node = state.nodes.get(hello.node_id)
        if node is not None and node.said == hello.info and node.state is NodeState.HEALTHY:
            await self._replica.read_barrier()
            return None
        has_another_table = node is not None and not node.is_remembered_by(hello.info)
        known_as_of = state.index if has_another_table and not find_amnesia(state, hello) else 0
        command = RegisterNode(node_id=hello.node_id, info=hello.info, known_as_of=known_as_of)
        return await self._replica.propose(command)

    async def _redirect(self, socket: web.WebSocketResponse) -> None:
        leader = self._replica.leader
        if leader is None or leader.manager_id == self._replica.manager_id:
            redirect = Redirect("", "")
        else:
            redirect = Redirect(leader.manager_id, leader.api_url)
        await socket.send_bytes(encode_frame([redirect]))
        await socket.close(code=WSCloseCode.TRY_AGAIN_LATER)

    async def _read(self, session: AgentSession) -> None:
        async for frame in session.socket:
            if frame.type is not WSMsgType.BINARY:
                raise ProtocolViolation("frames are binary")
            self._hub.heard_from(session)
            for message in decode(frame.data):
                match message:
                    case Reports():
                        await self._take_reports(session, message)
                    case Heartbeat():
                        self._hub.take_heartbeat(session, message)
                        self._beats.append((session, message.number))
                        self._acknowledge_soon()
                    case LogChunk():
                        session.deliver(message)
                    case Hello() | MoreAttempts():
                        raise ProtocolViolation("a second hello")
                    case _:
                        assert_never(message)

    # Heartbeats

    def _acknowledge_soon(self) -> None:
        if not self._acknowledging:
            self._acknowledging = True
            self._spawn(self._acknowledge())

    async def _acknowledge(self) -> None:
        """Answer the heartbeats that have come, with one confirmation of leadership for all of them."""
        try:
            while self._beats:
                beats, self._beats = self._beats, []
                try:
                    await self._replica.read_barrier()
                except HaschedError as error:
                    log.warning("heartbeats_unacknowledged", count=len(beats), cause=error.cause)
                    continue
                if self._leads():
                    for session, number in beats:
                        session.send(HeartbeatAck(number))
        finally:
            self._acknowledging = False

    # Reports

    async def _take_reports(self, session: AgentSession, message: Reports) -> None:
        """Propose a batch of reports. Several may be on their way; beyond that, reading waits."""
        for report in message.reports:
            if isinstance(report, AttemptEnded) and len(report.output) > MAX_OUTPUT_BYTES:
                raise ProtocolViolation("an output is too large")
        await session.report_slots.acquire()
        self._spawn(self._commit_reports(session, message))

    async def _commit_reports(self, session: AgentSession, message: Reports) -> None:
        """Whatever goes wrong ends the stream: the agent repeats on its next one what it has no acknowledgement of."""
        try:
            await self._commit(session, message)
        except HaschedError as error:
            session.close(WSCloseCode.TRY_AGAIN_LATER, error.cause)
        except Exception:
            session.close(WSCloseCode.INTERNAL_ERROR, "the manager failed; say hello again")
            raise
        finally:
            session.report_slots.release()

    async def _commit(self, session: AgentSession, message: Reports) -> None:
        most_bytes = min(MAX_REPORT_BYTES_PER_COMMAND, self._replica.max_command_bytes - COMMAND_BYTES)
        parts = _split(message.reports, most_bytes)
        commands = [ReportAttempts(node_id=session.node_id, reports=part) for part in parts]
        refused: list[AttemptKey] = []
        for outcome in await self._propose(commands):
            match outcome:
                case ReportsTaken():
                    refused += outcome.refused
                case Rejected():
                    log.error("reports_rejected", node=session.node_id, code=outcome.code, cause=outcome.cause)
                    session.close(WSCloseCode.TRY_AGAIN_LATER, outcome.cause)
                    return
        if refused:
            log.info("reports_refused", node=session.node_id, attempts=len(refused))
        session.send(ReportsAck(message.number, tuple(refused)))

    async def _propose(self, commands: list[ReportAttempts]) -> list[Outcome]:
        """Reports free what new work needs, so a manager that is too busy for them waits and tries again."""
        while True:
            try:
                return await self._replica.propose_many(commands)
            except Overloaded:
                await asyncio.sleep(OVERLOAD_PAUSE_S)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("agent_stream_failed", exc_info=error)


def _split(reports: tuple[AttemptReport, ...], most_bytes: int) -> Iterator[tuple[AttemptReport, ...]]:
    """Parts that fit a log entry each."""
    start = size = 0
    for position, report in enumerate(reports):
        added = REPORT_BYTES
        if isinstance(report, AttemptEnded):
            added += len(report.output) + len(report.reason.encode())
        if position > start and (position - start == MAX_REPORTS_PER_COMMAND or size + added > most_bytes):
            yield reports[start:position]
            start, size = position, 0
        size += added
    yield reports[start:]
