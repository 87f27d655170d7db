"""What the leader's duties go by. Times are in milliseconds."""

from __future__ import annotations

import msgspec

from hasched.manager.notifications.settings import NotifierSettings
from hasched.model.states import PlacementPolicy
from hasched.scheduler.searches import GANG_PORTS


class QuarantineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A node on which `launch_failures` different jobs in a row fail to launch within `window_ms` is quarantined (0: none is).

    For `initial_ms`, and twice as long each time without a launch that succeeded in between, up to `max_ms`.
    """

    launch_failures: int = 5
    window_ms: int = 600_000
    initial_ms: int = 300_000
    max_ms: int = 3_600_000
    max_share_percent: int = 20  # of the healthy nodes, but one if that is none


class LeaderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`node_grace_ms`: so long a node may be silent before its attempts are lost."""

    heartbeat_ms: int = 1_000
    unhealthy_after_ms: int = 10_000
    node_grace_ms: int = 30_000
    placement: PlacementPolicy = PlacementPolicy.BIN_PACK
    gang_ports: range = GANG_PORTS  # at which rank 0 of a gang is met
    quarantine: QuarantineSettings = QuarantineSettings()
    notifier: NotifierSettings = NotifierSettings()

    @property
    def lease_ms(self) -> int:
        """How long an agent may run work that must not run twice after it last asked a confirmed leader.

        Shorter than the grace, which counts from later: so such work has been stopped before anybody calls it lost, even
        if the two clocks differ in speed by a third.
        """
        return self.node_grace_ms * 2 // 3
