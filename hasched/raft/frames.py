"""Frames: how messages stand on a connection between managers.

A frame is a header (4 bytes, big endian: a length and two flags) and one message as tagged MessagePack. There is nothing in
it that could run: decoding checks every field against the types, and more than `MAX_FRAME_BYTES` ends the connection.

What can be large (entries, snapshots, forwarded commands) travels in pieces when it is, and waits while the connection
takes no more, so that votes, heartbeats and acknowledgements pass it: a huge entry on a slow link must not look like the
silence of its sender. Large messages keep their order, and so do small ones.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from hasched.raft.messages import Append, Forward, Message, SnapshotChunk

MAX_FRAME_BYTES = 16 * 2**20
PIECE_BYTES = 16 * 2**10
_PIECE, _LAST = 1 << 31, 1 << 30  # a piece of a message, the last piece of it
_HEADER = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


class FrameInvalid(Exception):
    """What came is not a frame of this protocol; the connection is to be closed."""


def encode_frame(message: Message) -> bytes:
    return _frame(_encoder.encode(message))


def _frame(body: bytes, flags: int = 0) -> bytes:
    return _HEADER.pack(len(body) | flags) + body


class Outlet:
    """Writes messages to `wire`; its protocol tells `pause` and `resume`."""

    def __init__(self, wire: asyncio.Transport) -> None:
        self._wire = wire
        self._pieces: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._full = False
        wire.set_write_buffer_limits(high=PIECE_BYTES)

    @property
    def unsent_bytes(self) -> int:
        return self._waiting_bytes + self._wire.get_write_buffer_size()

    def send(self, messages: Sequence[Message]) -> None:
        at_once = []
        for message in messages:
            body = _encoder.encode(message)
            if isinstance(message, Append | SnapshotChunk | Forward) and (
                self._pieces or self._full or len(body) > PIECE_BYTES
            ):
                self._wait(body)
            else:
                at_once.append(_frame(body))
        if at_once:
            self._wire.write(b"".join(at_once))
        self._go_on()

    def _wait(self, body: bytes) -> None:
        for start in range(0, len(body), PIECE_BYTES):
            last = _LAST if start + PIECE_BYTES >= len(body) else 0
            piece = _frame(body[start : start + PIECE_BYTES], _PIECE | last)
            self._pieces.append(piece)
            self._waiting_bytes += len(piece)

    def _go_on(self) -> None:
        while self._pieces and not self._full:
            piece = self._pieces.popleft()
            self._waiting_bytes -= len(piece)
            self._wire.write(piece)

    def pause(self) -> None:
        self._full = True

    def resume(self) -> None:
        self._full = False
        self._go_on()


class FrameReader:
    """Cuts a byte stream into messages."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._pieces = bytearray()
        self._max_bytes = max_bytes

    def lift_limit(self) -> None:
        """The peer has proved who it is."""
        self._max_bytes = MAX_FRAME_BYTES

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete with `data`. Raises FrameInvalid."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _HEADER.size:
                (header,) = _HEADER.unpack_from(buffer, start)
                size = header & ~(_PIECE | _LAST)
                whole = size + (len(self._pieces) if header & _PIECE else 0)
                if whole > self._max_bytes:
                    raise FrameInvalid(f"a message of {whole} bytes; at most {self._max_bytes} are taken")
                begin, end = start + _HEADER.size, start + _HEADER.size + size
                if len(buffer) < end:
                    break
                start = end
                if not header & _PIECE:
                    yield _decode(buffer[begin:end])
                    continue
                self._pieces += buffer[begin:end]
                if header & _LAST:
                    pieces, self._pieces = self._pieces, bytearray()
                    yield _decode(pieces)
        finally:
            del buffer[:start]


def _decode(body: bytearray) -> Message:
    try:
        message: Message = _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise FrameInvalid(str(error)) from None
    return message
