"""The snapshot store: at most one whole snapshot, which stands for the log up to its index.

A snapshot is written beside, synced, renamed, and its directory synced, before anybody hears of it; only then are older
ones unlinked, and only then may the journal be trimmed. A newer snapshot is never replaced by an older one. A damaged
one stops the manager (fault 6): starting empty would lose what was acknowledged.

    snapshot = "HSSNAP01" header_length crc32 header(msgpack) chunk* end          (little endian)
    chunk    = length(4, not 0) crc32 bytes       end = 0 crc32 of all chunks' bytes
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from hasched.model.errors import StorageFailed
from hasched.raft.disk import Disk, File, LocalDisk
from hasched.raft.membership import Membership
from hasched.raft.segments import REPAIR_HINT

MAGIC = b"HSSNAP01"
FORMAT = 1
SUFFIX = ".snap"
MAX_CHUNK_BYTES = 2**30
_PREFIX = struct.Struct("<8sII")
_CHUNK = struct.Struct("<II")

log = structlog.get_logger(__name__)


class _Header(msgspec.Struct, frozen=True):
    format: int
    cluster_id: str
    index: int
    term: int
    membership: Membership | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """A durable snapshot of everything up to the entry at `index`, which was of `term`.

    `membership` is what the log up to there puts in force; None: nothing, or the snapshot is of version 0.1.0.
    """

    index: int
    term: int
    size: int
    path: Path
    membership: Membership | None = None


class SnapshotStore:
    """Raises StorageFailed on what is damaged, missing parts, or of another cluster."""

    def __init__(self, directory: Path, cluster_id: str, *, disk: Disk | None = None) -> None:
        self._directory = directory
        self._cluster_id = cluster_id
        self._disk = disk or LocalDisk()
        try:
            self.latest = self._open()
        except OSError as error:
            raise StorageFailed(
                f"the snapshots in {directory} can't be used: {error}", "check the disk, then start the manager again"
            ) from error

    def _open(self) -> Snapshot | None:
        """The name of the latest may not be durable yet, if the process was killed there: it is, before older ones go."""
        self._disk.make_directory(self._directory)
        self._disk.sync_directory(self._directory)
        names = self._disk.names(self._directory)
        found = [self._directory / name for name in names if name.endswith(SUFFIX)]
        latest = self._describe(found[-1]) if found else None
        for leftover in [self._directory / name for name in names if name.endswith(".tmp")] + found[:-1]:
            self._disk.unlink(leftover)
        return latest

    def write(self, index: int, term: int, membership: Membership | None = None) -> SnapshotWriter:
        """Begin a snapshot of this manager's own state. The writer is used from one thread at a time."""
        header = _Header(FORMAT, self._cluster_id, index, term, membership)
        return SnapshotWriter(self._disk, self._directory / f"own-{index}.tmp", header)

    def receive(self, index: int, term: int, size: int) -> IncomingSnapshot:
        """Begin to take a snapshot that another manager sends."""
        return IncomingSnapshot(self._disk, self._directory / f"incoming-{index}-{term}.tmp", index, term, size)

    def send(self, snapshot: Snapshot) -> OutgoingSnapshot:
        """Begin to send it to a follower."""
        return OutgoingSnapshot(snapshot, self._disk.open(snapshot.path))

    def publish(self, path: Path) -> Snapshot | None:
        """Give the synced file at `path` its final name, durably; None if it is not newer than the latest. Then `adopt` it."""
        snapshot = self._describe(path)
        if self.latest is not None and snapshot.index <= self.latest.index:
            self._disk.unlink(path)
            return None
        final = self._directory / f"{snapshot.index:020d}-{snapshot.term:020d}{SUFFIX}"
        self._disk.rename(path, final)
        self._disk.sync_directory(self._directory)
        return msgspec.structs.replace(snapshot, path=final)

    def adopt(self, published: Snapshot) -> Snapshot | None:
        """From now on `published` is the latest. Returns the one before, whose file may go."""
        older, self.latest = self.latest, published
        return older

    def remove(self, older: Snapshot) -> None:
        self._disk.unlink(older.path)

    def chunks(self, path: Path) -> Iterator[bytes]:
        """What was written, chunk by chunk, each checked before it is handed out; the whole is checked at the end."""
        file = self._disk.open(path)
        try:
            _, offset = self._read_header(path, file)
            whole = 0
            while True:
                prefix = file.read_at(offset, _CHUNK.size)
                if len(prefix) < _CHUNK.size:
                    raise _damaged(path, "it is cut off")
                length, crc = _CHUNK.unpack(prefix)
                offset += _CHUNK.size
                if length == 0:
                    if crc != whole or offset != file.size:
                        raise _damaged(path, "its end doesn't match its checksum")
                    return
                data = file.read_at(offset, length) if length <= MAX_CHUNK_BYTES else b""
                if len(data) != length or zlib.crc32(data) != crc:
                    raise _damaged(path, "a part doesn't match its checksum")
                offset += length
                whole = zlib.crc32(data, whole)
                yield data
        finally:
            file.close()

    def _describe(self, path: Path) -> Snapshot:
        file = self._disk.open(path)
        try:
            header, _ = self._read_header(path, file)
            return Snapshot(header.index, header.term, file.size, path, header.membership)
        finally:
            file.close()

    def _read_header(self, path: Path, file: File) -> tuple[_Header, int]:
        """The header, and where it ends."""
        prefix = file.read_at(0, _PREFIX.size)
        if len(prefix) < _PREFIX.size:
            raise _damaged(path, "it is cut off")
        magic, length, crc = _PREFIX.unpack(prefix)
        body = file.read_at(_PREFIX.size, length) if magic == MAGIC and length < 2**16 else b""
        if not body or zlib.crc32(body) != crc:
            raise _damaged(path, "its header doesn't match its checksum")
        header = msgspec.msgpack.decode(body, type=_Header)
        if header.format != FORMAT:
            raise StorageFailed(f"{path} is of format {header.format}; this version reads {FORMAT}", "upgrade hasched")
        if header.cluster_id != self._cluster_id:
            raise StorageFailed(f"{path} is of cluster {header.cluster_id!r}, not {self._cluster_id!r}", REPAIR_HINT)
        return header, _PREFIX.size + length


