"""The sender: what a leader sends to each follower, next to nothing while it looks for the place, then everything."""

from __future__ import annotations

from typing import Protocol

import structlog

from hasched.model.ids import ManagerId
from hasched.raft.journal import Journal, LogEntry
from hasched.raft.messages import Append, Entry, Message, SnapshotChunk
from hasched.raft.progress import Progress
from hasched.raft.snapshots import IncomingSnapshot, OutgoingSnapshot, Snapshot
from hasched.raft.tuning import Tuning

log = structlog.get_logger(__name__)


class Snapshots(Protocol):
    """What the engine needs of a snapshot store."""

    @property
    def latest(self) -> Snapshot | None: ...
    def send(self, snapshot: Snapshot) -> OutgoingSnapshot: ...
    def receive(self, index: int, term: int, size: int) -> IncomingSnapshot: ...


class Office(Protocol):
    """What a sender needs of its engine. `round` is the heartbeat round that goes into each message."""

    round: int

    @property
    def term(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    def term_at(self, index: int) -> int: ...
    def send(self, name: ManagerId, message: Message) -> None: ...


class Sender:
    """`send_new` sends what a follower lacks, as far as windows allow."""

    def __init__(self, office: Office, journal: Journal, snapshots: Snapshots, tuning: Tuning) -> None:
        self._office = office
        self._journal = journal
        self._snapshots = snapshots
        self._tuning = tuning

    def send_new(self, name: ManagerId, progress: Progress, announce: bool) -> None:
        """With `announce` it is sent at least the commit index and the round."""
        if progress.snapshot is not None or progress.next_index <= self._journal[0].index:
            self._send_snapshot(name, progress, announce)
        elif progress.probing:
            if announce or progress.impatient:
                progress.impatient = False
                self._office.round += 1  # so that it is answered
                self._send_entries(name, progress, [])
        else:
            self._stream(name, progress, announce)

    def _stream(self, name: ManagerId, progress: Progress, announce: bool) -> None:
        while progress.next_index <= self._office.last_index and progress.inflight_bytes < self._tuning.inflight_bytes:
            entries = self._gather(progress.next_index)
            self._send_entries(name, progress, entries)
            progress.sent(entries[-1].index, sum(len(entry.data) for entry in entries))
            announce = False
        if announce:
            self._send_entries(name, progress, [])

    def _gather(self, index: int) -> list[LogEntry]:
        """19: whole entries, about `append_bytes` of them and at least one; none is ever sent in pieces."""
        position = index - self._journal[0].index
        size, end = 0, position
        while end < len(self._journal) and (end == position or size < self._tuning.append_bytes):
            size += len(self._journal[end].data)
            end += 1
        return self._journal[position:end]

    def _send_entries(self, name: ManagerId, progress: Progress, entries: list[LogEntry]) -> None:
        office, prev_index = self._office, progress.next_index - 1
        travelling = [Entry(entry.term, entry.data) for entry in entries]
        prev_term = office.term_at(prev_index)
        office.send(name, Append(office.term, office.commit_index, prev_index, prev_term, travelling, office.round))

    def _send_snapshot(self, name: ManagerId, progress: Progress, announce: bool) -> None:
        """10: each chunk says what it is a part of. A heartbeat is a chunk without data."""
        if progress.snapshot is None:
            assert self._snapshots.latest is not None, "the log was cut only after a snapshot"
            progress.snapshot = self._snapshots.send(self._snapshots.latest)
            log.info("snapshot_sending", to=name, index=progress.snapshot.snapshot.index)
        outgoing = progress.snapshot
        window = self._tuning.chunk_window * self._tuning.chunk_bytes
        while outgoing.sent < outgoing.snapshot.size and outgoing.sent - outgoing.acknowledged < window:
            self._send_chunk(name, outgoing, self._tuning.chunk_bytes)
            announce = False
        if announce:
            self._office.round += 1
            outgoing.asks(self._office.round)
            self._send_chunk(name, outgoing, 0)

    def _send_chunk(self, name: ManagerId, outgoing: OutgoingSnapshot, count: int) -> None:
        office, snapshot, offset = self._office, outgoing.snapshot, outgoing.sent
        data = outgoing.read(count)
        office.send(
            name,
            SnapshotChunk(office.term, snapshot.index, snapshot.term, snapshot.size, offset, data, office.round),
        )
