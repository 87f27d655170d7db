"""Changes: what the leader does so that the members become the managers that are wanted.

Who is wanted stands in the replicated state, so each new leader goes on where the last one was stopped. See
`membership.next_step` for the order, and docs/adr/0010-membership.md for why it is safe.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from hasched.model.ids import ManagerId
from hasched.raft.divergence import Divergence
from hasched.raft.engine import Engine
from hasched.raft.membership import Change, HandOver, Member, Standing, next_step
from hasched.raft.transfer import Transfers
from hasched.raft.tuning import Tuning
from hasched.statemachine.state import State

RETRY_S = 2.0  # after a transfer that failed

log = structlog.get_logger(__name__)


def wanted_members(state: State) -> dict[ManagerId, Member]:
    """Empty until the leader has recorded those that the cluster began with."""
    return {name: Member(name, record.api_url, record.raft_address) for name, record in state.managers.items()}


class Changes:
    """`record` proposes that the state remember these members as wanted."""

    def __init__(
        self,
        engine: Engine,
        transfers: Transfers,
        divergence: Divergence,
        tuning: Tuning,
        record: Callable[[list[Member]], None],
    ) -> None:
        self._engine = engine
        self._transfers = transfers
        self._divergence = divergence
        self._tuning = tuning
        self._record = record
        self._recorded_in = 0  # the term
        self._due = 0.0

    def advance(self, state: State, now: float) -> None:
        """Once a turn, on the leader; it looks once a heartbeat."""
        engine = self._engine
        if now < self._due or not engine.may_change_members or self._transfers.under_way:
            return
        if engine.applied_index < max(engine.first_own_index, engine.membership.index):
            return  # the state may be older than the membership, and want what was once wanted
        self._due = now + self._tuning.beat_s
        wanted = wanted_members(state)
        leader = engine.selfNode.id
        step = next_step(wanted, engine.membership, leader, self._standings())
        match step:
            case Change():
                log.info("members_change", reason=step.reason)
                engine.change_members(step.members)
            case HandOver():
                log.info("leader_is_to_go", target=step.target)
                self._transfers.begin(step.target, now)
                self._due = now + RETRY_S
            case None:
                self._record_first(wanted)

    def _standings(self) -> dict[ManagerId, Standing]:
        """Who was found to be wrong counts as not filled: with its vote it would take away a majority when it goes."""
        standings = self._engine.standings()
        for name in self._divergence.suspects:
            if name in standings:
                standings[name] = msgspec.structs.replace(standings[name], filled=False)
        return standings

    def _record_first(self, wanted: dict[ManagerId, Member]) -> None:
        engine = self._engine
        if not wanted and self._recorded_in != engine.term:
            self._recorded_in = engine.term
            self._record(list(engine.membership.members))
