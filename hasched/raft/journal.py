"""The journal: entries, term and vote on disk, under one sync.

What `flush` has returned from is durable. The engine adds and cuts entries in memory; each call also notes what the
disk must hear, and `flush`, in a worker thread, writes all notes of a turn as one frame and syncs it. The driver lets
no message out before that.

It has the interface of pysyncobj's journals, with one difference: the entry at position 0 is the base, the last entry
that is no longer held (faults 1 to 5). Cutting a conflicting tail, and a reset after a snapshot was installed, each
begin a new segment, so that no file is ever changed but at its end.

A process that was killed may have written what it never synced, and the next one reads it as if it were on disk. So
nothing counts that was read before it is made durable again: opening syncs the directory, and writes the last frame,
the only one that can be in doubt, once more. (A sync alone would not do: one that failed leaves clean pages behind.)
"""

from __future__ import annotations

import errno
import struct
from pathlib import Path
from random import Random, SystemRandom
from typing import NamedTuple, overload

import structlog

from hasched.model.errors import StorageFailed
from hasched.raft.disk import Disk, File, LocalDisk
from hasched.raft.segments import (
    ENTRY,
    FORMAT,
    REPAIR_HINT,
    VOTE,
    SegmentHeader,
    SegmentReader,
    create_segment,
    encode_frame,
    encode_record,
    iterate_records,
    list_segments,
)

FIRST_INDEX = 1  # of the base of an empty log; the first real entry has index 2
NO_COMMAND = b"\x01"  # pysyncobj's no-op, which the base of a log is to the engine

_POSITION = struct.Struct("<QQ")  # index or unused, term

log = structlog.get_logger(__name__)


class LogEntry(NamedTuple):
    data: bytes
    index: int  # type: ignore[assignment]  # it shadows tuple.index, which nobody calls
    term: int


class DiskFull(Exception):
    """Nothing was written. What was to be written is still held, and `flush` may be called again."""


class _Roll(NamedTuple):
    """Begin a new segment after the entry at `prev_index`."""

    prev_index: int
    prev_term: int
    reset: bool


class _Drop(NamedTuple):
    """Unlink what lies wholly before the entry at `upto`."""

    upto: int


class _Segment(NamedTuple):
    path: Path
    number: int
    prev_index: int


