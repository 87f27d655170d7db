"""The leader's memory of its agents: who is connected, when each was heard last, what it uses, and its logs being read.

Nothing here is replicated, and nothing here decides: a manager that stops to lead forgets it all, and the agents find
the next leader. Heartbeats end here, so a cluster with nothing to do writes nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Container, Iterator, Mapping
from contextlib import aclosing, contextmanager

import msgspec
import structlog
from aiohttp import WSCloseCode

from hasched.api.session import AgentSession, LogRequest
from hasched.model.errors import NodeUnreachable, Overloaded
from hasched.model.ids import Attempt, JobId, NodeId, TaskIndex
from hasched.model.wire import Heartbeat, LogCancel, LogChunk, LogRead, NodeUsage
from hasched.scheduler.explain import NodeClasses
from hasched.scheduler.keeping import Kept
from hasched.statemachine.job import Job

LOG_WINDOW_BYTES = 1024 * 1024
SMALLEST_LOG_WINDOW_BYTES = 64 * 1024
LOG_MEMORY_BYTES = 256 * 1024 * 1024  # shared by all windows: the more readers, the smaller the next one
MAX_LOG_READS = LOG_MEMORY_BYTES // SMALLEST_LOG_WINDOW_BYTES
MAX_LOG_READS_PER_AGENT = 1024  # of either, one actor may have half

log = structlog.get_logger(__name__)


class AgentHub:
    """The sessions of a leading manager; empty on every other. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.sessions: dict[NodeId, AgentSession] = {}
        self.leading = False
        self._refusing: set[NodeId] = set()
        self.taking_work: Container[NodeId] = _TakingWork(self.sessions, self._refusing)
        self.node_classes = NodeClasses()  # of the state, kept by whoever asks for it
        self.kept: Callable[[], Kept] = Kept  # beside each free GPU, by the leader's planner
        self.held_nodes: Callable[[], Mapping[NodeId, JobId]] = dict  # by the leader's planner, and for which jobs
        self.count_ahead: Callable[[Job], Iterator[int]] | None = (
            None  # by the leader's planner, once it knows all jobs
        )
        self._last_seen: dict[NodeId, float] = {}
        self._watchers: list[Callable[[NodeId], None]] = []
        self._requests = 0
        self._readers: Counter[tuple[NodeId, str]] = Counter()  # by node and actor; "" stands for all

    # Leadership

    def start_leading(self) -> None:
        """Take agents from now on. What an earlier term remembered says nothing about today."""
        self._last_seen.clear()
        self._refusing.clear()
        self.leading = True

    def stop_leading(self) -> None:
        """Send every agent away to find the new leader."""
        self.leading = False
        for session in self.sessions.values():
            session.close(WSCloseCode.TRY_AGAIN_LATER, "this manager doesn't lead any more")

    # Sessions

    def admit(self, session: AgentSession) -> None:
        """Make `session` the node's one stream. An older one of the same node is void and is closed."""
        older = self.sessions.pop(session.node_id, None)
        if older is not None:
            older.close(WSCloseCode.POLICY_VIOLATION, "replaced by a newer stream of the same node")
        self.sessions[session.node_id] = session
        self.heard_from(session)
        self._tell_watchers(session.node_id)

    def rival_of(self, node_id: NodeId, machine: tuple[str, str], patience_s: float) -> AgentSession | None:
        """The node's stream, if it comes from another machine that was heard from in the last `patience_s` seconds."""
        older = self.sessions.get(node_id)
        if older is None or older.closing is not None or older.machine == machine:
            return None
        return older if self.clock() - older.last_seen < patience_s else None

    def leave(self, session: AgentSession) -> None:
        """Forget a stream that has ended."""
        session.end()
        if self.sessions.get(session.node_id) is session:
            del self.sessions[session.node_id]
            self._tell_watchers(session.node_id)

    def watch(self, watcher: Callable[[NodeId], None]) -> Callable[[], None]:
        """Call `watcher` with every node that comes to be in `taking_work`, or to be out of it. Returns the way to stop it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def heard_from(self, session: AgentSession) -> None:
        """The agent is alive now."""
        session.last_seen = self._last_seen[session.node_id] = self.clock()

    def take_heartbeat(self, session: AgentSession, beat: Heartbeat) -> None:
        """The agent is alive, uses this much, and says whether it can start anything."""
        self.heard_from(session)
        session.usage = beat.usage
        if beat.accepts is not self.refuses_work(session.node_id) or self.sessions.get(session.node_id) is not session:
            return
        if beat.accepts:
            self._refusing.remove(session.node_id)
        else:
            self._refusing.add(session.node_id)
        log.info("agent_takes_work" if beat.accepts else "agent_refuses_work", node=session.node_id)
        self._tell_watchers(session.node_id)

    def _tell_watchers(self, node_id: NodeId) -> None:
        for watcher in self._watchers:
            watcher(node_id)

    def refuses_work(self, node_id: NodeId) -> bool:
        """Whether the node's agent has said that it can't start anything. A new stream doesn't unsay it, a heartbeat does."""
        return node_id in self._refusing

    def connected(self, node_id: NodeId) -> bool:
        """Whether the node has a stream to this manager now."""
        return node_id in self.sessions

    def usage(self, node_id: NodeId) -> NodeUsage | None:
        """As of the last heartbeat of a connected node."""
        session = self.sessions.get(node_id)
        return None if session is None else session.usage

    def last_seen(self, node_id: NodeId) -> float | None:
        """When this leader heard of the node last, by `clock`; None if never."""
        return self._last_seen.get(node_id)

    # Logs

    async def read_log(
        self,
        node_id: NodeId,
        *,
        actor: str,
        job_id: JobId,
        index: TaskIndex,
        attempt: Attempt,
        stream: str,
        offset: int = 0,
        limit: int = 0,
        follow: bool = False,
    ) -> AsyncGenerator[LogChunk]:
        """Bytes of an attempt's log from the node that keeps it; arguments as in `LogRead`. The last chunk says `end`.

        Asks for one window at a time, and for the next when the reader has taken the last: a slow reader holds at most
        a window here. Raises NodeUnreachable when the node isn't connected, also in the middle, and Overloaded, only at
        the beginning.
        """
        wanted = LogRead(0, job_id, index, attempt, stream, offset, limit, follow)
        with self._place_for_reader(node_id, actor):
            async with aclosing(self._read_windows(node_id, wanted)) as chunks:
                async for chunk in chunks:
                    yield chunk

    @contextmanager
    def _place_for_reader(self, node_id: NodeId, actor: str) -> Iterator[None]:
        """Count a reader for as long as it reads. One actor leaves room for others."""
        places = {
            ("", ""): MAX_LOG_READS,
            ("", actor): MAX_LOG_READS // 2,
            (node_id, ""): MAX_LOG_READS_PER_AGENT,
            (node_id, actor): MAX_LOG_READS_PER_AGENT // 2,
        }
        if any(self._readers[place] >= most for place, most in places.items()):
            raise Overloaded(f"too many logs are being read, of node {node_id} or in all", "try again later")
        self._readers.update(places.keys())
        try:
            yield
        finally:
            self._readers.subtract(places.keys())
            self._readers += Counter()  # drops what is zero

    async def _read_windows(self, node_id: NodeId, wanted: LogRead) -> AsyncGenerator[LogChunk]:
        offset, remaining = wanted.offset, wanted.limit
        while True:
            window = min(LOG_WINDOW_BYTES, LOG_MEMORY_BYTES // self._readers["", ""])
            if wanted.limit:
                window = min(window, remaining)
            received = 0
            self._requests += 1
            request = msgspec.structs.replace(wanted, request=self._requests, offset=offset, limit=window)
            async with aclosing(self._read_window(node_id, request)) as chunks:
                async for chunk in chunks:
                    received += len(chunk.data)
                    offset = chunk.offset + len(chunk.data)
                    more = chunk.end and not chunk.error and received >= window and received != remaining
                    yield msgspec.structs.replace(chunk, end=False) if more else chunk
            if not more:
                return
            remaining -= received

    async def _read_window(self, node_id: NodeId, request: LogRead) -> AsyncGenerator[LogChunk]:
        """The chunks that answer one request, cancelled at the agent if the reader leaves before their end."""
        session = self.sessions.get(node_id)
        if session is None:
            raise NodeUnreachable(f"node {node_id} is not connected", "its logs can be read when it is back")
        waiting = session.log_requests[request.request] = LogRequest(request.limit)
        session.send(request)
        ended = False
        try:
            while not ended:
                chunk = await waiting.chunks.get()
                if chunk is None:
                    raise NodeUnreachable(f"node {node_id} went away", "read on from the last offset when it is back")
                ended = chunk.end
                yield chunk
        finally:
            del session.log_requests[request.request]
            if not ended:
                session.send(LogCancel(request.request))


class _TakingWork(Container[NodeId]):
    """The nodes that can be given work: connected, and not refusing it."""

    def __init__(self, sessions: Container[object], refusing: Container[object]) -> None:
        self._sessions = sessions
        self._refusing = refusing

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._sessions and node_id not in self._refusing
