"""What managers say to each other: typed messages, and how they stand on the wire.

A frame is a length (4 bytes, big endian) and one message as tagged MessagePack. There is nothing in it that could run:
decoding checks every field against these types, and a frame over `MAX_FRAME_BYTES` ends the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from hasched.model.ids import ManagerId

PROTOCOL_VERSION = 2
MAX_FRAME_BYTES = 16 * 2**20


class _Message(msgspec.Struct, frozen=True, array_like=True):
    pass


class Hello(_Message, frozen=True, tag="hello"):
    """The first message of either side. `blank`: this manager's disk holds no term, no vote and no entry."""

    version: int
    cluster_id: str
    manager_id: ManagerId
    blank: bool


class PreVote(_Message, frozen=True, tag="pre_vote"):
    """Would you vote for me in `term`? Changes nothing on either side (Raft thesis, section 9.6)."""

    term: int
    last_index: int
    last_term: int


class PreVoteReply(_Message, frozen=True, tag="pre_voted"):
    """`term` is the replier's own; `asked` the term that it was asked about."""

    term: int
    asked: int
    granted: bool


class RequestVote(_Message, frozen=True, tag="vote"):
    term: int
    last_index: int
    last_term: int


class Vote(_Message, frozen=True, tag="voted"):
    """A vote for the receiver in `term`."""

    term: int


class Outdated(_Message, frozen=True, tag="outdated"):
    """An answer to a message of an older term, so that its sender steps down."""

    term: int


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    term: int
    data: bytes


class Append(_Message, frozen=True, tag="append"):
    """Entries that follow the one at `prev_index`; none in a heartbeat. The reply repeats the highest `round` seen."""

    term: int
    commit_index: int
    prev_index: int
    prev_term: int
    entries: list[Entry]
    round: int


class AppendReply(_Message, frozen=True, tag="appended"):
    """`match_index`: up to there the two logs are equal and on disk. A follower that isn't `voter` yet counts for nothing."""

    term: int
    match_index: int
    round: int
    voter: bool


class AppendRefused(_Message, frozen=True, tag="refused"):
    """No entry of `prev_term` at `prev_index` here. `hint`: send from there on."""

    term: int
    prev_index: int
    hint: int
    round: int
    voter: bool


class SnapshotChunk(_Message, frozen=True, tag="snapshot"):
    """`size` bytes of a snapshot file that stands for the log up to `index`; `data` begins at `offset`."""

    term: int
    index: int
    index_term: int
    size: int
    offset: int
    data: bytes
    round: int


class SnapshotReply(_Message, frozen=True, tag="snapshotted"):
    """`received` bytes are here, without a gap. `done`: the receiver has what the snapshot holds, or more."""

    term: int
    index: int
    received: int
    done: bool
    round: int
    voter: bool


class Forward(_Message, frozen=True, tag="forward"):
    """Commands for the leader, encoded, to be proposed in this order, as parts of one entry."""

    request: int
    commands: list[bytes]


class Forwarded(_Message, frozen=True, tag="forwarded"):
    """The commands of a Forward stand in the entry at `index` of `term`, from `position` on.

    It is sent before that entry is. `refused` says why nothing was done instead.
    """

    request: int
    index: int = 0
    term: int = 0
    position: int = 0
    refused: str = ""  # "", "not_leader", "overloaded" or "malformed"


class ReadIndex(_Message, frozen=True, tag="read"):
    """Which index must I have applied to read what was committed before now?

    `joining`: I have no vote. What an earlier life of mine acknowledged must not count towards what is committed from now on.
    """

    request: int
    joining: bool = False


class ReadIndexReply(_Message, frozen=True, tag="read_at"):
    """0: I can't say, since I don't lead."""

    request: int
    index: int


class CheckNow(_Message, frozen=True, tag="check"):
    """Somebody asks you, the leader, to compare the managers' states. He sees it in the log."""


class DigestReport(_Message, frozen=True, tag="digest"):
    """My state at the CHECK at `index`, for the leader; see `divergence.Report`."""

    index: int
    scheme: str
    digest: str
    voter: bool


Consensus: TypeAlias = (
    PreVote
    | PreVoteReply
    | RequestVote
    | Vote
    | Outdated
    | Append
    | AppendReply
    | AppendRefused
    | SnapshotChunk
    | SnapshotReply
)
Service: TypeAlias = Forward | Forwarded | ReadIndex | ReadIndexReply | CheckNow | DigestReport
Message: TypeAlias = Hello | Consensus | Service

_LENGTH = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


class FrameInvalid(Exception):
    """What came is not a frame of this protocol; the connection is to be closed."""


def encode_frame(message: Message) -> bytes:
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into messages."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
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
            while len(buffer) - start >= _LENGTH.size:
                (size,) = _LENGTH.unpack_from(buffer, start)
                if size > self._max_bytes:
                    raise FrameInvalid(f"a frame of {size} bytes; at most {self._max_bytes} are taken")
                end = start + _LENGTH.size + size
                if len(buffer) < end:
                    break
                try:
                    message: Message = _decoder.decode(memoryview(buffer)[start + _LENGTH.size : end])
                except msgspec.DecodeError as error:
                    raise FrameInvalid(str(error)) from None
                start = end
                yield message
        finally:
            del buffer[:start]