class Journal:
    """The log of one manager in `directory`. Raises StorageFailed if what lies there is damaged."""

    def __init__(
        self, directory: Path, segment_bytes: int, *, disk: Disk | None = None, random: Random | None = None
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._disk = disk or LocalDisk()
        self._random = random or SystemRandom()
        self._entries: list[LogEntry] = [LogEntry(NO_COMMAND, FIRST_INDEX, 0)]
        self._term = 0
        self._voted_for: str | None = None
        self._notes: list[bytes | _Roll | _Drop] = []
        self._segments: list[_Segment] = []
        self._file: File | None = None
        self._salt = 0
        self._sequence = 0
        self._disk_last = (FIRST_INDEX, 0)  # the last entry that the disk knows, once all notes are written
        self._disk_vote: tuple[int, str | None] = (0, None)
        self._broken = False
        self._open()

    # --- the interface that pysyncobj knows ---

    def add(self, data: bytes, index: int, term: int) -> None:
        assert index == self._entries[-1].index + 1, "entries are added in order"
        self._entries.append(LogEntry(data, index, term))
        self._notes.append(encode_record(ENTRY, _POSITION.pack(index, term) + data))

    def deleteEntriesFrom(self, position: int) -> None:
        assert position > 0, "the base stays"
        if position < len(self._entries):
            del self._entries[position:]
            last = self._entries[-1]
            self._notes.append(_Roll(last.index, last.term, reset=False))

    def deleteEntriesTo(self, position: int) -> None:
        """The entry at `position` becomes the base. Only after a snapshot that covers it is durable (fault 4)."""
        if position > 0:
            base = self._entries[position]
            self._entries[: position + 1] = [LogEntry(NO_COMMAND, base.index, base.term)]
            self._notes.append(_Drop(base.index))

    @overload
    def __getitem__(self, position: int) -> LogEntry: ...
    @overload
    def __getitem__(self, position: slice) -> list[LogEntry]: ...
    def __getitem__(self, position: int | slice) -> LogEntry | list[LogEntry]:
        return self._entries[position]

    def __len__(self) -> int:
        return len(self._entries)

    def setCurrentTerm(self, term: int, voted_for: str | None) -> None:
        assert term >= self._term, "terms only grow"
        self._term, self._voted_for = term, voted_for
        self._notes.append(encode_record(VOTE, _POSITION.pack(0, term) + (voted_for or "").encode()))

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._voted_for

    def setRaftCommitIndex(self, index: int) -> None:
        """Not kept: after a restart the commit index is learned again, from the snapshot and from the leader."""

    def getRaftCommitIndex(self) -> int:
        return self._entries[0].index

    def onOneSecondTimer(self) -> None:
        """Nothing is due by the clock."""

    def _destroy(self) -> None:
        self.close()

    # --- what the engine and the driver add to it ---

    @property
    def dirty(self) -> bool:
        return bool(self._notes)

    def reset(self, index: int, term: int) -> None:
        """Forget every entry: a durable snapshot stands for the log up to `index` (fault 5)."""
        self._entries = [LogEntry(NO_COMMAND, index, term)]
        self._notes += [_Roll(index, term, reset=True), _Drop(index)]

    def flush(self) -> None:
        """Make all that was noted durable. Raises DiskFull, after which it may be tried again, or StorageFailed."""
        assert not self._broken, "a journal whose sync failed is never used again"
        while self._notes:
            if not isinstance(self._notes[0], bytes):
                self._obey(self._notes[0])
                del self._notes[0]
                continue
            count = next((n for n, note in enumerate(self._notes) if not isinstance(note, bytes)), len(self._notes))
            records = [note for note in self._notes[:count] if isinstance(note, bytes)]
            self._write_frame(b"".join(records))
            del self._notes[:count]
            self._learn(records)
        if self._file is not None and self._file.size > self._segment_bytes:
            self._roll(_Roll(*self._disk_last, reset=False))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    # --- writing ---

    def _obey(self, note: bytes | _Roll | _Drop) -> None:
        if isinstance(note, _Roll):
            self._roll(note)
        elif isinstance(note, _Drop):
            self._drop_before(note.upto)

    def _learn(self, records: list[bytes]) -> None:
        for record in records:
            for kind, body in iterate_records(record):
                number, term = _POSITION.unpack_from(body)
                if kind == ENTRY:
                    self._disk_last = (number, term)
                else:
                    self._disk_vote = (term, body[_POSITION.size :].decode() or None)

    def _write_frame(self, payload: bytes) -> None:
        assert self._file is not None, "a closed journal is not written to"
        file, size = self._file, self._file.size
        try:
            file.append(encode_frame(self._salt, self._sequence, payload))
        except OSError as error:
            self._fail_unless_full(error)
            self._take_back(file, size)
            raise DiskFull(str(error)) from None
        try:
            file.sync()
        except OSError as error:
            self._fail(error)
        self._sequence += 1

    def _take_back(self, file: File, size: int) -> None:
        try:
            file.truncate(size)
        except OSError as error:
            self._fail(error)

    def _roll(self, roll: _Roll) -> None:
        header = SegmentHeader(
            format=FORMAT,
            number=self._segments[-1].number + 1 if self._segments else 1,
            salt=self._random.getrandbits(32),
            prev_index=roll.prev_index,
            prev_term=roll.prev_term,
            term=self._disk_vote[0],
            voted_for=self._disk_vote[1],
            reset=roll.reset,
        )
        try:
            file, path = create_segment(self._disk, self._directory, header)
        except OSError as error:
            self._fail_unless_full(error)
            raise DiskFull(str(error)) from None
        self.close()
        self._file, self._salt, self._sequence = file, header.salt, 0
        self._disk_last = (roll.prev_index, roll.prev_term)
        self._segments.append(_Segment(path, header.number, header.prev_index))

    def _drop_before(self, index: int) -> None:
        """Keep from the last segment on that begins at or before `index`.

        One by one, in order, each durable before the next, so that no gap can appear: a directory's changes need not
        reach the disk in the order in which they were made.
        """
        first = max(n for n, segment in enumerate(self._segments) if n == 0 or segment.prev_index <= index)
        try:
            for segment in self._segments[:first]:
                self._disk.unlink(segment.path)
                self._disk.sync_directory(self._directory)
        except OSError as error:
            self._fail(error)
        del self._segments[:first]

    def _fail_unless_full(self, error: OSError) -> None:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """The kernel may have dropped the pages and marked them clean: another sync would lie."""
        self._broken = True
        raise StorageFailed(
            f"the journal in {self._directory} can't be used: {error}",
            "check the disk, then start the manager again",
        ) from error

    # --- reading ---

    def _open(self) -> None:
        try:
            self._disk.make_directory(self._directory)
            self._disk.sync_directory(self._directory)
            for name in self._disk.names(self._directory):
                if name.endswith(".tmp"):
                    self._disk.unlink(self._directory / name)
            self._replay_all(list_segments(self._disk, self._directory))
        except OSError as error:
            self._fail(error)

    def _replay_all(self, paths: list[Path]) -> None:
        for path in paths:
            self._replay(SegmentReader(self._disk, path), is_last=path == paths[-1])
        if not paths:
            self._roll(_Roll(FIRST_INDEX, 0, reset=False))

    def _replay(self, reader: SegmentReader, is_last: bool) -> None:
        self._enter(reader)
        for payload in reader.frames(is_last):
            records = list(iterate_records(payload))
            for kind, body in records:
                self._take(reader, kind, body)
        if is_last:
            self._resume(reader)

    def _enter(self, reader: SegmentReader) -> None:
        header = reader.header
        if self._segments and header.number != self._segments[-1].number + 1:
            raise StorageFailed(f"the journal is damaged: the segment before {reader.path} is missing", REPAIR_HINT)
        # A segment that begins before the first one's base cut a conflict; a crash amid compaction took what lay before both.
        if header.reset or not self._segments or header.prev_index < self._entries[0].index:
            self._entries = [LogEntry(NO_COMMAND, header.prev_index, header.prev_term)]
        position = header.prev_index - self._entries[0].index
        if not (0 <= position < len(self._entries) and self._entries[position].term == header.prev_term):
            raise StorageFailed(f"the journal is damaged: {reader.path} doesn't follow what is before it", REPAIR_HINT)
        del self._entries[position + 1 :]
        self._term, self._voted_for = header.term, header.voted_for
        self._segments.append(_Segment(reader.path, header.number, header.prev_index))

    def _take(self, reader: SegmentReader, kind: int, body: bytes) -> None:
        number, term = _POSITION.unpack_from(body)
        rest = body[_POSITION.size :]
        if kind == ENTRY and number == self._entries[-1].index + 1:
            self._entries.append(LogEntry(rest, number, term))
        elif kind == VOTE and term >= self._term:
            self._term, self._voted_for = term, rest.decode() or None
        else:
            raise StorageFailed(f"the journal is damaged: {reader.path} holds a record out of order", REPAIR_HINT)

    def _resume(self, reader: SegmentReader) -> None:
        """Go on writing where the last segment ends, without what a crash tore, and with all before it durable."""
        self._file = file = self._disk.open(reader.path, write=True)
        if reader.torn_bytes:
            log.warning("journal_tail_cut", path=str(reader.path), offset=reader.end, bytes=reader.torn_bytes)
            file.truncate(reader.end)
        file.write_at(*reader.last_frame)
        file.sync()
        self._salt, self._sequence = reader.header.salt, reader.next_sequence
        self._disk_last = (self._entries[-1].index, self._entries[-1].term)
        self._disk_vote = (self._term, self._voted_for)
