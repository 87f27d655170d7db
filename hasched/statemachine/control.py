"""What operators, and the leader on their behalf, have decided about a node. It outlives the node's agent and its losses.

Three reasons to keep new work away, each with its own way back, and any of them may stand beside the others: a node is
cordoned until somebody uncordons it, drains until somebody undrains it, and is quarantined until its time is up.
"""

from __future__ import annotations

import msgspec

from hasched.model.taints import Taint
from hasched.model.wire import NodeInfo


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


class Overrides(msgspec.Struct, frozen=True, array_like=True):
    """What operators say of a node over what its agent does. Of a label or taint None stands for "not this one"."""

    pool: str = ""  # empty: as the agent says
    labels: tuple[tuple[str, str | None], ...] = ()  # sorted by name
    taints: tuple[tuple[str, Taint | None], ...] = ()  # by key, sorted

    def apply(self, info: NodeInfo) -> NodeInfo:
        """The node as it counts; the same object where nothing is overruled."""
        if self == AS_THE_AGENT_SAYS:
            return info
        labels: dict[str, str | None] = {**info.labels, **dict(self.labels)}
        taints: dict[str, Taint | None] = {**{taint.key: taint for taint in info.taints}, **dict(self.taints)}
        return msgspec.structs.replace(
            info,
            pool=self.pool or info.pool,
            labels={name: value for name, value in sorted(labels.items()) if value is not None},
            taints=tuple(taint for _, taint in sorted(taints.items()) if taint is not None),
        )


AS_THE_AGENT_SAYS = Overrides()


class Control(msgspec.Struct, frozen=True, array_like=True):
    """Everything that was decided about one node. Replaced as a whole, never changed, so a capture may hold it."""

    cordon: Cordon | None = None
    drain: Drain | None = None
    quarantine: Quarantine | None = None
    overrides: Overrides = AS_THE_AGENT_SAYS

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
