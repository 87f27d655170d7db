"""Segments: the files of the journal, and what counts as damage in them.

A segment is a header and then frames. A frame is what one sync made durable: all records of one turn under one
checksum. Since a frame is synced before the next is written, a write that a power cut tore can only be the last frame
of the last segment: that is cut. Anything else that doesn't check is damage of acknowledged data, and is refused.

    segment  = "HSJOURN1" header_length crc32 header(msgpack) frame*
    frame    = "HSFR" length sequence payload_crc32 header_crc32 payload          (little endian, 24 bytes of header)
    payload  = record*           record = kind(1) length(4) body

Checksums are seeded with the segment's random salt: bytes of another file, or of a job's input, never pass as a frame.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hasched.model.errors import StorageFailed
from hasched.raft.disk import Disk, File, write_file

MAGIC = b"HSJOURN1"
FRAME_MAGIC = b"HSFR"
FORMAT = 1
SUFFIX = ".log"
MAX_FRAME_BYTES = 2**30
_SECTOR = 512
_PREFIX = struct.Struct("<8sII")
_FRAME = struct.Struct("<4sIQI")
_CRC = struct.Struct("<I")
_RECORD = struct.Struct("<BI")
FRAME_HEADER_BYTES = _FRAME.size + _CRC.size

ENTRY = 1
VOTE = 2

REPAIR_HINT = (
    "move the data directory aside and start the manager with an empty one: it is rebuilt from the other managers"
)


class SegmentHeader(msgspec.Struct, frozen=True):
    """`prev_index`, `prev_term`: the entry before the segment's first. Entries after it that earlier segments hold are void.

    `reset`: all earlier segments are void, since a snapshot took their place.
    """

    format: int
    number: int
    salt: int
    prev_index: int
    prev_term: int
    term: int
    voted_for: str | None
    reset: bool


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:016d}{SUFFIX}"


def encode_record(kind: int, body: bytes) -> bytes:
    return _RECORD.pack(kind, len(body)) + body


def encode_frame(salt: int, sequence: int, payload: bytes) -> bytes:
    head = _FRAME.pack(FRAME_MAGIC, len(payload), sequence, zlib.crc32(payload, salt))
    return head + _CRC.pack(zlib.crc32(head, salt)) + payload


def iterate_records(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """The records of a frame whose checksum is right."""
    offset = 0
    while offset < len(payload):
        kind, length = _RECORD.unpack_from(payload, offset)
        offset += _RECORD.size
        yield kind, payload[offset : offset + length]
        offset += length


def create_segment(disk: Disk, directory: Path, header: SegmentHeader) -> tuple[File, Path]:
    """A new segment, durable under its final name: its header can never be torn. Returns it, open, and its path."""
    path = segment_path(directory, header.number)
    body = msgspec.msgpack.encode(header)
    write_file(disk, path, _PREFIX.pack(MAGIC, len(body), zlib.crc32(body)) + body)
    return disk.open(path, write=True), path


def list_segments(disk: Disk, directory: Path) -> list[Path]:
    return [directory / name for name in disk.names(directory) if name.endswith(SUFFIX)]


class SegmentReader:
    """One segment, read whole. `end` is where its good frames end, and `next_sequence` the number of the frame after."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self.path = path
        self._data = disk.read(path)
        self.header, self.end = self._read_header()
        self._last_frame = self.end
        self.next_sequence = 0

    def _read_header(self) -> tuple[SegmentHeader, int]:
        data = self._data
        if len(data) < _PREFIX.size:
            raise self._damaged(0, "its header is cut off")
        magic, length, crc = _PREFIX.unpack_from(data)
        body = data[_PREFIX.size : _PREFIX.size + length]
        if magic != MAGIC or len(body) != length or zlib.crc32(body) != crc:
            raise self._damaged(0, "its header doesn't match its checksum")
        header = msgspec.msgpack.decode(body, type=SegmentHeader)
        if header.format != FORMAT:
            raise StorageFailed(
                f"{self.path} is of format {header.format}; this version reads {FORMAT}", "upgrade hasched"
            )
        return header, _PREFIX.size + length

    def frames(self, is_last: bool) -> Iterator[bytes]:
        """The payloads in order. Ends before a torn frame, if that is at the very tail. Raises StorageFailed on damage."""
        while self.end < len(self._data):
            payload = self._frame_at(self.end, self.next_sequence)
            if payload is None:
                if is_last and self._is_torn(self.end):
                    return
                raise self._damaged(self.end, "what was written there doesn't match its checksum")
            yield payload
            self._last_frame = self.end
            self.end += FRAME_HEADER_BYTES + len(payload)
            self.next_sequence += 1

    @property
    def torn_bytes(self) -> int:
        return len(self._data) - self.end

    @property
    def last_frame(self) -> tuple[int, bytes]:
        """Where the last good frame lies, and all its bytes; none of them if there is no frame."""
        return self._last_frame, self._data[self._last_frame : self.end]

    def _frame_at(self, offset: int, sequence: int) -> bytes | None:
        """The payload of the good frame at `offset`, numbered `sequence` or later."""
        length = self._header_at(offset, sequence)
        if length is None:
            return None
        start = offset + FRAME_HEADER_BYTES
        payload = self._data[start : start + length]
        (_, _, _, crc) = _FRAME.unpack_from(self._data, offset)
        return payload if len(payload) == length and zlib.crc32(payload, self.header.salt) == crc else None

    def _header_at(self, offset: int, sequence: int) -> int | None:
        """The length that a good frame header at `offset` states."""
        head = self._data[offset : offset + _FRAME.size]
        tail = self._data[offset + _FRAME.size : offset + FRAME_HEADER_BYTES]
        if len(tail) < _CRC.size or _CRC.unpack(tail)[0] != zlib.crc32(head, self.header.salt):
            return None
        magic, length, found, _ = _FRAME.unpack(head)
        return length if magic == FRAME_MAGIC and found >= sequence and length <= MAX_FRAME_BYTES else None

    def _is_torn(self, offset: int) -> bool:
        """Whether the bad frame at `offset` was never synced: cut short, or with a sector that was never written.

        A whole frame that merely fails its checksum was written whole, so it may have been acknowledged. Whatever has
        a good frame after it was synced. (etcd's WAL draws the same line, by sectors of zeros.)
        """
        if self._has_frame_after(offset):
            return False
        length = self._header_at(offset, self.next_sequence)
        end = offset + FRAME_HEADER_BYTES + (length or 0)
        return end > len(self._data) or self._has_unwritten_sector(offset, end)

    def _has_frame_after(self, offset: int) -> bool:
        found = self._data.find(FRAME_MAGIC, offset + 1)
        while found >= 0:
            if self._frame_at(found, self.next_sequence + 1) is not None:
                return True
            found = self._data.find(FRAME_MAGIC, found + 1)
        return False

    def _has_unwritten_sector(self, start: int, end: int) -> bool:
        while start < end:
            edge = min(end, start - start % _SECTOR + _SECTOR)
            if not any(self._data[start:edge]):
                return True
            start = edge
        return False

    def _damaged(self, offset: int, cause: str) -> StorageFailed:
        return StorageFailed(f"the journal is damaged: {self.path} at byte {offset}: {cause}", REPAIR_HINT)
