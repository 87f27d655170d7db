"""The engine: pysyncobj's Raft, with the faults mended that docs/adr/0008-consensus-engine.md lists.

What is the library's: who may vote for whom, when a term begins, the commit rule (only entries of the current term are
counted), the leader's no-op, check-quorum. What is ours: how entries, acknowledgements and snapshots travel, when an
election may begin (`elections.py`), and everything that touches disk, network, clock or randomness. Numbers in comments
are the faults.

The engine is synchronous and does no IO of its own. `receive`, `tick`, `append` and `replicate` put messages into `outbox`
and notes into the journal; the caller syncs the journal before it lets the messages out. It runs as well in a
simulation: replace `pysyncobj.syncobj.monotonicTime` and pass a seeded `Random` (22).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import structlog
from pysyncobj import SyncObjConf, syncobj

from hasched.model.errors import StorageFailed
from hasched.model.ids import ManagerId
from hasched.raft.elections import ConsensusBroken, Elections
from hasched.raft.journal import FIRST_INDEX, Journal, LogEntry
from hasched.raft.membership import MEMBERS, Member, Membership, MembershipLog, Standing, encode_body
from hasched.raft.messages import (
    Append,
    AppendRefused,
    AppendReply,
    Beat,
    BeatReply,
    Consensus,
    Entry,
    Message,
    Outdated,
    PreVote,
    PreVoteReply,
    RequestVote,
    SnapshotChunk,
    SnapshotReply,
    StandNow,
    Vote,
)
from hasched.raft.progress import Progress
from hasched.raft.segments import REPAIR_HINT
from hasched.raft.sender import Sender, Snapshots
from hasched.raft.snapshots import IncomingSnapshot
from hasched.raft.surroundings import Letterbox, NoPoller, Peer
from hasched.raft.tuning import Tuning

COMMANDS, NO_OP = 0, 1  # the first byte of an entry; pysyncobj's REGULAR and NO_OP, its only two that are used (14, 16)
CHECK, DIGESTS = 3, 4  # ours, see divergence.py

log = structlog.get_logger(__name__)


class Engine(Elections):
    """One member's consensus. `apply` is called with each committed entry, once, in order; what it raises stops the engine.

    `founding` is the membership where the log and the snapshot hold none.

    `voter` is False on a disk that may have been wiped: such a member neither votes nor counts until `join`, which its core
    calls once it holds all that was committed; `on_join` makes that durable.
    """

    def __init__(
        self,
        manager_id: ManagerId,
        founding: Membership,
        *,
        journal: Journal,
        snapshots: Snapshots,
        tuning: Tuning,
        random: Random,
        voter: bool,
        apply: Callable[[LogEntry], None],
        on_join: Callable[[], None],
    ) -> None:
        self._journal = journal
        self.outbox: list[tuple[ManagerId, Message]] = []
        self.progress: dict[ManagerId, Progress] = {}
        self.voter = voter
        self.incoming: IncomingSnapshot | None = None
        self.round = 0
        self._tuning = tuning
        self._sender = Sender(self, journal, snapshots, tuning)
        self._random = random
        self._snapshots = snapshots
        self._apply = apply
        self._on_join = on_join
        self._announce = False
        self._announced_commit = 0
        self._pre_votes: dict[ManagerId, None] | None = None
        self._asked_at = float("-inf")
        self._gave_way: dict[ManagerId, None] = {}
        self._may_stand = False
        self._votes: dict[ManagerId, None] = {}
        self._heard_at = float("-inf")
        self._answered = (0, 0)  # the term and round of the last append that was answered
        self._peers = {}
        self._electors = {}
        self._founding = founding
        self._memberships = MembershipLog(founding)
        self._marks = (0, 0)  # what was committed at the last two heartbeats
        conf = SyncObjConf(
            autoTick=False,
            raftMinTimeout=tuning.election_min_s,
            raftMaxTimeout=tuning.election_max_s,
            appendEntriesPeriod=tuning.beat_s,
            leaderFallbackTimeout=tuning.election_max_s,  # 13: check-quorum at one election timeout
            connectionTimeout=tuning.election_max_s * 2,
            useFork=False,
        )
        super().__init__(Peer(manager_id, 0), [], conf, transport=Letterbox(self.outbox))
        self._poller = NoPoller()
        self._SyncObj__raftLog = journal
        self._SyncObj__raftCurrentTerm = journal.getCurrentTerm()
        self._SyncObj__votedForNodeId = journal.getVotedForNodeId()
        if journal[-1].term > self.term:
            raise StorageFailed("the journal is damaged: it holds an entry of a term that never began", REPAIR_HINT)
        self._adopt_snapshot()
        if not self._electors:
            self.stand_soon()

    @property
    def confirmed_round(self) -> int:
        """The latest heartbeat round that a majority of the voters has answered: at its start, nobody else could have led."""
        rounds = sorted([self.round, *(self.progress[name].round for name in self._electors)])
        return rounds[(len(rounds) - 1) // 2]

    # --- a turn: receive what came, tick, append, replicate ---

    def tick(self) -> None:
        """Elections, the commit rule, check-quorum, and applying what is committed."""
        due = not self.is_leader and self._SyncObj__raftElectionDeadline < syncobj.monotonicTime()
        if due and self._consider_election():
            self._onTick()
        else:
            self._tick_without_election()
        if self.progress and not self.is_leader:
            self._leave_office()

    def _tick_without_election(self) -> None:
        """12: the library compares the deadline with a later clock, and would stand if it passed since we looked."""
        deadline, self._SyncObj__raftElectionDeadline = self._SyncObj__raftElectionDeadline, float("inf")
        self._onTick()
        self._SyncObj__raftElectionDeadline = deadline

    def _leave_office(self) -> None:
        for progress in self.progress.values():
            progress.stop_snapshot()
        self.progress.clear()
        self._postpone_election()

    def append(self, data: bytes, kind: int = COMMANDS) -> LogEntry:
        """A new entry, on the leader (18: the driver gathers commands, so that nothing waits for a heartbeat)."""
        assert self.is_leader
        self._journal.add(bytes((kind,)) + data, self.last_index + 1, self.term)
        return self._journal[-1]

    def replicate(self) -> None:
        """Send what is new: entries, the commit index, a heartbeat that is due."""
        if self.is_leader:
            announce = self._announce or self._announced_commit != self.commit_index
            for name, progress in self.progress.items():
                if self.can_send(name):
                    if self._announce and progress.busy:
                        self.send(name, Beat(self.term, self.round))
                    self._sender.send_new(name, progress, announce)
            self._announce, self._announced_commit = False, self.commit_index

    def beats(self) -> list[tuple[ManagerId, Message]]:
        """To every follower, if this manager leads; they may be sent while the journal is not synced yet."""
        return [(name, Beat(self.term, self.round)) for name in self.progress] if self.is_leader else []

    def begin_round(self) -> int:
        """A heartbeat round that starts now, and that every follower answers; see `confirmed_round`."""
        self.round += 1
        self._announce = True
        return self.round

    def excuse(self, late_s: float) -> None:
        """This process didn't run for so long: what others sent meanwhile waits unread, and is no sign of their silence."""
        now = syncobj.monotonicTime()
        self._SyncObj__raftElectionDeadline = max(self._SyncObj__raftElectionDeadline, now + 2 * self._tuning.beat_s)
        allowance = min(late_s, self._tuning.election_max_s)
        for node in self._SyncObj__lastResponseTime:
            self._SyncObj__lastResponseTime[node] += allowance

    # --- membership (23: ours, since the library's own lets changes overlap) ---

    @property
    def may_change_members(self) -> bool:
        """One change at a time, and none before an entry of the own term is committed: until then this leader may not know
        of the last one (Raft thesis, section 4.1, and the correction of 2015).
        """
        return (
            self.is_leader and self.commit_index >= self.first_own_index and self.commit_index >= self.membership.index
        )

    def change_members(self, members: tuple[Member, ...]) -> None:
        """Put `members` in force, on the leader, which stays a voter."""
        assert self.may_change_members, "one change at a time"
        assert any(member.manager_id == self.selfNode.id and member.voter for member in members), "a leader stays"
        self._memberships.take(self.append(encode_body(members), MEMBERS))
        self._use_membership()

    def standings(self) -> dict[ManagerId, Standing]:
        """What this leader knows of each other member."""
        since = syncobj.monotonicTime() - self._tuning.election_max_s
        return {
            name: Standing(
                answers=progress.heard_at > since,
                filled=progress.filled,
                caught_up=progress.match_index >= self._marks[0],
                match_index=progress.match_index,
            )
            for name, progress in self.progress.items()
        }

    def membership_at(self, index: int) -> Membership | None:
        """What a snapshot up to `index` has to remember; None: the log up to there holds no membership."""
        membership = self._memberships.at(index)
        return membership if membership.index > 0 else None

    def _use_membership(self) -> None:
        """The membership in force has changed. The library counts whom it finds among its other nodes: the voters."""
        self._memberships.forget_before(self.applied_index)
        others = [member for member in self.membership.members if member.manager_id != self.selfNode.id]
        for member in others:
            self._meet(member.manager_id)
        self._electors = {member.manager_id: self._peers[member.manager_id] for member in others if member.voter}
        self._SyncObj__otherNodes = set(self._electors.values())
        log.info("members", manager=self.selfNode.id, voters=self.membership.voters, index=self.membership.index)
        if self.is_leader:
            self._follow_up({member.manager_id: None for member in others})

    def _follow_up(self, others: dict[ManagerId, None]) -> None:
        """The leader's books for those who came and those who went. What a learner acknowledged counts once it votes."""
        for name in [name for name in self.progress if name not in others]:
            self.progress.pop(name).stop_snapshot()
        for name in others:
            self.progress.setdefault(name, Progress(self.last_index + 1))
        matched, answered = self._SyncObj__raftMatchIndex, self._SyncObj__lastResponseTime
        for node in [node for node in matched if node.id not in self._electors]:
            del matched[node]
            answered.pop(node, None)
        for name, node in self._electors.items():
            progress = self.progress[name]
            matched.setdefault(node, progress.match_index if progress.filled else 0)
            answered.setdefault(node, syncobj.monotonicTime())

    def _meet(self, name: ManagerId) -> Peer:
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = Peer(name, len(self._peers) + 1)
        return peer

    # --- connections ---

    def can_send(self, name: ManagerId) -> bool:
        return bool(self.isNodeConnected(self._meet(name)))

    def connected(self, name: ManagerId) -> None:
        """Messages to `name` will arrive, in order, from now on."""
        self._SyncObj__onNodeConnected(self._meet(name))
        if name in self.progress:
            self.progress[name].reset(self.last_index + 1)

    def disconnected(self, name: ManagerId) -> None:
        self._SyncObj__onNodeDisconnected(self._meet(name))

    def lost(self, name: ManagerId) -> None:
        """The connection on which `name` spoke to us has closed. If it led, its process probably died: ask soon."""
        if name == self.leader_id and not self.is_leader:
            self._SyncObj__raftLeader = None
            self._heard_at = float("-inf")
            self.stand_soon()

    def forget_match(self, name: ManagerId) -> None:
        """`name` may have been wiped: what its earlier life acknowledged is not on its disk any more."""
        if name in self.progress:
            self.progress[name].match_index = 0
            self.progress[name].filled = False
        if name in self._electors:
            self._SyncObj__raftMatchIndex[self._electors[name]] = 0

    def join(self) -> None:
        """Become a voter, for good."""
        self._on_join()
        self.voter = True
        log.info("joined", manager=self.selfNode.id, last_index=self.last_index)

    # --- replication, the follower's side ---

    def receive(self, sender: ManagerId, message: Consensus) -> None:
        """Handle one message of a manager whose identity the transport has verified."""
        node = self._meet(sender)
        match message:
            case Append():
                if self._heard_leader(node, message.term):
                    self._on_append(node, message)
            case Beat():
                if self._heard_leader(node, message.term):
                    self.send(node.id, BeatReply(self.term, message.round, self.voter))
            case AppendReply() | AppendRefused() | BeatReply() | SnapshotReply():
                self._on_reply(node, message)
            case SnapshotChunk():
                if self._heard_leader(node, message.term):
                    self._on_chunk(node, message)
            case PreVote():
                self._on_pre_vote(node, message)
            case PreVoteReply():
                self._on_pre_vote_reply(node, message)
            case RequestVote():
                self._on_request_vote(node, message)
            case Vote():
                self._on_vote(node, message)
            case StandNow():
                self._on_stand_now(node, message)
            case Outdated():
                if message.term > self.term:
                    self._step_down(message.term)

    def _on_append(self, node: Peer, message: Append) -> None:
        base = self._journal[0].index
        # What lies at or before the base is committed, and so the same in every log; it need not be looked at.
        known = max(0, base - message.prev_index)
        prev_index, entries = message.prev_index + known, message.entries[known:]
        if prev_index > self.last_index:
            self._refuse(node, message, self.last_index + 1)
        elif not known and self.term_at(prev_index) != message.prev_term:
            self._refuse(node, message, self._first_index_of_term_at(prev_index))
        else:
            match_index = message.prev_index + len(message.entries)
            self._take_entries(prev_index, entries)
            # 10: nothing beyond what this very message has matched is known to be the leader's.
            self._SyncObj__raftCommitIndex = max(self.commit_index, min(message.commit_index, match_index))
            if message.entries or self._answered != (self.term, message.round):
                # Without entries and of a round that was answered, it only tells the commit index.
                self._answered = (self.term, message.round)
                self.send(node.id, AppendReply(self.term, match_index, message.round, self.voter))  # 8

    def _take_entries(self, prev_index: int, entries: list[Entry]) -> None:
        """7: entries that are here already stay; only a real conflict cuts the log, and never what is committed."""
        changed = False
        for number, entry in enumerate(entries):
            index = prev_index + 1 + number
            if index <= self.last_index:
                if self.term_at(index) == entry.term:
                    continue
                if index <= self.commit_index:
                    raise ConsensusBroken(f"a leader contradicts the committed entry {index}", REPAIR_HINT)
                self._journal.deleteEntriesFrom(index - self._journal[0].index)
                changed |= self._memberships.cut_after(index - 1)
            self._journal.add(entry.data, index, entry.term)
            changed |= self._memberships.take(self._journal[-1])
        if changed:
            self._use_membership()

    def _refuse(self, node: Peer, message: Append, hint: int) -> None:
        if message.prev_index <= self.commit_index:
            raise ConsensusBroken(f"a leader contradicts the committed entry {message.prev_index}", REPAIR_HINT)
        self.send(node.id, AppendRefused(self.term, message.prev_index, hint, message.round, self.voter))

    def _first_index_of_term_at(self, index: int) -> int:
        """9: all entries of a conflicting term are skipped at once (Raft paper, end of section 5.3)."""
        term = self.term_at(index)
        while index - 1 > self.commit_index and self.term_at(index - 1) == term:
            index -= 1
        return index

    def _on_chunk(self, node: Peer, message: SnapshotChunk) -> None:
        if message.index <= self.commit_index:
            self._answer_snapshot(node.id, message.index, message.round, received=message.size, done=True)  # 10
            return
        incoming = self.incoming
        if incoming is None or not incoming.is_of(message.index, message.index_term, message.size):
            if incoming is not None and incoming.complete:
                return  # being installed; the leader will ask again
            self.drop_incoming()
            incoming = None
        try:
            if incoming is None:
                incoming = self._snapshots.receive(message.index, message.index_term, message.size)
                self.incoming = incoming
            incoming.add(message.offset, message.data)
        except OSError as error:
            log.error("snapshot_not_received", index=message.index, error=str(error))
            self.drop_incoming()
            return
        self._answer_snapshot(node.id, message.index, message.round, received=incoming.received, done=False)

    def _answer_snapshot(self, name: ManagerId, index: int, round_: int, *, received: int, done: bool) -> None:
        self.send(name, SnapshotReply(self.term, index, received, done, round_, self.voter))

    def drop_incoming(self) -> None:
        if self.incoming is not None:
            self.incoming.abandon()
            self.incoming = None

    def install(self) -> None:
        """The store's latest snapshot is durable and its state is in place: go on from there."""
        self._adopt_snapshot()
        self.incoming = None
        if self.leader_id is not None and not self.is_leader:
            self._answer_snapshot(self.leader_id, self.applied_index, 0, received=0, done=True)

    def _adopt_snapshot(self) -> None:
        """5: entries after the snapshot stay if the log agrees with it at its index; else it replaces the log."""
        snapshot, base = self._snapshots.latest, self._journal[0]
        index, term = (snapshot.index, snapshot.term) if snapshot else (FIRST_INDEX, 0)
        if base.index > index:
            raise StorageFailed(
                f"the journal begins after entry {base.index}, but there is no snapshot of what was before", REPAIR_HINT
            )
        if index > self.last_index or self.term_at(index) != term:
            self._journal.reset(index, term)
        self._SyncObj__raftLastApplied = max(index, FIRST_INDEX)
        self._SyncObj__raftCommitIndex = max(self.commit_index, index)
        self._memberships = MembershipLog((snapshot and snapshot.membership) or self._founding)
        for entry in self._journal[max(0, index - self._journal[0].index) + 1 :]:
            self._memberships.take(entry)
        self._use_membership()

    def compact(self, upto: int) -> None:
        """Forget entries up to `upto`, which a durable snapshot covers (4)."""
        position = upto - self._journal[0].index
        if position > 0:
            self._journal.deleteEntriesTo(position)

    # --- replication, the leader's side ---

    def _on_reply(self, node: Peer, message: AppendReply | AppendRefused | BeatReply | SnapshotReply) -> None:
        if message.term > self.term:
            self._step_down(message.term)
            return
        progress = self.progress.get(node.id)
        # 8: an acknowledgement counts in its own term only.
        if progress is None or message.term != self.term or not self.is_leader:
            return
        progress.filled, progress.heard_at = message.voter, syncobj.monotonicTime()
        counts = message.voter and node.id in self._electors
        if counts:
            progress.round = max(progress.round, message.round)
            self._SyncObj__lastResponseTime[node] = progress.heard_at
        match message:
            case AppendReply():
                if message.match_index > self.last_index:
                    raise ConsensusBroken(f"{node.id} acknowledges an entry that was never sent", REPAIR_HINT)
                progress.matched(message.match_index)
                if counts:
                    self._SyncObj__raftMatchIndex[node] = progress.match_index
            case AppendRefused():
                progress.refused(message.prev_index, message.hint)  # 9, 25
            case SnapshotReply():
                progress.snapshot_reply(message.index, message.received, message.done, message.round)

    # --- overrides of the library ---

    def __dir__(self) -> list[str]:
        """16: the library numbers the replicated methods that it finds here. There are none; an entry is bytes to it."""
        return []

    def _SyncObj__onBecomeLeader(self) -> None:
        others = [member.manager_id for member in self.membership.members if member.manager_id != self.selfNode.id]
        self.progress = {name: Progress(self.last_index + 1) for name in others}
        self._SyncObj__raftMatchIndex.clear()  # of another term, and maybe of who was a learner then
        self._marks = (self.last_index, self.last_index)
        super()._SyncObj__onBecomeLeader()

    def _SyncObj__sendAppendEntries(self) -> None:
        """The library says that a heartbeat is due; it goes out at the end of the turn, with whatever else is new."""
        self._SyncObj__newAppendEntriesTime = syncobj.monotonicTime() + self._tuning.beat_s
        self._marks = (self._marks[1], self.commit_index)
        self.begin_round()

    def _SyncObj__applyLogEntries(self) -> bool:
        """15: an exception stops the engine; it is never tried again, and no callback runs inside. In slices, for the loop."""
        deadline = syncobj.monotonicTime() + self._tuning.apply_slice_s
        while self.applied_index < self.commit_index:
            index = self.applied_index + 1
            self._apply(self._journal[index - self._journal[0].index])
            self._SyncObj__raftLastApplied = index
            if syncobj.monotonicTime() > deadline:
                break
        return False

    def _SyncObj__tryLogCompaction(self) -> None:
        """20, 21: the driver takes snapshots, without a fork and without stopping the loop."""

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        raise AssertionError("5, 6: snapshots are the store's")

    def _checkCommandsToApply(self) -> None:
        """The library's command queue is not used; entries come from `append`."""

    def _applyCommand(self, command: bytes, callback: object, commandType: object = None) -> None:
        raise AssertionError("14, 23, 24: no pickled commands, no membership or version changes by the library's ways")
