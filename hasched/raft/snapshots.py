"""The snapshot store: at most one whole snapshot, which stands for the log up to its index.

A snapshot is written beside, synced, renamed, and its directory synced, before anybody hears of it; only then are older
ones unlinked, and only then may the journal be trimmed. A newer snapshot is never replaced by an older one. A damaged
one stops the manager (fault 6): starting empty would lose what was acknowledged.

    snapshot = "HSSNAP01" header_length crc32 header(msgpack) chunk* end          (little endian)
    chunk    = length(4, not 0) crc32 bytes       end = 0 crc32 of all chunks' bytes
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import structlog

from hasched.model.errors import StorageFailed
from hasched.raft.segments import REPAIR_HINT, sync_directory, write_all

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


class Snapshot(msgspec.Struct, frozen=True):
    """A durable snapshot of everything up to the entry at `index`, which was of `term`."""

    index: int
    term: int
    size: int
    path: Path


class SnapshotStore:
    """Raises StorageFailed on what is damaged, missing parts, or of another cluster."""

    def __init__(self, directory: Path, cluster_id: str) -> None:
        self._directory = directory
        self._cluster_id = cluster_id
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in directory.glob("*.tmp"):
            leftover.unlink()
        found = sorted(path for path in directory.iterdir() if path.suffix == SUFFIX)
        self.latest: Snapshot | None = self._describe(found[-1]) if found else None
        for older in found[:-1]:
            older.unlink()

    def write(self, index: int, term: int) -> SnapshotWriter:
        """Begin a snapshot of this manager's own state. The writer is used from one thread at a time."""
        return SnapshotWriter(self._directory / f"own-{index}.tmp", _Header(FORMAT, self._cluster_id, index, term))

    def receive(self, index: int, term: int, size: int) -> IncomingSnapshot:
        """Begin to take a snapshot that another manager sends."""
        return IncomingSnapshot(self._directory / f"incoming-{index}-{term}.tmp", index, term, size)

    def send(self, snapshot: Snapshot) -> OutgoingSnapshot:
        """Begin to send it to a follower."""
        return OutgoingSnapshot(snapshot)

    def publish(self, path: Path) -> Snapshot | None:
        """Give the synced file at `path` its final name, durably; None if it is not newer than the latest. Then `adopt` it."""
        snapshot = self._describe(path)
        if self.latest is not None and snapshot.index <= self.latest.index:
            path.unlink()
            return None
        final = self._directory / f"{snapshot.index:020d}-{snapshot.term:020d}{SUFFIX}"
        path.rename(final)
        sync_directory(self._directory)
        return msgspec.structs.replace(snapshot, path=final)

    def adopt(self, published: Snapshot) -> Snapshot | None:
        """From now on `published` is the latest. Returns the one before, whose file may go."""
        older, self.latest = self.latest, published
        return older

    def chunks(self, path: Path) -> Iterator[bytes]:
        """What was written, chunk by chunk, each checked before it is handed out; the whole is checked at the end."""
        with path.open("rb") as file:
            self._read_header(path, file.read(_PREFIX.size), file.read)
            whole = 0
            while True:
                prefix = file.read(_CHUNK.size)
                if len(prefix) < _CHUNK.size:
                    raise _damaged(path, "it is cut off")
                length, crc = _CHUNK.unpack(prefix)
                if length == 0:
                    if crc != whole or file.read(1):
                        raise _damaged(path, "its end doesn't match its checksum")
                    return
                data = file.read(length) if length <= MAX_CHUNK_BYTES else b""
                if len(data) != length or zlib.crc32(data) != crc:
                    raise _damaged(path, "a part doesn't match its checksum")
                whole = zlib.crc32(data, whole)
                yield data

    def _describe(self, path: Path) -> Snapshot:
        with path.open("rb") as file:
            header = self._read_header(path, file.read(_PREFIX.size), file.read)
        return Snapshot(header.index, header.term, path.stat().st_size, path)

    def _read_header(self, path: Path, prefix: bytes, read: Callable[[int], bytes]) -> _Header:
        if len(prefix) < _PREFIX.size:
            raise _damaged(path, "it is cut off")
        magic, length, crc = _PREFIX.unpack(prefix)
        body = read(length) if magic == MAGIC and length < 2**16 else b""
        if not body or zlib.crc32(body) != crc:
            raise _damaged(path, "its header doesn't match its checksum")
        header = msgspec.msgpack.decode(body, type=_Header)
        if header.format != FORMAT:
            raise StorageFailed(f"{path} is of format {header.format}; this version reads {FORMAT}", "upgrade hasched")
        if header.cluster_id != self._cluster_id:
            raise StorageFailed(f"{path} is of cluster {header.cluster_id!r}, not {self._cluster_id!r}", REPAIR_HINT)
        return header


class SnapshotWriter:
    """A snapshot on its way to the disk. Ends in `finish` or `abandon`."""

    def __init__(self, path: Path, header: _Header) -> None:
        self.path = path
        self._whole = 0
        self._descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        body = msgspec.msgpack.encode(header)
        self._write(_PREFIX.pack(MAGIC, len(body), zlib.crc32(body)) + body)

    def add(self, chunk: bytes) -> None:
        self._whole = zlib.crc32(chunk, self._whole)
        self._write(_CHUNK.pack(len(chunk), zlib.crc32(chunk)) + chunk)

    def finish(self) -> None:
        """Durable, though not yet published."""
        self._write(_CHUNK.pack(0, self._whole))
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def abandon(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.path.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        write_all(self._descriptor, data)


class IncomingSnapshot:
    """A snapshot file that arrives in pieces. `received` bytes are here, without a gap."""

    def __init__(self, path: Path, index: int, term: int, size: int) -> None:
        self.path, self.index, self.term, self.size = path, index, term, size
        self.received = 0
        self._descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    @property
    def complete(self) -> bool:
        return self.received == self.size

    def is_of(self, index: int, term: int, size: int) -> bool:
        return (self.index, self.term, self.size) == (index, term, size)

    def add(self, offset: int, data: bytes) -> None:
        """A piece that doesn't continue what is here, or goes beyond the size, is ignored: `received` says what is wanted."""
        if offset == self.received and offset + len(data) <= self.size:
            write_all(self._descriptor, data)
            self.received += len(data)

    def finish(self) -> None:
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def abandon(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.path.unlink(missing_ok=True)


class OutgoingSnapshot:
    """A snapshot as it is sent to one follower. Stays readable when a newer one has taken its place."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.acknowledged = 0
        self.sent = 0
        self._descriptor = os.open(snapshot.path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, count: int) -> bytes:
        data = os.pread(self._descriptor, count, self.sent)
        self.sent += len(data)
        return data

    def progress_to(self, received: int) -> None:
        """The follower holds so much. Less than before: it has begun anew, and so do we."""
        if received < self.acknowledged or received > self.sent:
            self.sent = received
        self.acknowledged = received

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _damaged(path: Path, cause: str) -> StorageFailed:
    return StorageFailed(f"the snapshot {path} is damaged: {cause}", REPAIR_HINT)
