"""What operators, and the leader on their behalf, have decided about a node. It outlives the node's agent and its losses.

Three reasons to keep new work away, each with its own way back, and any of them may stand beside the others: a node is
cordoned until somebody uncordons it, drains until somebody undrains it, and is quarantined until its time is up.
"""

from __future__ import annotations

import msgspec


class Cordon(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """No new work; what runs goes on."""

    actor: str
    reason: str
    since_ms: int


class Drain(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """No new work; what runs goes on until the deadline, and then has to go elsewhere."""

    actor: str
    reason: str
    since_ms: int
    deadline_ms: int = 0  # 0: none, what runs may end in its own time
    expired: bool = False  # the deadline has come, and everything here was told to go


class Quarantine(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """No new work, for what was started here failed to launch. Once `until_ms` has come the node is on probation.

    On probation it takes work again, and the record stays until a launch has succeeded: the next failure weighs more.
    """

    reason: str
    since_ms: int
    until_ms: int
    times: int = 1  # in a row, without a launch that succeeded in between
    probation: bool = False


class Control(msgspec.Struct, frozen=True, array_like=True):
    """Everything that was decided about one node. Replaced as a whole, never changed, so a capture may hold it."""

    cordon: Cordon | None = None
    drain: Drain | None = None
    quarantine: Quarantine | None = None

    @property
    def eligible(self) -> bool:
        """Whether nothing keeps new work away."""
        return self.cordon is None and self.drain is None and not self.quarantined

    @property
    def quarantined(self) -> bool:
        return self.quarantine is not None and not self.quarantine.probation

    @property
    def due_ms(self) -> int:
        """When the clock has to be stepped for this node, 0 if never."""
        dues = []
        if self.drain is not None and self.drain.deadline_ms and not self.drain.expired:
            dues.append(self.drain.deadline_ms)
        if self.quarantine is not None and not self.quarantine.probation:
            dues.append(self.quarantine.until_ms)
        return min(dues, default=0)


FREE = Control()
