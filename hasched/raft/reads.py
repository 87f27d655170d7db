"""Linearizable reads: which index must be applied before `state` shows all that was committed when the read began.

The leader answers its commit index, once an entry of its own term is committed and a heartbeat round that began after
the question was answered by a majority: nobody else can have led meanwhile (Raft thesis, section 6.4). All readers of
a turn share one round. Other managers ask the leader, also once for all that wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf
from typing import NamedTuple, TypeAlias

from hasched.model.errors import HaschedError, NoLeader
from hasched.model.ids import ManagerId
from hasched.raft.engine import NO_OP, Engine
from hasched.raft.messages import Message, ReadIndex, ReadIndexReply
from hasched.raft.tuning import Tuning

Done: TypeAlias = Callable[[HaschedError | None], None]


class _Reader(NamedTuple):
    created: float
    done: Done


class _Round(NamedTuple):
    """Readers that wait until `number` is confirmed in `term`."""

    term: int
    number: int
    read_index: int
    readers: list[_Reader]
    remote: list[tuple[ManagerId, int]]


class _Waiter(NamedTuple):
    """Ordered by what it waits for; `number` breaks the tie."""

    read_index: int
    number: int
    expires: float
    done: Done


class Reads:
    def __init__(self, engine: Engine, tuning: Tuning, first_request: int) -> None:
        self._engine = engine
        self._tuning = tuning
        self._readers: list[_Reader] = []
        self._remote: list[tuple[ManagerId, int]] = []
        self._joining = False  # one of them asks on behalf of a disk that may have been wiped
        self._rounds: list[_Round] = []
        self._asked: tuple[ManagerId, int, list[_Reader]] | None = None
        self._next_request = first_request  # random, as in Proposals
        self._waiters: list[_Waiter] = []  # a heap
        self._next_waiter = 0

    def read(self, created: float, done: Done) -> None:
        """Call `done(None)` as soon as `state` may be read, or `done(NoLeader)`."""
        self._readers.append(_Reader(created, done))

    def wait_for(self, index: int, done: Done, expires: float = inf) -> None:
        """Call `done(None)` once the entry at `index` is applied, or `done(NoLeader)` if it isn't when it expires."""
        if index <= self._engine.applied_index:
            done(None)
            return
        self._next_waiter += 1
        heapq.heappush(self._waiters, _Waiter(index, self._next_waiter, expires, done))

    def asked(self, sender: ManagerId, message: ReadIndex) -> None:
        if message.joining:
            self._engine.forget_match(sender)
            self._joining = True
        self._remote.append((sender, message.request))

    def answered(self, sender: ManagerId, message: ReadIndexReply) -> None:
        if self._asked is None or self._asked[:2] != (sender, message.request):
            return
        readers, self._asked = self._asked[2], None
        if message.index == 0:
            self._readers[:0] = readers  # it no longer leads; ask whoever does
        else:
            self._wait_all(message.index, readers)

    def _wait_all(self, index: int, readers: list[_Reader]) -> None:
        for reader in readers:
            self.wait_for(index, reader.done, reader.created + self._tuning.proposal_timeout_s)

    def lost_link(self, peer: ManagerId) -> None:
        """A read changes nothing: ask again."""
        if self._asked is not None and self._asked[0] == peer:
            self._readers[:0] = self._asked[2]
            self._asked = None

    def advance(self, now: float) -> list[tuple[ManagerId, Message]]:
        """Once a turn, after the tick: start and finish rounds, wake who waits. Returns messages to send."""
        messages: list[tuple[ManagerId, Message]] = []
        if self._engine.is_leader:
            self._lead(messages)
        else:
            self._follow(messages)
        while self._waiters and self._waiters[0].read_index <= self._engine.applied_index:
            heapq.heappop(self._waiters).done(None)
        self._expire(now)
        return messages

    def _lead(self, messages: list[tuple[ManagerId, Message]]) -> None:
        engine = self._engine
        if (self._readers or self._remote) and engine.commit_index >= engine.first_own_index:
            number = engine.begin_round()
            # ADR 0009: a majority without him holds this entry before a blank disk gets its vote.
            read_index = engine.append(b"", NO_OP).index if self._joining else engine.commit_index
            self._rounds.append(_Round(engine.term, number, read_index, self._readers, self._remote))
            self._readers, self._remote, self._joining = [], [], False
        while self._rounds and (
            self._rounds[0].term != engine.term or self._rounds[0].number <= engine.confirmed_round
        ):
            finished = self._rounds.pop(0)
            if finished.term != engine.term:
                self._return(finished, messages)
                continue
            self._wait_all(finished.read_index, finished.readers)
            messages += [(sender, ReadIndexReply(request, finished.read_index)) for sender, request in finished.remote]

    def _follow(self, messages: list[tuple[ManagerId, Message]]) -> None:
        for unfinished in self._rounds:
            self._return(unfinished, messages)
        self._rounds.clear()
        messages += [(sender, ReadIndexReply(request, 0)) for sender, request in self._remote]
        self._remote.clear()
        self._joining = False
        leader = self._engine.leader_id
        if self._asked is not None and self._asked[0] != leader:
            self.lost_link(self._asked[0])
        if self._readers and self._asked is None and leader is not None and self._engine.can_send(leader):
            self._asked = (leader, self._next_request, self._readers)
            messages.append((leader, ReadIndex(self._next_request, not self._engine.voter)))
            self._next_request += 1
            self._readers = []

    def _return(self, unfinished: _Round, messages: list[tuple[ManagerId, Message]]) -> None:
        """The office is lost before the round was confirmed: somebody else may lead already."""
        self._readers[:0] = unfinished.readers
        messages += [(sender, ReadIndexReply(request, 0)) for sender, request in unfinished.remote]

    def _expire(self, now: float) -> None:
        """Fail readers that no leader could answer in time, and those that can't catch up with the answer."""
        oldest = now - self._tuning.leader_wait_s
        self._readers = self._fail_before(oldest, self._readers)
        for pending in self._rounds:
            pending.readers[:] = self._fail_before(oldest, pending.readers)
        if self._asked is not None:
            self._asked[2][:] = self._fail_before(oldest, self._asked[2])
            if not self._asked[2]:
                self._asked = None
        late = [waiter for waiter in self._waiters if waiter.expires < now]
        if late:
            self._waiters = [waiter for waiter in self._waiters if waiter.expires >= now]
            heapq.heapify(self._waiters)
        for waiter in late:
            waiter.done(NoLeader("this manager can't catch up with the others", "ask another manager"))

    def _fail_before(self, oldest: float, readers: list[_Reader]) -> list[_Reader]:
        late = [reader for reader in readers if reader.created < oldest]
        for reader in late:
            reader.done(NoLeader("no leader could confirm the read in time", "retry after a moment"))
        return [reader for reader in readers if reader.created >= oldest] if late else readers

    def abandon(self, cause: str) -> None:
        """The manager stops."""
        readers = self._readers + [reader for pending in self._rounds for reader in pending.readers]
        readers += self._asked[2] if self._asked is not None else []
        waiters = [waiter.done for waiter in self._waiters]
        self._readers, self._rounds, self._asked, self._waiters = [], [], None, []
        for done in [reader.done for reader in readers] + waiters:
            done(NoLeader(cause, "ask another manager"))
