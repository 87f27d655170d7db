"""What managers say to each other: typed messages. How they stand on the wire is in `frames.py`."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from hasched.model.ids import ManagerId

PROTOCOL_VERSION = 2


class _Message(msgspec.Struct, frozen=True, array_like=True):
    pass


class Hello(_Message, frozen=True, tag="hello"):
    """The first message of either side. `blank`: this manager's disk holds no term, no vote and no entry.

    `incarnation`: the life of the cluster that its data belongs to. `members_term`, `members_index`: of the log entry that
    its membership stands in.
    """

    version: int
    cluster_id: str
    manager_id: ManagerId
    blank: bool
    incarnation: str = ""
    api_url: str = ""
    raft_address: str = ""
    members_term: int = 0
    members_index: int = 0


class Refusal(_Message, frozen=True, tag="refusal"):
    """Instead of a hello; then the connection ends. By the committed membership of the entry at `members_index`."""

    cause: str
    members_term: int
    members_index: int


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


class StandNow(_Message, frozen=True, tag="stand"):
    """The receiver has all that the leader of `term` has, and is to be elected without waiting (Raft thesis, section 3.10)."""

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


class Beat(_Message, frozen=True, tag="beat"):
    """A heartbeat to a follower to which entries or a snapshot are under way: it passes them, and says nothing of the log."""

    term: int
    round: int


class BeatReply(_Message, frozen=True, tag="beaten"):
    term: int
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


class Transfer(_Message, frozen=True, tag="transfer"):
    """Make `target` the leader instead of yourself; "": whoever is best."""

    request: int
    target: ManagerId


class TransferRefused(_Message, frozen=True, tag="not_transferred"):
    request: int
    cause: str


Consensus: TypeAlias = (
    PreVote
    | PreVoteReply
    | RequestVote
    | Vote
    | Outdated
    | Append
    | AppendReply
    | AppendRefused
    | Beat
    | BeatReply
    | SnapshotChunk
    | SnapshotReply
    | StandNow
)
Service: TypeAlias = (
    Forward | Forwarded | ReadIndex | ReadIndexReply | CheckNow | DigestReport | Transfer | TransferRefused
)
Message: TypeAlias = Hello | Refusal | Consensus | Service
