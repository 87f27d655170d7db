"""Mutants: the bugs that consensus is known to have had, here or elsewhere, each put back by a switch.

A mutant takes one mend away. `seeds` is within how many runs the simulation must find it, and `profile` biases those runs
to what the bug needs; the product itself passes the same runs. The numbers are the faults of docs/adr/0008.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from pysyncobj import syncobj

from hasched.raft.core import Core
from hasched.raft.driver import Driver
from hasched.raft.elections import Elections
from hasched.raft.engine import Engine
from hasched.raft.identity import DataDirectory
from hasched.raft.journal import Journal
from hasched.raft.messages import AppendReply
from hasched.raft.proposals import Proposals
from hasched.raft.segments import VOTE, iterate_records
from hasched.raft.snapshots import SnapshotStore, SnapshotWriter
from tests.simulation.patches import Patches


class Mutant(NamedTuple):
    name: str
    undoes: str
    profile: str
    seeds: int
    likely: int  # of those seeds the one that caught it last, which is tried first
    install: Callable[[Patches], None]


MUTANTS: dict[str, Mutant] = {}

Install = Callable[[Patches], None]


def mutant(
    name: str, undoes: str, *, profile: str = "any", seeds: int = 30, likely: int = 1
) -> Callable[[Install], Install]:
    def register(install: Install) -> Install:
        assert name not in MUTANTS and 1 <= likely <= seeds, name
        MUTANTS[name] = Mutant(name, undoes, profile, seeds, likely, install)
        return install

    return register


# --- the disk ---


@mutant("vote-not-synced", "2: the term and the vote are on disk before anybody hears of them", profile="power")
def _vote_not_synced(patches: Patches) -> None:
    def only_votes(note: object) -> bool:
        return isinstance(note, bytes) and all(kind == VOTE for kind, _ in iterate_records(note))

    patches.set(Journal, "dirty", property(lambda self: not all(map(only_votes, self._notes))))


@mutant("journal-not-synced", "1: what is answered is on disk", profile="power")
def _journal_not_synced(patches: Patches) -> None:
    """As the library is shipped."""

    class Unsynced:
        """A segment whose frames stay with the kernel."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def __getattr__(self, name: str) -> Any:
            return (lambda: None) if name == "sync" else getattr(self._file, name)

    def write_unsynced(write: Any) -> Any:
        def write_frame(self: Journal, payload: bytes) -> None:
            self._file = Unsynced(self._file)
            try:
                write(self, payload)
            finally:
                self._file = self._file._file

        return write_frame

    patches.wrap(Journal, "_write_frame", write_unsynced)


@mutant("synced-after-answer", "1: the journal is synced before any message of the turn leaves", profile="power")
def _synced_after_answer(patches: Patches) -> None:
    def release_early(sync: Any) -> Any:
        async def sync_late(self: Driver) -> None:
            self._release(self._core.take_outbox())
            await sync(self)

        return sync_late

    patches.wrap(Driver, "_sync", release_early)


@mutant(
    "sync-error-ignored", "a failed sync ends the manager: the kernel has marked the pages clean", profile="sync-errors"
)
def _sync_error_ignored(patches: Patches) -> None:
    patches.set(Journal, "_fail", lambda self, error: None)


@mutant("snapshot-not-durable", "4: the journal is trimmed only once the snapshot is durable", profile="snapshots")
def _snapshot_not_durable(patches: Patches) -> None:
    class Hasty:
        """A file that is never synced."""

        def __init__(self, file: Any) -> None:
            self.append, self.close = file.append, file.close

        def sync(self) -> None:
            pass

    def without_sync(finish: Any) -> Any:
        def finish_hastily(self: SnapshotWriter) -> None:
            self._file = Hasty(self._file)
            finish(self)

        return finish_hastily

    patches.wrap(SnapshotWriter, "finish", without_sync)


@mutant("journal-thrown-away", "5: entries after the snapshot stay when the log agrees with it", profile="snapshots")
def _journal_thrown_away(patches: Patches) -> None:
    def throw_away(adopt: Any) -> Any:
        def adopt_snapshot(self: Engine) -> None:
            latest = self._snapshots.latest
            if latest is not None and latest.index != self._journal[0].index:
                self._journal.reset(latest.index, latest.term)
            adopt(self)

        return adopt_snapshot

    patches.wrap(Engine, "_adopt_snapshot", throw_away)


@mutant("wiped-disk-votes", "ADR 0009: a blank disk has no vote", profile="wipes")
def _wiped_disk_votes(patches: Patches) -> None:
    def vote_at_once(found: Any) -> Any:
        def found_voter(self: DataDirectory, *arguments: Any) -> Any:
            identity = found(self, *arguments)
            self.become_voter()
            return self.identity or identity

        return found_voter

    patches.wrap(DataDirectory, "_found", vote_at_once)


