"""The numbers of consensus: timeouts, caps and when a snapshot is due. The defaults suit a LAN and ordinary SSDs."""

from __future__ import annotations

import msgspec


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, bytes and counts.

    A leader whose process dies is noticed through its closed connection, within `orphaned_s`; the election timeouts
    are for machines and networks that fail silently, so they can afford to be patient with a busy machine.
    """

    heartbeat_s: float = 0.075
    election_min_s: float = 0.3
    election_max_s: float = 0.6
    orphaned_s: float = 0.06

    max_entry_bytes: int = 2**20
    max_entry_commands: int = 4096
    append_bytes: int = 2**20  # entries in one message
    inflight_bytes: int = 8 * 2**20  # entries on their way to one follower, and entries that wait for a majority

    queue_commands: int = 50_000
    queue_bytes: int = 64 * 2**20
    leader_wait_s: float = 2.0  # how long a proposal or a read waits for a leader to be known
    proposal_timeout_s: float = 10.0

    segment_bytes: int = 8 * 2**20
    snapshot_entries: int = 50_000
    snapshot_bytes: int = 16 * 2**20  # or as much as the latest snapshot, if that is more
    snapshot_retry_s: float = 5.0
    retained_bytes: int = 4 * 2**20  # of log before a snapshot, for followers that are a little behind
    chunk_bytes: int = 256 * 2**10
    chunk_window: int = 4

    check_entries: int = 50_000  # between two comparisons of the managers' states
    check_timeout_s: float = 30.0  # how long the leader waits for their digests

    apply_slice_s: float = 0.01
    disk_full_retry_s: float = 0.25

    @property
    def beat_s(self) -> float:
        """Between heartbeats: `heartbeat_s`, or what an election timeout can do with, which is at least four of them."""
        return min(self.heartbeat_s, self.election_min_s / 4)
