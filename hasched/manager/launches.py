"""The watch over launches: a node on which they fail is quarantined, lest it swallow one job after the other.

Such a node (a mount is gone, an interpreter missing) ends its work in no time, so it is always free and gets more than any
other. What counts are launch failures of different jobs in a row: one broken job is no evidence against a node, and a
launch that succeeds clears it. Nor is a cluster of broken jobs: no more than a share of the nodes is ever in quarantine at
once, and never the last that takes work. After its quarantine a node is on probation, where a single failure sends it back
for twice as long.

What was seen stays in the leader's memory, like heartbeats; a new leader begins to count anew. Only verdicts are committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TypeAlias

import structlog

from hasched.manager.settings import QuarantineSettings
from hasched.model.errors import HaschedError
from hasched.model.ids import JobId, NodeId
from hasched.model.states import EndKind, NodeState
from hasched.model.words import counted
from hasched.raft.replica import Replica
from hasched.statemachine.apply import Applied
from hasched.statemachine.commands import EndQuarantine, QuarantineNode
from hasched.statemachine.events import AttemptEnded, AttemptStarted, NodeRemoved
from hasched.statemachine.node import Node
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.state import State

LAUNCHED = (EndKind.EXITED, EndKind.SIGNALED, EndKind.TIMED_OUT, EndKind.OUT_OF_MEMORY)

Verdict: TypeAlias = QuarantineNode | EndQuarantine
log = structlog.get_logger(__name__)


class Launches:
    """Which jobs failed to launch on which node, since a launch there succeeded last."""

    def __init__(self, settings: QuarantineSettings) -> None:
        self._settings = settings
        self._failures: dict[NodeId, dict[JobId, int]] = {}  # when; the jobs in the order of their first failures
        self._judged: dict[NodeId, None] = {}  # whose quarantine is on its way into the log

    def settle(self, verdict: Verdict) -> None:
        """The verdict has been decided, or is lost."""
        self._judged.pop(verdict.node_id, None)

    def observe(self, state: State, applied: Applied) -> Iterator[Verdict]:
        """What an entry that has just been applied makes of nodes."""
        if not self._settings.launch_failures:
            return
        for event in applied.events:
            match event:
                case AttemptStarted(node_id=node_id):
                    yield from self._succeeded(state, node_id)
                case AttemptEnded(node_id=node_id, kind=kind) if kind in LAUNCHED:
                    yield from self._succeeded(state, node_id)
                case AttemptEnded(kind=EndKind.LAUNCH_FAILED):
                    yield from self._failed(state, event)
                case NodeRemoved(node_id=node_id):
                    self._failures.pop(node_id, None)
                case _:
                    pass

    def _succeeded(self, state: State, node_id: NodeId) -> Iterator[Verdict]:
        self._failures.pop(node_id, None)
        node = state.nodes.get(node_id)
        if node is not None and node.control.quarantine is not None and node.control.quarantine.probation:
            yield EndQuarantine(node_id=node_id)

    def _failed(self, state: State, event: AttemptEnded) -> Iterator[Verdict]:
        node = state.nodes.get(event.node_id)
        if node is None or self._is_away(node):
            return
        failures = self._failures.setdefault(node.id, {})
        failures[event.job_id] = state.now_ms
        for job_id in [job for job, at_ms in failures.items() if at_ms < state.now_ms - self._settings.window_ms]:
            del failures[job_id]
        before = node.control.quarantine
        if before is None and len(failures) < self._settings.launch_failures:
            return
        if not self._can_be_spared(state, node):
            log.warning("quarantine_withheld", node=node.id, jobs=list(failures), cause="too few nodes would be left")
            return
        del self._failures[node.id]
        self._judged[node.id] = None
        times = 0 if before is None else before.times
        reason = (
            f"launches of {counted(len(failures), 'job')} in a row failed ({_some(failures)})"
            if before is None
            else f"a launch failed on probation (job {event.job_id})"
        )
        wait_ms = min(self._settings.initial_ms << min(times, 30), self._settings.max_ms)
        yield QuarantineNode(node_id=node.id, reason=f"{reason}; the last: {event.reason}"[:1000], wait_ms=wait_ms)

    def _is_away(self, node: Node) -> bool:
        return node.control.quarantined or node.id in self._judged

    def _can_be_spared(self, state: State, node: Node) -> bool:
        healthy = [each for each in state.nodes.values() if each.state is NodeState.HEALTHY]
        away = sum(map(self._is_away, healthy))
        others = any(each.takes_work and not self._is_away(each) for each in healthy if each is not node)
        return others and away < max(1, len(healthy) * self._settings.max_share_percent // 100)


def _some(jobs: dict[JobId, int]) -> str:
    shown = ", ".join(map(str, list(jobs)[:5]))
    return f"{shown}, …" if len(jobs) > 5 else shown


class LaunchWatch:
    """Proposes what `Launches` makes of what is applied, for as long as it runs."""

    def __init__(self, replica: Replica, settings: QuarantineSettings) -> None:
        self._replica = replica
        self._launches = Launches(settings)
        self._verdicts: asyncio.Queue[Verdict] = asyncio.Queue()

    async def run(self) -> None:
        forget = self._replica.subscribe(self._observe)
        try:
            while True:
                await self._propose(await self._verdicts.get())
        finally:
            forget()

    def _observe(self, applied: Applied) -> None:
        for verdict in self._launches.observe(self._replica.state, applied):
            self._verdicts.put_nowait(verdict)

    async def _propose(self, verdict: Verdict) -> None:
        """One that is not decided is lost: the next failure, or success, makes it again."""
        try:
            outcome = await self._replica.propose(verdict)
        except HaschedError as error:
            log.warning("quarantine_undecided", node=verdict.node_id, code=error.code, cause=error.cause)
            return
        finally:
            self._launches.settle(verdict)
        if isinstance(outcome, Rejected):
            log.warning("quarantine_rejected", node=verdict.node_id, code=outcome.code, cause=outcome.cause)
        elif isinstance(verdict, QuarantineNode):
            log.warning("node_quarantined", node=verdict.node_id, cause=verdict.reason, for_ms=verdict.wait_ms)
        else:
            log.info("node_quarantine_ended", node=verdict.node_id, cause="a launch succeeded on probation")