# --- replication ---


@mutant("prior-term-commit", "only entries of the current term are counted (Raft paper, figure 8)", profile="figure-8")
def _prior_term_commit(patches: Patches) -> None:
    def count_all(tick: Any) -> Any:
        def tick_counting_all(self: Engine) -> None:
            if self.is_leader:
                matched = sorted([self.last_index, *self._SyncObj__raftMatchIndex.values()])
                majority = matched[(len(matched) - 1) // 2]
                self._SyncObj__raftCommitIndex = max(self.commit_index, majority)
            tick(self)

        return tick_counting_all

    patches.wrap(Engine, "tick", count_all)


@mutant("matching-entries-cut", "7: the log is cut only at a real conflict", profile="echo")
def _matching_entries_cut(patches: Patches) -> None:
    def cut_first(take: Any) -> Any:
        def take_entries(self: Engine, prev_index: int, entries: list[Any]) -> None:
            if prev_index < self.last_index:
                self._journal.deleteEntriesFrom(prev_index + 1 - self._journal[0].index)
            take(self, prev_index, entries)

        return take_entries

    patches.wrap(Engine, "_take_entries", cut_first)


@mutant(
    "stale-snapshot-installed", "10: a newer state is never replaced by an older snapshot", profile="echo-snapshots"
)
def _stale_snapshot_installed(patches: Patches) -> None:
    def believe(on_chunk: Any) -> Any:
        def on_any_chunk(self: Engine, node: Any, message: Any) -> None:
            commit_index, self._SyncObj__raftCommitIndex = self._SyncObj__raftCommitIndex, 0
            try:
                on_chunk(self, node, message)
            finally:
                self._SyncObj__raftCommitIndex = commit_index

        return on_any_chunk

    def publish(self: SnapshotStore, path: Any) -> Any:
        self.latest = None
        return published(self, path)

    def install(self: Core, index: int, state: Any) -> None:
        self.state = state
        self.engine._SyncObj__raftCommitIndex = index
        self.engine.install()
        self._snapshot_taken(index)

    published = SnapshotStore.publish
    patches.wrap(Engine, "_on_chunk", believe)
    patches.set(SnapshotStore, "publish", publish)
    patches.set(Core, "install", install)


@mutant(
    "acknowledgement-without-term",
    "8: an acknowledgement carries its term, and the exact index that was matched",
    profile="elections",
)
def _acknowledgement_without_term(patches: Patches) -> None:
    """As in the library: it says how much the follower has, of whatever leader."""

    def whatever_is_here(send: Any) -> Any:
        def send_what_is_here(self: Engine, name: str, message: Any) -> None:
            if isinstance(message, AppendReply):
                message = msgspec.structs.replace(message, match_index=self.last_index)
            send(self, name, message)

        return send_what_is_here

    def whatever_term(on_reply: Any) -> Any:
        def on_any_reply(self: Engine, node: Any, message: Any) -> None:
            if isinstance(message, AppendReply) and message.term <= self.term:
                match_index = min(message.match_index, self.last_index)
                message = msgspec.structs.replace(message, term=self.term, match_index=match_index)
            on_reply(self, node, message)

        return on_any_reply

    patches.wrap(Engine, "send", whatever_is_here)
    patches.wrap(Engine, "_on_reply", whatever_term)


@mutant(
    "huge-entries", "19: the size of an entry is capped, so that it never blocks heartbeats", profile="narrow-links"
)
def _huge_entries(patches: Patches) -> None:
    def fit(self: Proposals, commands: Any, offset: int, _size: int, _number: int) -> tuple[int, int]:
        rest = commands[offset:]
        return len(rest), sum(map(len, rest))

    patches.set(Proposals, "_fit", fit)


# --- elections and reads ---


@mutant("no-pre-vote", "12: nobody begins a term before a majority would vote in it", profile="followers-cut")
def _no_pre_vote(patches: Patches) -> None:
    def stand(self: Elections) -> bool:
        return self.voter

    patches.set(Elections, "_consider_election", stand)


@mutant("no-check-quorum", "13: a leader that no majority answers steps down", profile="leaders-cut")
def _no_check_quorum(patches: Patches) -> None:
    def always_answered(tick: Any) -> Any:
        def tick_in_trust(self: Engine) -> None:
            now = syncobj.monotonicTime()
            for node in self._SyncObj__lastResponseTime:
                self._SyncObj__lastResponseTime[node] = now
            tick(self)

        return tick_in_trust

    patches.wrap(Engine, "tick", always_answered)


@mutant(
    "stale-read",
    "a leader confirms with a majority that it still leads before it answers a read",
    profile="leaders-cut",
)
def _stale_read(patches: Patches) -> None:
    patches.set(Engine, "confirmed_round", property(lambda self: self.round))
