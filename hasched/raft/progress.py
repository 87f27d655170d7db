"""What a leader knows of each follower, and what is on its way to it."""

from __future__ import annotations

from collections import deque

from hasched.raft.snapshots import OutgoingSnapshot


class Progress:
    """Replication to one follower over one connection, in one term.

    It begins as a *probe*: one empty append a heartbeat, until the place is found up to which the logs are equal. Then
    entries stream: `next_index` runs ahead of `match_index` without waiting for replies, since the transport keeps
    the order. A refusal makes it a probe again.
    """

    __slots__ = (
        "_inflight",
        "filled",
        "heard_at",
        "impatient",
        "inflight_bytes",
        "match_index",
        "next_index",
        "probing",
        "round",
        "snapshot",
    )

    def __init__(self, next_index: int) -> None:
        self.next_index = next_index
        self.match_index = 0
        self.round = 0  # the latest heartbeat round that the follower has answered in this term
        self.probing = True
        self.impatient = True  # a probe should go now, not with the next heartbeat
        self.filled = False  # the follower says that its disk holds all that it ever acknowledged
        self.heard_at = float("-inf")
        self.snapshot: OutgoingSnapshot | None = None
        self.inflight_bytes = 0
        self._inflight: deque[tuple[int, int]] = deque()

    @property
    def busy(self) -> bool:
        """Something that may be large is on its way, or waits to be sent."""
        return self.inflight_bytes > 0 or self.snapshot is not None

    def sent(self, last_index: int, size: int) -> None:
        self.next_index = last_index + 1
        self.inflight_bytes += size
        self._inflight.append((last_index, size))

    def matched(self, index: int) -> None:
        self.match_index = max(self.match_index, index)
        while self._inflight and self._inflight[0][0] <= index:
            self.inflight_bytes -= self._inflight.popleft()[1]
        if self.probing or self.next_index <= self.match_index:
            self.next_index = self.match_index + 1
        self.probing = False

    def refused(self, prev_index: int, hint: int) -> None:
        """Only the refusal of what was sent last counts: those before it were sent before the last was corrected."""
        if prev_index <= self.match_index or (self.probing and prev_index != self.next_index - 1):
            return
        self.probe_from(max(self.match_index + 1, min(hint, prev_index)))

    def probe_from(self, index: int) -> None:
        self.next_index = index
        self.probing = self.impatient = True
        self._inflight.clear()
        self.inflight_bytes = 0

    def reset(self, next_index: int) -> None:
        """The connection is new: nothing is known of what arrived over the last one."""
        self.stop_snapshot()
        self.match_index = 0
        self.probe_from(next_index)

    def snapshot_reply(self, index: int, received: int, done: bool, round_: int) -> None:
        """How far the follower is with the snapshot up to `index`. Once it has it, the log goes on from there."""
        if self.snapshot is None or index < self.snapshot.snapshot.index:
            return
        if done:
            follows = self.snapshot.snapshot.index + 1
            self.stop_snapshot()
            self.probe_from(follows)
        else:
            self.snapshot.progress_to(received, round_)

    def stop_snapshot(self) -> None:
        if self.snapshot is not None:
            self.snapshot.close()
            self.snapshot = None
