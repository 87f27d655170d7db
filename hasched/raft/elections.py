"""Elections: who may stand when, over pysyncobj's rule of who may vote for whom. Numbers in comments are its faults,
as in docs/adr/0008-consensus-engine.md.
"""

from __future__ import annotations

from random import Random

from pysyncobj import syncobj
from pysyncobj.syncobj import SyncObj

from hasched.model.errors import HaschedError
from hasched.model.ids import ManagerId
from hasched.raft.journal import FIRST_INDEX, Journal
from hasched.raft.membership import Membership, MembershipLog
from hasched.raft.messages import Message, Outdated, PreVote, PreVoteReply, RequestVote, StandNow, Vote
from hasched.raft.segments import REPAIR_HINT
from hasched.raft.surroundings import Peer
from hasched.raft.tuning import Tuning

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2  # pysyncobj's
ROLES = ("follower", "candidate", "leader")


class ConsensusBroken(HaschedError):
    """What Raft proves can't happen has happened: two histories, or two leaders of one term. The manager stops."""

    code = "consensus_broken"


class Elections(SyncObj):  # type: ignore[misc]
    """The part of an `Engine` that knows its term, its role and its leader, and changes them."""

    outbox: list[tuple[ManagerId, Message]]
    voter: bool
    _journal: Journal
    _tuning: Tuning
    _random: Random
    _peers: dict[ManagerId, Peer]  # every manager that was met, member or not
    _electors: dict[ManagerId, Peer]  # the other voters
    _memberships: MembershipLog
    _pre_votes: dict[ManagerId, None] | None
    _asked_at: float
    _gave_way: dict[ManagerId, None]
    _may_stand: bool
    _votes: dict[ManagerId, None]
    _heard_at: float

    _SyncObj__raftState: int
    _SyncObj__raftCurrentTerm: int
    _SyncObj__raftLeader: Peer | None
    _SyncObj__raftElectionDeadline: float
    _SyncObj__raftCommitIndex: int
    _SyncObj__raftLastApplied: int
    _SyncObj__newAppendEntriesTime: float
    _SyncObj__noopIDx: int | None

    # --- what a manager sees ---

    @property
    def term(self) -> int:
        return self._SyncObj__raftCurrentTerm

    @property
    def role(self) -> str:
        return ROLES[self._SyncObj__raftState]

    @property
    def is_leader(self) -> bool:
        return self._SyncObj__raftState == LEADER

    @property
    def leader_id(self) -> ManagerId | None:
        leader = self._SyncObj__raftLeader
        return None if leader is None else leader.id

    @property
    def last_index(self) -> int:
        return self._journal[-1].index

    @property
    def commit_index(self) -> int:
        return self._SyncObj__raftCommitIndex

    @property
    def applied_index(self) -> int:
        return self._SyncObj__raftLastApplied

    @property
    def applied_term(self) -> int:
        return self.term_at(self.applied_index)

    @property
    def first_own_index(self) -> int:
        """Of the no-op with which this leader's term began: once it is committed, so is all before it. 0: it never led."""
        return self._SyncObj__noopIDx or 0

    @property
    def is_blank(self) -> bool:
        return self.term == 0 and self.last_index == FIRST_INDEX

    @property
    def membership(self) -> Membership:
        """The one in force."""
        return self._memberships.in_force

    @property
    def committed_membership(self) -> Membership:
        """The latest that is known to be committed."""
        return self._memberships.at(self.commit_index)

    @property
    def eligible(self) -> bool:
        """Whether this member may stand: it votes by the membership in force, and its disk was not wiped."""
        return self.voter and self.membership.has_voter(self.selfNode.id)

    @property
    def has_electors(self) -> bool:
        """Whether this member needs others to be elected or to commit."""
        return bool(self._electors)

    @property
    def wake_at(self) -> float:
        """When `tick` is due next, on the engine's clock, if no message comes before."""
        if self.is_leader:
            return self._SyncObj__newAppendEntriesTime
        return self._SyncObj__raftElectionDeadline

    def term_at(self, index: int) -> int:
        return self._journal[index - self._journal[0].index].term

    def send(self, name: ManagerId, message: Message) -> None:
        self.outbox.append((name, message))

    # --- elections ---

    def stand_soon(self, share: float = 1) -> None:
        """There is probably no leader: ask for votes without waiting for one to be silent long enough."""
        soon = syncobj.monotonicTime() + self._random.uniform(0.1, 1) * share * self._tuning.orphaned_s
        self._SyncObj__raftElectionDeadline = min(self._SyncObj__raftElectionDeadline, soon)

    def _consider_election(self) -> bool:
        """12: nobody starts a term before a majority has said that it would vote in it. Whether the library may stand."""
        won = self._may_stand
        self._may_stand = False
        if self.eligible and (won or not self._electors):
            return True
        self._SyncObj__raftLeader = None
        now = syncobj.monotonicTime()
        self._SyncObj__raftElectionDeadline = now + self._random.uniform(1, 3) * self._tuning.orphaned_s
        if self.eligible:
            self._pre_votes, self._asked_at = {}, now
            last = self._journal[-1]
            for name in self._electors:
                self.send(name, PreVote(self.term + 1, last.index, last.term))
        return False

    def _on_pre_vote(self, node: Peer, message: PreVote) -> None:
        last = self._journal[-1]
        content = self.is_leader or syncobj.monotonicTime() - self._heard_at < self._tuning.election_min_s
        considered = self.voter and not content and message.term > self.term
        granted = considered and (message.last_term, message.last_index) >= (last.term, last.index)
        if granted:
            self._give_way(node)
        elif considered and not self._gave_way:
            self.stand_soon(0.25)  # who asks can't win, and we may
        self.send(node.id, PreVoteReply(self.term, message.term, granted))

    def _give_way(self, node: Peer) -> None:
        """Let `node` try first, so that two don't share the votes between them.

        Once only until there is a leader or a new term: it may reach too few to win, and we may reach enough. Of two that
        ask at the same time, one gives way.
        """
        now = syncobj.monotonicTime()
        both_ask = self._pre_votes is not None and now - self._asked_at < self._tuning.orphaned_s
        if node.id in self._gave_way or (both_ask and node.id < self.selfNode.id):
            return
        self._gave_way[node.id] = None
        self._pre_votes = None
        later = now + self._tuning.election_min_s
        self._SyncObj__raftElectionDeadline = max(self._SyncObj__raftElectionDeadline, later)

    def _on_pre_vote_reply(self, node: Peer, message: PreVoteReply) -> None:
        if message.term > self.term:
            self._step_down(message.term)
        elif self._pre_votes is not None and message.granted and message.asked == self.term + 1:
            self._pre_votes |= {node.id: None} if node.id in self._electors else {}
            if 2 * (len(self._pre_votes) + 1) > len(self._electors) + 1:
                self._pre_votes = None
                self._may_stand = True
                self._SyncObj__raftElectionDeadline = syncobj.monotonicTime() - 1

    def _on_request_vote(self, node: Peer, message: RequestVote) -> None:
        if message.term < self.term:
            self.send(node.id, Outdated(self.term))  # 11
        elif self.voter:
            self._pass_to_library(
                node,
                type="request_vote",
                term=message.term,
                last_log_index=message.last_index,
                last_log_term=message.last_term,
            )

    def _on_vote(self, node: Peer, message: Vote) -> None:
        """A vote counts once, however often it is delivered, and only that of a voter."""
        if message.term == self.term and node.id in self._electors and node.id not in self._votes:
            self._votes[node.id] = None
            self._pass_to_library(node, type="response_vote", term=message.term)

    def _on_stand_now(self, node: Peer, message: StandNow) -> None:
        """The leader hands over to us, so there is nobody to ask whether they still hear it (Raft thesis, section 3.10).

        At once: another heartbeat of its term must not come between.
        """
        if message.term == self.term and node.id == self.leader_id and not self.is_leader and self.eligible:
            self._SyncObj__raftElectionDeadline = syncobj.monotonicTime() - 1
            self._onTick()

    def _pass_to_library(self, node: Peer, **message: object) -> None:
        self._SyncObj__onMessageReceived(node, message)

    def _postpone_election(self) -> None:
        self._SyncObj__raftElectionDeadline = syncobj.monotonicTime() + self._SyncObj__generateRaftTimeout()

    def _step_down(self, term: int) -> None:
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(FOLLOWER)
        self._SyncObj__raftLeader = None
        self._postpone_election()

    def _heard_leader(self, node: Peer, term: int) -> bool:
        """Whether `node` leads in our term, or in a newer one that we then enter."""
        if term < self.term:
            self.send(node.id, Outdated(self.term))  # 11: or it would never learn
            return False
        if term > self.term:
            self._SyncObj__setCurrentTerm(term, None)
        elif self.is_leader:
            raise ConsensusBroken(f"{node.id} leads in term {term}, and so do we", REPAIR_HINT)
        self._SyncObj__setState(FOLLOWER)
        self._SyncObj__raftLeader = node
        self._heard_at = syncobj.monotonicTime()
        self._pre_votes, self._may_stand = None, False
        self._gave_way.clear()
        self._postpone_election()
        return True

    # --- overrides of the library ---

    def _SyncObj__setCurrentTerm(self, term: int, voted_for: ManagerId | None) -> None:
        if term != self.term:
            self._votes.clear()
            self._gave_way.clear()
            self._pre_votes, self._may_stand = None, False
        super()._SyncObj__setCurrentTerm(term, voted_for)

    def _SyncObj__generateRaftTimeout(self) -> float:
        """22: from our own source of randomness."""
        return self._random.uniform(self._tuning.election_min_s, self._tuning.election_max_s)
