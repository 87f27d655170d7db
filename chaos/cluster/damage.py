"""What disks do to files: half-written tails, and bits that flip. Only while their manager is down.

The harness knows the files by their names and the format of a segment as its documentation gives it (`hasched/raft/segments.py`):

    segment  = "HSJOURN1" header_length crc32 header(msgpack) frame*
    frame    = "HSFR" length sequence payload_crc32 header_crc32 payload          (little endian, 24 bytes of header)
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from chaos.errors import Unsettled

JOURNAL, SNAPSHOT = "journal", "snapshot"
FILES = {JOURNAL: ("journal", "*.log"), SNAPSHOT: ("snapshots", "*.snap")}
PREFIX_BYTES = 16  # of a segment and of a snapshot: magic, length of the header, checksum
FRAME_MAGIC = b"HSFR"
FRAME_HEADER_BYTES = 24
TORN_PAYLOAD_BYTES = 3000  # several sectors

_FRAME = struct.Struct("<4sIQI")
_CRC = struct.Struct("<I")


def header_end(data: bytes) -> int:
    """Where the header of a segment or a snapshot ends."""
    length: int = struct.unpack_from("<I", data, 8)[0]
    return PREFIX_BYTES + length


def frames(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each whole frame of a segment begins and ends."""
    start = header_end(data)
    while data[start : start + 4] == FRAME_MAGIC and start + FRAME_HEADER_BYTES <= len(data):
        end = start + FRAME_HEADER_BYTES + struct.unpack_from("<I", data, start + 4)[0]
        if end > len(data):
            return
        yield start, end
        start = end


def tear_tail(data_dir: Path) -> str:
    """Half a frame behind the last frame of the last segment, as the power leaves it that fails amid a write.

    Nothing that is there is touched. Returns what was done. Raises Unsettled if there is no segment, or if it has a torn
    tail already.
    """
    path = _files(data_dir, JOURNAL)[-1]
    data = path.read_bytes()
    ends = [header_end(data), *(end for _, end in frames(data))]
    if ends[-1] != len(data):
        raise Unsettled(f"{path} ends with half a frame already", "start its manager: it cuts that off")
    torn = next_frame(data)[: FRAME_HEADER_BYTES + TORN_PAYLOAD_BYTES // 2]
    with path.open("ab") as file:
        file.write(torn)
        file.flush()
        os.fsync(file.fileno())
    return f"{path.name} got {len(torn)} bytes of a frame that was never whole, at byte {len(data)}"


def next_frame(data: bytes) -> bytes:
    """As a manager would write it behind the last one of this segment, but for what is in it."""
    header = msgspec.msgpack.decode(data[PREFIX_BYTES : header_end(data)], type=dict[str, object])
    salt = header["salt"]
    assert isinstance(salt, int), "a segment has a salt"
    sequence = max((_FRAME.unpack_from(data, start)[2] + 1 for start, _ in frames(data)), default=0)
    payload = b"never synced ".ljust(TORN_PAYLOAD_BYTES, b".")
    head = _FRAME.pack(FRAME_MAGIC, len(payload), sequence, zlib.crc32(payload, salt))
    return head + _CRC.pack(zlib.crc32(head, salt)) + payload


def flip(data_dir: Path, where: str, chance: int) -> str:
    """One bit of the journal or of a snapshot, which `chance` chooses. Returns which. Raises Unsettled if there is no file."""
    paths = _files(data_dir, where)
    number = chance % (8 * sum(path.stat().st_size for path in paths))
    for path in paths:
        bits = 8 * path.stat().st_size
        if number < bits:
            flip_bit(path, number // 8, number % 8)
            return f"bit {number % 8} of byte {number // 8} of {path.name} is flipped"
        number -= bits
    raise AssertionError("the number is below the sum")


def flip_bit(path: Path, offset: int, bit: int) -> None:
    """On the disk when it returns."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        byte = os.pread(descriptor, 1, offset)[0]
        os.pwrite(descriptor, bytes([byte ^ 1 << bit]), offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(data_dir: Path, where: str) -> list[Path]:
    folder, pattern = FILES[where]
    found = sorted(path for path in (data_dir / folder).glob(pattern) if path.stat().st_size)
    if not found:
        raise Unsettled(
            f"{data_dir} holds no {where} yet", "let the cluster work for longer first: give more --minutes"
        )
    return found
