"""Puts an entry into a manager's journal, as another version would have. For managers that are down.

The format is written out here once more, and not taken from the managers' code: a drill that read and wrote by the same
code as they would agree with them about everything.

    segment  = "HSJOURN1" header_length crc32 header(msgpack) frame*
    frame    = "HSFR" length sequence payload_crc32 header_crc32 payload          (little endian; checksums begin with the salt)
    payload  = record*           record = kind(1) length(4) index(8) term(8) content
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec

from chaos.drills.scene import Unmet

_PREFIX = struct.Struct("<8sII")
_FRAME = struct.Struct("<4sIQI")
_CRC = struct.Struct("<I")
_RECORD = struct.Struct("<BI")
_POSITION = struct.Struct("<QQ")
_ENTRY = 1


class ForeignJournal:
    """The journal in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory
        self._size = 0

    def append(self, kind: int, content: object) -> str:
        """Put an entry behind the last one, in its term. Returns where it stands."""
        self._path = self._last_segment()
        data = self._path.read_bytes()
        salt, sequence, index, term = _end_of(data, self._path)
        body = _POSITION.pack(index + 1, term) + bytes((kind,)) + msgspec.msgpack.encode(content)
        payload = _RECORD.pack(_ENTRY, len(body)) + body
        head = _FRAME.pack(b"HSFR", len(payload), sequence, zlib.crc32(payload, salt))
        self._size = len(data)
        with self._path.open("ab") as file:
            file.write(head + _CRC.pack(zlib.crc32(head, salt)) + payload)
            file.flush()
            os.fsync(file.fileno())
        return f"entry {index + 1} of term {term}, {self._path.name}"

    def bytes(self) -> bytes:
        """Of the file that the entry was put into."""
        return self._path.read_bytes()

    def take_back(self) -> None:
        """The entry that was put last, and all behind it."""
        os.truncate(self._path, self._size)
        for path in self._directory.glob("*.log"):
            if path.name > self._path.name:
                path.unlink()

    def _last_segment(self) -> Path:
        paths = sorted(self._directory.glob("*.log"))
        if not paths:
            raise Unmet(f"expected: a journal in {self._directory}; seen: no segment")
        return paths[-1]


def _end_of(data: bytes, path: Path) -> tuple[int, int, int, int]:
    """The salt, the next frame's number, and the index and term of the last entry. Raises Unmet where the file differs."""
    magic, length, _ = _PREFIX.unpack_from(data)
    if magic != b"HSJOURN1":
        raise Unmet(f"expected: {path} is a segment of a journal; seen: {magic!r}")
    header: dict[str, Any] = msgspec.msgpack.decode(data[_PREFIX.size : _PREFIX.size + length])
    salt, index, term = int(header["salt"]), int(header["prev_index"]), int(header["prev_term"])
    offset, sequence = _PREFIX.size + length, 0
    while offset < len(data):
        head = data[offset : offset + _FRAME.size]
        _, size, sequence, crc = _FRAME.unpack(head)
        start = offset + _FRAME.size + _CRC.size
        payload = data[start : start + size]
        if zlib.crc32(payload, salt) != crc:
            raise Unmet(f"expected: {path} ends with a whole frame; seen: a torn one at byte {offset}")
        for kind, body in _records(payload):
            if kind == _ENTRY:
                index, term = _POSITION.unpack_from(body)
        offset, sequence = start + size, sequence + 1
    return salt, sequence, index, term


def _records(payload: bytes) -> list[tuple[int, bytes]]:
    found, offset = [], 0
    while offset < len(payload):
        kind, length = _RECORD.unpack_from(payload, offset)
        offset += _RECORD.size
        found.append((kind, payload[offset : offset + length]))
        offset += length
    return found
