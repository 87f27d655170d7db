"""Proposals: from the wish to commit commands to their outcomes, or to one of the errors that say whether it happened.

A proposal waits in the queue until there is a leader. On the leader its commands become parts of entries; on another
manager they are forwarded, and the reply says of which entries they became parts. Either way, the outcomes are those
that *this* manager computes when it applies those entries. What happened to a proposal is known (done), known not to
have happened (NoLeader, Overloaded), or not known (OutcomeUnknown): 17.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from hasched.model.errors import HaschedError, NoLeader, OutcomeUnknown, Overloaded
from hasched.model.ids import ManagerId
from hasched.raft.messages import Forward, Forwarded
from hasched.raft.tuning import Tuning
from hasched.statemachine.commands import decode_command
from hasched.statemachine.outcomes import Outcome

Done: TypeAlias = Callable[[list[Outcome] | HaschedError], None]

RETRY_HINT = "retry with the same submission id; it is accepted once"


class Proposal:
    """Commands that travel together. `done` is called once."""

    __slots__ = ("_done", "_missing", "_outcomes", "commands", "created", "finished", "placed", "size", "under_way")

    def __init__(self, commands: Sequence[bytes], created: float, done: Done) -> None:
        self.commands = commands
        self.created = created
        self.size = sum(map(len, commands))
        self.placed = False  # some of it stands in a log
        self.under_way = 0  # pieces that were forwarded and not answered
        self.finished = False
        self._done = done
        self._missing = len(commands)
        self._outcomes: list[Outcome | None] = [None] * len(commands)

    def fill(self, offset: int, outcomes: Sequence[Outcome]) -> None:
        if not self.finished:
            self._outcomes[offset : offset + len(outcomes)] = outcomes
            self._missing -= len(outcomes)
            if not self._missing:
                self.finished = True
                self._done([outcome for outcome in self._outcomes if outcome is not None])

    def fail(self, error: HaschedError) -> None:
        """`error` says that nothing was done; that is not so if another part of the proposal was, or may be, placed."""
        if not self.finished:
            self.finished = True
            self._done(_unknown("a part of it was sent before") if self.placed or self.under_way else error)

    def lose(self, cause: str) -> None:
        if not self.finished:
            self.finished = True
            self._done(_unknown(cause))


class Piece(msgspec.Struct, frozen=True, gc=False):
    """`count` commands of a proposal, from `offset` on; `remote` names the Forward that they came in instead."""

    count: int
    offset: int = 0
    proposal: Proposal | None = None
    remote: _Remote | None = None


class _Remote:
    """A Forward that another manager sent, on its way into the log."""

    __slots__ = ("commands", "request", "sender")

    def __init__(self, sender: ManagerId, message: Forward) -> None:
        self.sender = sender
        self.request = message.request
        self.commands = message.commands


class Proposals:
    """The queue, and what is on its way. It is told of time, and never reads a clock.

    `first_request` is random: a reply that was meant for this manager's life before its restart must match nothing.
    """

    def __init__(self, tuning: Tuning, first_request: int) -> None:
        self._tuning = tuning
        self._queue: deque[tuple[Proposal | _Remote, int]] = deque()  # with the offset of what is still to be placed
        self._queued_commands = 0
        self._queued_bytes = 0
        self._placed: dict[int, tuple[int, list[tuple[Piece, int]]]] = {}  # by index: term, pieces and their positions
        self._forwards: dict[int, tuple[ManagerId, list[Piece]]] = {}
        self._next_request = first_request
        self._ageing: deque[Proposal] = deque()

    # --- coming in ---

    def propose(self, proposal: Proposal) -> None:
        """Raises Overloaded."""
        self._make_room(len(proposal.commands), proposal.size)
        self._queue.append((proposal, 0))
        self._ageing.append(proposal)

    def take_forward(self, sender: ManagerId, message: Forward) -> Forwarded | None:
        """Queue what another manager forwards; a Forwarded if it is refused at once."""
        try:
            for command in message.commands:
                decode_command(command)
            if not message.commands or self._fit(message.commands, 0, 0, 0)[0] < len(message.commands):
                return Forwarded(message.request, refused="malformed")
            self._make_room(len(message.commands), sum(map(len, message.commands)))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Forwarded(message.request, refused="malformed")
        except Overloaded:
            return Forwarded(message.request, refused="overloaded")
        self._queue.append((_Remote(sender, message), 0))
        return None

    def _make_room(self, commands: int, size: int) -> None:
        full = self._queued_commands + commands > self._tuning.queue_commands and self._queue
        if full or self._queued_bytes + size > self._tuning.queue_bytes:
            raise Overloaded("too many proposals wait already", "retry after a moment")
        self._queued_commands += commands
        self._queued_bytes += size

    @property
    def waiting(self) -> bool:
        return bool(self._queue)

    @property
    def forwards_under_way(self) -> int:
        return len(self._forwards)

    # --- going out ---

    def next_entry(self) -> tuple[list[bytes], list[tuple[Piece, int]]]:
        """The commands of one entry, within the caps (19), and the pieces that they are with their positions."""
        commands: list[bytes] = []
        pieces: list[tuple[Piece, int]] = []
        size = 0
        while self._queue:
            item, offset = self._queue[0]
            if isinstance(item, Proposal) and item.finished:
                self._pop(item, offset)
                continue
            count, added = self._fit(item.commands, offset, size, len(commands))
            if count == 0 or (isinstance(item, _Remote) and count < len(item.commands)):
                break  # what was forwarded stays together: its reply must be on its way before its entry
            piece = (
                Piece(count, offset, proposal=item) if isinstance(item, Proposal) else Piece(count, offset, remote=item)
            )
            pieces.append((piece, len(commands)))
            commands += item.commands[offset : offset + count]
            size += added
            if offset + count == len(item.commands):
                self._pop(item, offset)
            else:
                self._advance(item, offset, count)
                break
        return commands, pieces

    def _fit(self, commands: Sequence[bytes], offset: int, size: int, number: int) -> tuple[int, int]:
        count = added = 0
        for command in commands[offset:] if offset else commands:
            if number + count >= self._tuning.max_entry_commands:
                break
            if size + added + len(command) > self._tuning.max_entry_bytes and number + count > 0:
                break
            count += 1
            added += len(command)
        return count, added

    def _pop(self, item: Proposal | _Remote, offset: int) -> None:
        self._queue.popleft()
        self._queued_commands -= len(item.commands) - offset
        self._queued_bytes -= sum(map(len, item.commands[offset:]))

    def _advance(self, item: Proposal | _Remote, offset: int, count: int) -> None:
        self._queue[0] = (item, offset + count)
        self._queued_commands -= count
        self._queued_bytes -= sum(map(len, item.commands[offset : offset + count]))

    def placed(self, index: int, term: int, pieces: list[tuple[Piece, int]]) -> list[tuple[ManagerId, Forwarded]]:
        """The leader appended them as the entry at `index`. Returns the replies to those who forwarded some."""
        replies = []
        own = []
        for piece, position in pieces:
            if piece.remote is not None:
                replies.append((piece.remote.sender, Forwarded(piece.remote.request, index, term, position)))
            elif piece.proposal is not None:
                piece.proposal.placed = True
                own.append((piece, position))
        if own:
            self._await(index, term, own)
        return replies

    def forward(self, leader: ManagerId) -> Forward | None:
        """What waits, as a message to the leader; None if nothing does. What others forwarded is refused by `refusals`."""
        commands, pieces = self.next_entry()
        if not commands:
            return None
        request, self._next_request = self._next_request, self._next_request + 1
        self._forwards[request] = (leader, [piece for piece, _ in pieces])
        for piece, _ in pieces:
            assert piece.proposal is not None, "what others forwarded is refused before"
            piece.proposal.under_way += 1
        return Forward(request, commands)

    def refusals(self) -> list[tuple[ManagerId, Forwarded]]:
        """Forwards that are still in the queue of a manager that doesn't lead."""
        refused = []
        for item, offset in list(self._queue):
            if isinstance(item, _Remote):
                refused.append((item.sender, Forwarded(item.request, refused="not_leader")))
                self._queued_commands -= len(item.commands) - offset
                self._queued_bytes -= sum(map(len, item.commands[offset:]))
        if refused:
            self._queue = deque((item, offset) for item, offset in self._queue if isinstance(item, Proposal))
        return refused

    # --- coming back ---

    def forwarded(self, sender: ManagerId, message: Forwarded) -> None:
        """The leader's word of where the commands stand, or that they stand nowhere."""
        leader, pieces = self._forwards.pop(message.request, ("", []))
        if leader != sender:
            return
        for piece in pieces:
            assert piece.proposal is not None
            piece.proposal.under_way -= 1
        position = message.position
        for piece in pieces:
            assert piece.proposal is not None
            if message.refused:
                piece.proposal.fail(_refusal(message.refused))
            else:
                piece.proposal.placed = True
                self._await(message.index, message.term, [(piece, position)])
                position += piece.count

    def _await(self, index: int, term: int, pieces: list[tuple[Piece, int]]) -> None:
        """A later term takes the place of an earlier: the earlier entry was never committed."""
        known = self._placed.get(index)
        if known is not None and known[0] == term:
            known[1].extend(pieces)
            return
        if known is not None:
            self._lose_pieces(known[1], "another leader's entry took its place")
        self._placed[index] = (term, pieces)

    def applied(self, index: int, term: int, outcomes: Sequence[Outcome]) -> None:
        """This manager applied the entry at `index`."""
        expected, pieces = self._placed.pop(index, (0, []))
        if expected != term:
            self._lose_pieces(pieces, "another leader's entry took its place")
            return
        for piece, position in pieces:
            if piece.proposal is not None:
                piece.proposal.fill(piece.offset, outcomes[position : position + piece.count])

    def skipped(self, index: int) -> None:
        """A snapshot stands for everything up to `index`: what those entries did can't be told any more."""
        for passed in [known for known in self._placed if known <= index]:
            self._lose_pieces(self._placed.pop(passed)[1], "this manager caught up by a snapshot")

    def lost_link(self, peer: ManagerId) -> None:
        """`peer` is gone, or leads no more: whatever was forwarded to it and not answered may or may not have been taken."""
        for request in [request for request, (leader, _) in self._forwards.items() if leader == peer]:
            for piece in self._forwards.pop(request)[1]:
                if piece.proposal is not None:
                    piece.proposal.lose("the leader was lost before it answered")

    def _lose_pieces(self, pieces: list[tuple[Piece, int]], cause: str) -> None:
        for piece, _ in pieces:
            if piece.proposal is not None:
                piece.proposal.lose(cause)

    # --- giving up ---

    def expire(self, now: float) -> None:
        """Fail what has waited too long: for a leader to be known, or for a majority."""
        while self._ageing:
            oldest = self._ageing[0]
            if not oldest.finished:
                if now - oldest.created < self._tuning.proposal_timeout_s:
                    break
                oldest.lose(f"it was not committed within {self._tuning.proposal_timeout_s:g} s")
            self._ageing.popleft()

    def expire_queue(self, now: float) -> None:
        """No leader is known: what has waited for one too long was never sent."""
        while self._queue:
            item, offset = self._queue[0]
            if isinstance(item, Proposal) and not item.finished:
                if now - item.created < self._tuning.leader_wait_s:
                    break
                item.fail(NoLeader("no leader was found in time", "retry after a moment"))
            self._pop(item, offset)

    def abandon(self, cause: str) -> None:
        """The manager stops."""
        while self._queue:
            item, offset = self._queue[0]
            self._pop(item, offset)
            if isinstance(item, Proposal):
                item.fail(NoLeader(cause, "ask another manager"))
        for _, pieces in [*self._placed.values(), *((0, [(p, 0) for p in f[1]]) for f in self._forwards.values())]:
            self._lose_pieces(pieces, cause)
        self._placed.clear()
        self._forwards.clear()


def _refusal(reason: str) -> HaschedError:
    if reason == "overloaded":
        return Overloaded("the leader has too many proposals", "retry after a moment")
    return NoLeader("the manager that led before does not lead any more", "retry")


def _unknown(cause: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"it may or may not have been committed: {cause}", RETRY_HINT)
