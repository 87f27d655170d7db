"""One engine alone, on a virtual clock; the test plays its peers."""

from __future__ import annotations

from random import Random

from pysyncobj import syncobj

from hasched.raft.engine import Engine
from hasched.raft.journal import Journal
from hasched.raft.membership import Member, Membership, sort_members
from hasched.raft.messages import Append, Entry, PreVoteReply, Vote
from hasched.raft.snapshots import SnapshotStore
from hasched.raft.tuning import Tuning

TUNING = Tuning(append_bytes=50)


def members(*voters: str, learners: tuple[str, ...] = ()) -> Membership:
    """As a configuration file names them."""
    named = [Member(name, f"https://{name}:1", f"{name}:1", name in voters) for name in (*voters, *learners)]
    return Membership(sort_members(named))


class Bench:
    """One engine on a virtual clock; the test plays its peers."""

    def __init__(self, path, monkeypatch, voter: bool = True, peers: tuple[str, ...] = ("m2", "m3")) -> None:
        self.now = 100.0
        self.clock_step = 0.0  # between two readings of the clock
        self.peers = peers
        self.path = path
        self.applied: list[tuple[int, bytes]] = []
        monkeypatch.setattr(syncobj, "monotonicTime", self.read_clock)
        self.open(voter)

    def read_clock(self) -> float:
        self.now += self.clock_step
        return self.now

    def open(self, voter: bool = True) -> Engine:
        self.journal = Journal(self.path / "journal", 1 << 20)
        self.store = SnapshotStore(self.path / "snapshots", "c")
        self.engine = Engine(
            "m1",
            members("m1", *self.peers),
            journal=self.journal,
            snapshots=self.store,
            tuning=TUNING,
            random=Random(7),
            voter=voter,
            apply=lambda entry: self.applied.append((entry.index, entry.data)),
            on_join=lambda: None,
        )
        for peer in self.peers:
            self.engine.connected(peer)
        return self.engine

    def restart(self) -> Engine:
        self.journal.close()
        return self.open()

    def turn(self, seconds: float = 0.0) -> list[tuple[str, object]]:
        """What the engine sends in a turn, once its journal is synced."""
        self.now += seconds
        self.engine.tick()
        self.engine.replicate()
        self.journal.flush()
        return self.sent()

    def sent(self) -> list[tuple[str, object]]:
        sent = self.engine.outbox[:]
        self.engine.outbox.clear()
        return sent

    def hear(self, peer: str, message) -> list[tuple[str, object]]:
        self.engine.receive(peer, message)
        return self.turn()

    def elect(self) -> None:
        """m1 wins an election with the vote of m2."""
        self.turn(1.0)
        self.hear("m2", PreVoteReply(self.engine.term, self.engine.term + 1, True))
        self.hear("m2", Vote(self.engine.term))
        assert self.engine.is_leader

    def follow(self, term: int = 1, count: int = 5, commit: int = 1, leader: str = "m2") -> None:
        """`leader` leads in `term` and has sent `count` entries after the first."""
        entries = [Entry(term, b"\x00entry %d" % n) for n in range(2, 2 + count)]
        self.hear(leader, Append(term, commit, 1, 0, entries, 1))
