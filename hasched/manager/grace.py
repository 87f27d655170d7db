"""The watch over nodes: a silent one is unhealthy, then disconnected, and its attempts are lost.

Silence counts only while somebody listens. A new leader gives every node a fresh grace, and so does a manager that finds
that it was itself stopped or starved: what it didn't hear, it may have slept through. (Elsewhere a fresh leader once
declared 192 live nodes dead within a minute.) A watch is announced in the log before anybody is judged, so that the verdicts
of an earlier leader, should they still be on their way, don't cut that grace short.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import structlog
from aiohttp import WSCloseCode

from hasched.api.hub import AgentHub
from hasched.manager.settings import LeaderSettings
from hasched.model.errors import HaschedError
from hasched.model.states import NodeState
from hasched.raft.replica import Replica
from hasched.statemachine.commands import SetNodeState, WatchNodes
from hasched.statemachine.outcomes import Rejected

MISSED_HEARTBEATS = 3
STALL_MS = 2_000  # a tick that comes so late means that this manager was not listening

log = structlog.get_logger(__name__)


class Verdict(NamedTuple):
    state: NodeState
    reason: str


def judge(state: NodeState, silent_ms: int, connected: bool, settings: LeaderSettings) -> Verdict | None:
    """What becomes of a node that has been silent for so long; None: it stays what it is.

    A disconnected node comes back only by registering.
    """
    soon_ms = MISSED_HEARTBEATS * settings.heartbeat_ms
    if state is NodeState.DISCONNECTED:
        return None
    if silent_ms >= settings.node_grace_ms:
        return Verdict(NodeState.DISCONNECTED, f"no heartbeat for {silent_ms / 1000:.1f} s")
    if state is NodeState.UNHEALTHY:
        return Verdict(NodeState.HEALTHY, "heartbeats are back") if connected and silent_ms < soon_ms else None
    if silent_ms >= settings.unhealthy_after_ms:
        return Verdict(NodeState.UNHEALTHY, f"no heartbeat for {silent_ms / 1000:.1f} s")
    if not connected and silent_ms >= soon_ms:
        return Verdict(NodeState.UNHEALTHY, "its agent is not connected")
    return None


class GraceWatch:
    """Judges every node once a heartbeat interval, from the moment it is made. `term` is the one that this manager leads in."""

    def __init__(self, replica: Replica, hub: AgentHub, settings: LeaderSettings, term: int) -> None:
        self._replica = replica
        self._hub = hub
        self._settings = settings
        self._term = term
        self._listening_since = hub.clock()
        self._last_tick = self._listening_since

    async def run(self) -> None:
        await self._replica.propose(WatchNodes(term=self._term))
        while True:
            await asyncio.sleep(self._settings.heartbeat_ms / 1000)
            commands = self.tick()
            if commands:
                await self._propose(commands)

    async def _propose(self, commands: list[SetNodeState]) -> None:
        """What is not decided now is judged again at the next tick."""
        try:
            outcomes = await self._replica.propose_many(commands)
        except HaschedError as error:
            log.warning("node_verdicts_undecided", count=len(commands), code=error.code, cause=error.cause)
            return
        for command, outcome in zip(commands, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                log.warning("node_verdict_rejected", node=command.node_id, code=outcome.code, cause=outcome.cause)

    def tick(self) -> list[SetNodeState]:
        """One look at every node by the hub's clock: the changes to propose. Streams that are silent too long are cut."""
        now = self._hub.clock()
        late_ms = int((now - self._last_tick) * 1000) - self._settings.heartbeat_ms
        self._last_tick = now
        if late_ms >= STALL_MS:
            log.warning("manager_stalled", late_ms=late_ms, effect="every node gets a fresh grace")
            self._listening_since = now
        commands = []
        for node in self._replica.state.nodes.values():
            silent_ms = int((now - self._heard(node.id)) * 1000)
            session = self._hub.sessions.get(node.id)
            verdict = judge(node.state, silent_ms, session is not None and session.live, self._settings)
            if verdict is not None:
                log.info("node_judged", node=node.id, was=node.state.value, now=verdict.state.value, why=verdict.reason)
                commands.append(
                    SetNodeState(
                        node_id=node.id,
                        state=verdict.state,
                        reason=verdict.reason,
                        term=self._term,
                        log_index=node.log_index,
                    )
                )
            if session is not None and silent_ms >= self._settings.unhealthy_after_ms:
                session.close(WSCloseCode.GOING_AWAY, "no heartbeat")
        return commands

    def _heard(self, node_id: str) -> float:
        """Since when the node may be called silent."""
        heard = self._hub.last_seen(node_id)
        return self._listening_since if heard is None else max(heard, self._listening_since)
