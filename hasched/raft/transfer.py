"""Transfer of leadership: the leader brings one voter up to date, takes nothing new meanwhile, and tells it to stand at once.

Raft thesis, section 3.10. What waits in the leader's queue is forwarded to its successor, and what stands in its log
stands in the successor's too, so no proposal is lost by it. If nobody has taken over within an election timeout, the
leader goes on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec
import structlog

from hasched.model.errors import HaschedError, TransferFailed
from hasched.model.ids import ManagerId
from hasched.raft.engine import Engine
from hasched.raft.messages import StandNow, Transfer, TransferRefused
from hasched.raft.tuning import Tuning

Done: TypeAlias = Callable[[ManagerId | HaschedError], None]
RETRY_HINT = "see `hasched manager list` for who is connected and caught up, then try again"

log = structlog.get_logger(__name__)


class _Wish(msgspec.Struct):
    """Somebody on this manager wants another leader. `asked`: who led when the wish became known to the leader."""

    target: ManagerId | None
    expires: float
    done: Done
    request: int
    asked: ManagerId | None = None


class _HandOver(msgspec.Struct):
    """The leader's: under way to `target`, for those who asked over the wire."""

    target: ManagerId
    term: int
    expires: float
    askers: list[tuple[ManagerId, int]]
    told_at: float = float("-inf")


class Transfers:
    """Of one manager: as leader it hands over, and for its users it asks whoever leads."""

    def __init__(self, engine: Engine, tuning: Tuning, first_request: int) -> None:
        self._engine = engine
        self._tuning = tuning
        self._wishes: list[_Wish] = []
        self._under_way: _HandOver | None = None
        self._next_request = first_request  # random, as in Proposals

    @property
    def under_way(self) -> bool:
        """The leader takes no new entries now."""
        return self._under_way is not None

    def request(self, target: ManagerId | None, now: float, done: Done) -> None:
        """Call `done` with the new leader once this manager sees it lead, or with TransferFailed. None: whoever is best."""
        patience = self._tuning.leader_wait_s + 2 * self._tuning.election_max_s
        self._wishes.append(_Wish(target, now + patience, done, self._next_request))
        self._next_request += 1

    def asked(self, sender: ManagerId, message: Transfer, now: float) -> None:
        refusal = self.begin(message.target or None, now, (sender, message.request))
        if refusal:
            self._engine.send(sender, TransferRefused(message.request, refusal))

    def refused(self, sender: ManagerId, message: TransferRefused) -> None:
        for wish in self._wishes[:]:
            if (wish.asked, wish.request) == (sender, message.request):
                self._fail(wish, message.cause)

    def begin(self, target: ManagerId | None, now: float, asker: tuple[ManagerId, int] | None = None) -> str:
        """Hand over, if this manager leads. Returns why not, or nothing."""
        engine = self._engine
        if not engine.is_leader:
            return "the manager that was asked does not lead any more"
        if target == engine.selfNode.id:
            return ""
        if target is not None and not engine.membership.has_voter(target):
            return f"{target!r} is not a manager that votes"
        heir = target or self._best_heir()
        if heir is None:
            return "no other manager is connected and up to date"
        if self._under_way is None:
            self._under_way = _HandOver(heir, engine.term, now + self._tuning.election_max_s, [])
            log.info("transfer_begins", target=heir, term=engine.term)
        elif target not in (None, self._under_way.target):
            return f"a transfer to {self._under_way.target!r} is under way"
        if asker is not None:
            self._under_way.askers.append(asker)
        return ""

    def _best_heir(self) -> ManagerId | None:
        engine = self._engine
        ready = [
            (standing.match_index, name)
            for name, standing in engine.standings().items()
            if standing.answers and standing.filled and engine.membership.has_voter(name) and engine.can_send(name)
        ]
        return max(ready)[1] if ready else None

    def advance(self, now: float) -> None:
        """Once a turn, before new entries are sent."""
        for wish in self._wishes[:]:
            self._pursue(wish, now)
        if self._under_way is not None:
            self._hand_over(self._under_way, now)

    def _pursue(self, wish: _Wish, now: float) -> None:
        engine, leader = self._engine, self._engine.leader_id
        if leader is not None and (leader == wish.target or (wish.asked is not None and leader != wish.asked)):
            self._wishes.remove(wish)
            if wish.target in (None, leader):
                wish.done(leader)
            else:
                wish.done(TransferFailed(f"{leader!r} was elected instead of {wish.target!r}", RETRY_HINT))
        elif now >= wish.expires:
            self._fail(wish, "no other manager took over in time")
        elif wish.asked is None and engine.is_leader:
            wish.asked = leader
            refusal = self.begin(wish.target, now)
            if refusal:
                self._fail(wish, refusal)
        elif wish.asked is None and leader is not None and engine.can_send(leader):
            wish.asked = leader
            engine.send(leader, Transfer(wish.request, wish.target or ""))

    def _hand_over(self, under_way: _HandOver, now: float) -> None:
        engine, target = self._engine, under_way.target
        if not engine.is_leader or engine.term != under_way.term:
            self._under_way = None
            return
        if now >= under_way.expires:
            self._give_up(under_way)
            return
        progress = engine.progress.get(target)
        ready = progress is not None and progress.filled and progress.match_index == engine.last_index
        if ready and engine.can_send(target) and now - under_way.told_at >= self._tuning.beat_s:
            under_way.told_at = now
            engine.send(target, StandNow(engine.term))

    def _give_up(self, under_way: _HandOver) -> None:
        self._under_way = None
        cause = f"{under_way.target!r} did not take over within {self._tuning.election_max_s:g} s"
        log.warning("transfer_failed", cause=cause)
        for sender, request in under_way.askers:
            self._engine.send(sender, TransferRefused(request, cause))
        for wish in self._wishes[:]:
            if wish.asked == self._engine.selfNode.id and wish.target in (None, under_way.target):
                self._fail(wish, cause)

    def _fail(self, wish: _Wish, cause: str) -> None:
        self._wishes.remove(wish)
        wish.done(TransferFailed(cause, RETRY_HINT))

    def abandon(self, cause: str) -> None:
        """The manager stops."""
        for wish in self._wishes[:]:
            self._fail(wish, cause)
