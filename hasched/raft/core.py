"""The core of a replica: engine, state, proposals and reads, as one synchronous machine.

It does no IO, reads no wall clock but the one it is given, and knows nothing of asyncio: the driver delivers what
arrived, gives it a turn, syncs the journal and only then sends what is in the outbox. A simulation does the same with a
fake network, disk and clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

import msgspec
import structlog
from pysyncobj import syncobj

from hasched.model.errors import HaschedError, StorageFailed
from hasched.model.ids import ManagerId
from hasched.raft.changes import Changes
from hasched.raft.clock import LeaderClock
from hasched.raft.divergence import Check, Digests, Divergence, Report, StateDiverged
from hasched.raft.engine import CHECK, COMMANDS, DIGESTS, NO_OP, Engine
from hasched.raft.journal import Journal, LogEntry
from hasched.raft.membership import MEMBERS, Member, Membership
from hasched.raft.messages import (
    CheckNow,
    DigestReport,
    Forward,
    Forwarded,
    Hello,
    Message,
    ReadIndex,
    ReadIndexReply,
    Refusal,
    Transfer,
    TransferRefused,
)
from hasched.raft.proposals import Proposals
from hasched.raft.reads import Reads
from hasched.raft.replica import Applied
from hasched.raft.sender import Snapshots
from hasched.raft.transfer import Transfers
from hasched.raft.tuning import Tuning
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import (
    BATCH_VERSION,
    Batch,
    RecordManagers,
    RecordOrigin,
    decode_batch,
    encode_batch,
    encode_command,
)
from hasched.statemachine.digest import SCHEME
from hasched.statemachine.manager import ManagerAddress
from hasched.statemachine.state import State

MAX_FORWARDS = 64  # under way to the leader at once

_digests_decoder = msgspec.msgpack.Decoder(Digests)

log = structlog.get_logger(__name__)


class Core:
    """`on_applied` is called after each entry, `on_role` with whether this manager leads and has caught up with its term.

    `founding`: the members by the configuration file, which stand until the log says otherwise. `may_found`: if all their
    disks are blank, this is the cluster's first start. `on_fence` must make durable that the state went wrong before the
    entry that it is given.
    """

    def __init__(
        self,
        manager_id: ManagerId,
        founding: Membership,
        *,
        journal: Journal,
        snapshots: Snapshots,
        state: State,
        tuning: Tuning,
        random: Random,
        wall_ms: Callable[[], int],
        voter: bool,
        may_found: bool,
        on_join: Callable[[], None],
        on_fence: Callable[[int], None],
        on_applied: Callable[[Applied], None],
        on_role: Callable[[bool], None],
    ) -> None:
        self.state = state
        self.engine = Engine(
            manager_id,
            founding,
            journal=journal,
            snapshots=snapshots,
            tuning=tuning,
            random=random,
            voter=voter,
            apply=self._apply,
            on_join=on_join,
        )
        self.proposals = Proposals(tuning, random.getrandbits(48))
        self.reads = Reads(self.engine, tuning, random.getrandbits(48))
        self.transfers = Transfers(self.engine, tuning, random.getrandbits(48))
        self.divergence = Divergence(manager_id, tuning, self.engine.last_index)
        self._changes = Changes(self.engine, self.transfers, self.divergence, tuning, self._record_managers)
        self.check: Check | None = None  # reached, and to be computed
        self.leading = False
        self.snapshot_index = self.engine.applied_index
        self.bytes_since_snapshot = 0
        self._manager_id = manager_id
        self._founders = [name for name in founding.voters if name != manager_id] if may_found else []
        self._journal = journal
        self._snapshots = snapshots
        self._tuning = tuning
        self._clock = LeaderClock(wall_ms, syncobj.monotonicTime)
        self._on_fence = on_fence
        self._on_applied = on_applied
        self._on_role = on_role
        self._random = random
        self._origin_drawn_in = 0  # the term
        self._forwarded_to: ManagerId | None = None
        self._blank_peers: dict[ManagerId, bool] = {}
        self._catching_up = self._caught_up = False
        self._uncommitted: deque[tuple[int, int]] = deque()  # of this leader: index, size
        self._uncommitted_bytes = 0

    def clock_ms(self) -> int:
        """The time that an entry would carry now."""
        return self._clock.read(self.state.now_ms)

    # --- what the driver delivers ---

    def deliver(self, sender: ManagerId, message: Message) -> None:
        match message:
            case Forward():
                refused = self.proposals.take_forward(sender, message)
                if refused is not None:
                    self.engine.outbox.append((sender, refused))
            case Forwarded():
                self.proposals.forwarded(sender, message)
            case ReadIndex():
                self.reads.asked(sender, message)
            case ReadIndexReply():
                self.reads.answered(sender, message)
            case CheckNow():
                self.divergence.want()
            case DigestReport():
                self.divergence.take(sender, message.index, Report(message.scheme, message.digest, message.voter))
            case Transfer():
                self.transfers.asked(sender, message, syncobj.monotonicTime())
            case TransferRefused():
                self.transfers.refused(sender, message)
            case Hello() | Refusal():
                log.warning("hello_repeated", sender=sender)
            case _:
                self.engine.receive(sender, message)

    def connected(self, name: ManagerId, blank: bool) -> None:
        """Messages to `name` arrive from now on. When all founders' disks are blank, this is the cluster's first start."""
        self.engine.connected(name)
        self._blank_peers[name] = blank
        all_blank = bool(self._founders) and all(self._blank_peers.get(founder) for founder in self._founders)
        if not self.engine.voter and self.engine.is_blank and all_blank:
            self.engine.join()
            self.engine.stand_soon()

    def disconnected(self, name: ManagerId) -> None:
        self.engine.disconnected(name)
        self._blank_peers.pop(name, None)
        self._lose_link(name)

    def lost(self, name: ManagerId) -> None:
        """The connection over which `name` spoke to us is closed."""
        self.engine.lost(name)
        self._lose_link(name)

    def _lose_link(self, name: ManagerId) -> None:
        self.proposals.lost_link(name)
        self.reads.lost_link(name)
        self.divergence.lost_link(name)

    def install(self, index: int, state: State) -> None:
        """The store's latest snapshot, up to `index`, came from the leader, and `state` is what it holds.

        Never in place of newer state (10).
        """
        if index <= self.engine.commit_index:
            self.engine.drop_incoming()
            return
        self.state = state
        self.engine.install()
        self._snapshot_taken(self.engine.applied_index)
        self.proposals.skipped(self.engine.applied_index)
        self._on_applied(Applied(self.engine.applied_index, state.now_ms, [], []))

    def compact(self, index: int) -> None:
        """A snapshot up to `index` is durable: forget what lies well before it, and before what followers still take."""
        self._snapshot_taken(index)
        position = index - self._journal[0].index
        retained = 0
        while position > 0 and retained < self._tuning.retained_bytes:
            retained += len(self._journal[position].data)
            position -= 1
        upto = self._journal[max(position, 0)].index
        for progress in self.engine.progress.values():
            if progress.snapshot is not None:
                upto = min(upto, progress.snapshot.snapshot.index)
        self.engine.compact(upto)

    def _snapshot_taken(self, index: int) -> None:
        self.snapshot_index = index
        self.bytes_since_snapshot = 0

    # --- a turn ---

    def turn(self) -> None:
        engine, now = self.engine, syncobj.monotonicTime()
        if not engine.voter:
            self._seek_vote(now)
        engine.tick()
        self._note_role()
        engine.outbox += self.reads.advance(now)
        self.transfers.advance(now)
        if engine.is_leader:
            if not self.transfers.under_way:
                self._record_origin()
            self._changes.advance(self.state, now)
            if not self.transfers.under_way:
                self._append_queue()
        else:
            self._forward_queue(now)
        self._advance_check(now)
        if self.state.neighbours.behind:
            self.state.neighbours.go_on(self.state)
        engine.replicate()
        self.proposals.expire(now)

    def _seek_vote(self, now: float) -> None:
        """A disk that may have been wiped is made good by a linearizable read, of an entry that the leader makes for it: a
        majority without this member confirmed the leader after this life began, and holds that entry. All that was
        committed until then, with the help of an earlier life or without, is in this journal, and no vote of an earlier
        life elects anybody who lacks it. The vote waits for the turn after that, for which the journal was synced.
        """
        if self._caught_up:
            self.engine.join()
        elif not self._catching_up and self.engine.leader_id is not None:
            self._catching_up = True
            self.reads.read(now, self._note_caught_up)

    def _note_caught_up(self, error: HaschedError | None) -> None:
        self._catching_up, self._caught_up = False, error is None

    # --- checks of the managers' states ---

    def _advance_check(self, now: float) -> None:
        engine, checks = self.engine, self.divergence
        checks.expire(now)
        if not self.leading:
            checks.leave_office()
            leader = None if engine.is_leader else engine.leader_id
            if leader is not None and engine.can_send(leader) and checks.request_to(leader, engine.term):
                engine.outbox.append((leader, CheckNow()))
            return
        if self.transfers.under_way:
            return
        if checks.under_way or checks.outstanding:
            reachable = [name for name, peer in engine.progress.items() if engine.can_send(name) and not peer.snapshot]
            if any(name in reachable for name in checks.outstanding):
                checks.want()
            digests = checks.finish(engine.membership.voters, [self._manager_id, *reachable], self.clock_ms(), now)
            if digests is not None:
                engine.append(msgspec.msgpack.encode(digests), DIGESTS)
        if checks.due(engine.last_index):
            checks.begin(engine.append(b"", CHECK).index, now)

    def take_check(self) -> Check | None:
        check, self.check = self.check, None
        return check

    def digested(self, index: int, digest: str) -> None:
        """The digest of this manager's state at the CHECK at `index` is known. Raises StateDiverged."""
        report, leader = Report(SCHEME, digest, self.engine.voter), self.engine.leader_id
        self.divergence.take(self._manager_id, index, report)
        if leader is not None and leader != self._manager_id:
            self.engine.outbox.append((leader, DigestReport(index, report.scheme, report.digest, report.voter)))
        self._compare(lambda: self.divergence.computed(index, report))

    def _compare(self, comparison: Callable[[], None]) -> None:
        try:
            comparison()
        except StateDiverged as error:
            self._on_fence(error.index)
            raise

    def take_outbox(self) -> list[tuple[ManagerId, Message]]:
        outbox = self.engine.outbox[:]
        self.engine.outbox.clear()
        return outbox

    @property
    def wants_turn(self) -> bool:
        """There is more to do at once: a backlog to apply, or to count, or, alone, a synced entry to commit."""
        engine = self.engine
        return (
            engine.applied_index < engine.commit_index
            or self.state.neighbours.behind
            or (not engine.has_electors and engine.is_leader and engine.commit_index < engine.last_index)
        )

    @property
    def snapshot_due(self) -> bool:
        """So much log lies behind the latest snapshot; the larger the snapshot, the more, so that writing stays in proportion."""
        entries = self.engine.applied_index - self.snapshot_index
        latest = self._snapshots.latest
        enough_bytes = max(self._tuning.snapshot_bytes, latest.size if latest is not None else 0)
        return entries > 0 and (entries >= self._tuning.snapshot_entries or self.bytes_since_snapshot >= enough_bytes)

    def _append_queue(self) -> None:
        """Everything that was queued since the last turn, as few entries as the caps allow (18, 19)."""
        engine = self.engine
        while self._uncommitted and self._uncommitted[0][0] <= engine.commit_index:
            self._uncommitted_bytes -= self._uncommitted.popleft()[1]
        while self.proposals.waiting and self._uncommitted_bytes < self._tuning.inflight_bytes:
            commands, pieces = self.proposals.next_entry()
            if not commands:
                break
            entry = engine.append(encode_batch(self.clock_ms(), commands))
            engine.outbox += self.proposals.placed(entry.index, entry.term, pieces)
            self._uncommitted.append((entry.index, len(entry.data)))
            self._uncommitted_bytes += len(entry.data)

    def _forward_queue(self, now: float) -> None:
        engine = self.engine
        self._uncommitted.clear()
        self._uncommitted_bytes = 0
        engine.outbox += self.proposals.refusals()
        leader = engine.leader_id
        if leader != self._forwarded_to and self._forwarded_to is not None:
            self.proposals.lost_link(self._forwarded_to)
        self._forwarded_to = leader
        if leader is None or not engine.can_send(leader):
            self.proposals.expire_queue(now)
            return
        while self.proposals.forwards_under_way < MAX_FORWARDS:
            message = self.proposals.forward(leader)
            if message is None:
                break
            engine.outbox.append((leader, message))

    def _record_origin(self) -> None:
        """The first leader of a cluster gives it its origin. If this entry is lost, the next leader does it."""
        if self.leading and not self.state.origin and self._origin_drawn_in != self.engine.term:
            self._origin_drawn_in = self.engine.term
            drawn = RecordOrigin(origin=f"{self._random.getrandbits(128):032x}")
            self.engine.append(encode_batch(self.clock_ms(), [encode_command(drawn)]))

    def _record_managers(self, members: list[Member]) -> None:
        """Who the cluster began with becomes who is wanted. If this entry is lost, the next leader does it."""
        known = tuple(ManagerAddress(member.manager_id, member.api_url, member.raft_address) for member in members)
        self.engine.append(encode_batch(self.clock_ms(), [encode_command(RecordManagers(known))]))

    def _note_role(self) -> None:
        self._set_leading(self.engine.is_leader and self.engine.applied_index >= self.engine.first_own_index)

    def leave_duties(self) -> None:
        """This manager can't do a leader's work for now, whatever the engine says; the next turn will tell."""
        self._set_leading(False)

    def _set_leading(self, leading: bool) -> None:
        if leading != self.leading:
            self.clock_ms()  # from here on the state's time goes on, even if nothing is proposed for a while
            self.leading = leading
            self._on_role(leading)

    def _apply(self, entry: LogEntry) -> None:
        """What is raised here stops the manager: at this entry every manager would do the same (15)."""
        kind = entry.data[0]
        if kind == COMMANDS:
            applied = apply(self.state, entry.index, _read_batch(entry))
        elif kind in (NO_OP, MEMBERS, CHECK, DIGESTS):  # a membership is in force since it stands in the log
            applied = Applied(entry.index, self.state.now_ms, [], [])
            if kind == CHECK:
                self._reach_check(entry.index)
            elif kind == DIGESTS:
                digests = _digests_decoder.decode(entry.data[1:])
                self._compare(lambda: self.divergence.heard(digests))
        else:
            raise StorageFailed(
                f"entry {entry.index} is of kind {kind}, which this version doesn't know", "upgrade hasched"
            )
        self.bytes_since_snapshot += len(entry.data)
        self.proposals.applied(entry.index, entry.term, applied.outcomes)
        self._on_applied(applied)

    def _reach_check(self, index: int) -> None:
        if self.divergence.reached(index):
            if self.check is not None:
                self.check.close()
            self.check = Check(index, self.state)


def _read_batch(entry: LogEntry) -> Batch:
    """Raises StorageFailed for what a later version wrote: to skip it, or a part of it, would be another history."""
    try:
        batch = decode_batch(entry.data[1:])
    except msgspec.DecodeError as error:
        raise StorageFailed(
            f"entry {entry.index} holds what this version doesn't know: {error}", "upgrade hasched"
        ) from None
    if batch.v > BATCH_VERSION:
        raise StorageFailed(
            f"entry {entry.index} is of version {batch.v}; this version reads {BATCH_VERSION}", "upgrade hasched"
        )
    return batch
