"""Streams of records, as snapshots are written: each a 4-byte length and a MessagePack document. They are cut anywhere."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Self, TypeVar

import msgspec

from hasched.model.errors import HaschedError

RECORD_BYTES = 64 * 1024  # of what may be large, one by one
_LENGTH = struct.Struct(">I")
_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()


class SnapshotInvalid(HaschedError):
    """These bytes are not a snapshot that this version can read. Nothing was restored."""

    code: ClassVar[str] = "snapshot_invalid"
    title: ClassVar[str] = "The snapshot can't be used"

    def __init__(self, cause: str) -> None:
        super().__init__(cause, "take the state from another manager, or start from an older snapshot and the journal")


def frame(document: bytes) -> bytes:
    return _LENGTH.pack(len(document)) + document


def sized_records(items: Iterable[_T], size_of: Callable[[_T], int]) -> Iterator[bytes]:
    """So many to a record that it is not much larger than `RECORD_BYTES`."""
    some: list[_T] = []
    size = 0
    for item in items:
        some.append(item)
        size += 64 + size_of(item)
        if size >= RECORD_BYTES:
            yield frame(_encoder.encode(some))
            some, size = [], 0
    if some:
        yield frame(_encoder.encode(some))


class Records:
    """Cuts a stream of chunks into documents."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._start = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        """The next document. A stream that ends within one, or before the end record was taken, is cut off."""
        if self._start + _LENGTH.size > len(self._buffer):
            self._gather(_LENGTH.size)
        size = _LENGTH.size + _LENGTH.unpack_from(self._buffer, self._start)[0]
        if self._start + size > len(self._buffer):
            self._gather(size)
        start, self._start = self._start, self._start + size
        return self._buffer[start + _LENGTH.size : start + size]

    def _gather(self, size: int) -> None:
        """Have at least `size` bytes from `_start` on, and `_start` at the beginning."""
        parts = [self._buffer[self._start :]]
        held = len(parts[0])
        while held < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise SnapshotInvalid("the snapshot is cut off")
            parts.append(chunk)
            held += len(chunk)
        self._buffer, self._start = b"".join(parts), 0

    def finish(self) -> None:
        if self._start != len(self._buffer) or any(self._chunks):
            raise SnapshotInvalid("something follows the end of the snapshot")


def take(documents: Records, decoder: msgspec.msgpack.Decoder[list[_T]], number: int) -> list[_T]:
    """So many, of as many records as they take."""
    found: list[_T] = []
    while len(found) < number:
        some = decoder.decode(next(documents))
        expect(bool(some), "an empty record")
        found += some
    return found


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SnapshotInvalid(otherwise)