class SnapshotWriter:
    """A snapshot on its way to the disk. Ends in `finish` or `abandon`."""

    def __init__(self, disk: Disk, path: Path, header: _Header) -> None:
        self.path = path
        self._disk = disk
        self._whole = 0
        self._file = disk.create(path)
        body = msgspec.msgpack.encode(header)
        try:
            self._file.append(_PREFIX.pack(MAGIC, len(body), zlib.crc32(body)) + body)
        except OSError:
            self.abandon()
            raise

    def add(self, chunk: bytes) -> None:
        self._whole = zlib.crc32(chunk, self._whole)
        self._file.append(_CHUNK.pack(len(chunk), zlib.crc32(chunk)) + chunk)

    def finish(self) -> None:
        """Durable, though not yet published."""
        self._file.append(_CHUNK.pack(0, self._whole))
        self._file.sync()
        self._file.close()

    def abandon(self) -> None:
        self._file.close()
        self._disk.unlink(self.path)


class IncomingSnapshot:
    """A snapshot file that arrives in pieces. `received` bytes are here, without a gap."""

    def __init__(self, disk: Disk, path: Path, index: int, term: int, size: int) -> None:
        self.path, self.index, self.term, self.size = path, index, term, size
        self.received = 0
        self._disk = disk
        self._file = disk.create(path)

    @property
    def complete(self) -> bool:
        return self.received == self.size

    def is_of(self, index: int, term: int, size: int) -> bool:
        return (self.index, self.term, self.size) == (index, term, size)

    def add(self, offset: int, data: bytes) -> None:
        """A piece that doesn't continue what is here, or goes beyond the size, is ignored: `received` says what is wanted.

        So is one that adds nothing: the leader goes on asking while the whole file is closed and being installed.
        """
        if data and offset == self.received and offset + len(data) <= self.size:
            self._file.append(data)
            self.received += len(data)

    def finish(self) -> None:
        self._file.sync()
        self._file.close()

    def abandon(self) -> None:
        self._file.close()
        self._disk.unlink(self.path)


class OutgoingSnapshot:
    """A snapshot as it is sent to one follower. Stays readable when a newer one has taken its place."""

    def __init__(self, snapshot: Snapshot, file: File) -> None:
        self.snapshot = snapshot
        self.acknowledged = 0
        self.sent = 0
        self._asked = (0, 0)  # the round in which it was asked, and how much had been sent before
        self._file = file

    def read(self, count: int) -> bytes:
        data = self._file.read_at(self.sent, count)
        self.sent += len(data)
        return data

    def asks(self, round_: int) -> None:
        """What is sent next only asks, in a round of its own, how much of all before it has arrived."""
        self._asked = (round_, self.sent)

    def progress_to(self, received: int, round_: int) -> None:
        """The follower holds so much. Less than before: it has begun anew, and so do we.

        Less than was sent before we asked: its disk was full for a while, and it dropped what came then.
        """
        asked_round, asked_sent = self._asked
        dropped = round_ >= asked_round and received < asked_sent
        if dropped or received < self.acknowledged or received > self.sent:
            self.sent = received
            self._asked = (round_ + 1, 0)
        self.acknowledged = received

    def close(self) -> None:
        self._file.close()


def _damaged(path: Path, cause: str) -> StorageFailed:
    return StorageFailed(f"the snapshot {path} is damaged: {cause}", REPAIR_HINT)
