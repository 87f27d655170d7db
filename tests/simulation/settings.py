"""What a simulated cluster is made of. The times are longer than in production, and so are the network's: what counts is
their ratio, and that a second of the cluster costs little of ours."""

from __future__ import annotations

from dataclasses import dataclass, field

from hasched.manager.settings import LeaderSettings
from hasched.raft.tuning import Tuning
from tests.simulation.network import Weather

TUNING = Tuning(
    heartbeat_s=0.4,
    election_min_s=1.6,
    election_max_s=3.2,
    orphaned_s=0.3,
    max_entry_bytes=4000,
    append_bytes=1500,
    inflight_bytes=8000,
    segment_bytes=16_000,
    snapshot_entries=60,
    retained_bytes=4000,
    chunk_bytes=1500,
    chunk_window=2,
    leader_wait_s=4.0,
    proposal_timeout_s=12.0,
    apply_slice_s=10.0,
    snapshot_retry_s=2.0,
    check_entries=50,
    check_timeout_s=6.0,
)


@dataclass(frozen=True)
class Settings:
    managers: int = 3
    spares: int = 0  # managers that wait to be added, named after the others
    agents: int = 2
    tuning: Tuning = TUNING
    leading: LeaderSettings = field(
        default_factory=lambda: LeaderSettings(heartbeat_ms=1_000, unhealthy_after_ms=4_000, node_grace_ms=12_000)
    )
    weather: Weather | None = None
    disk_s: tuple[tuple[float, float], ...] = ((0.9, 0.002), (0.09, 0.02), (0.01, 0.3))  # how often, and up to how long
    drift: float = 0.02  # by how much a host's seconds may differ from ours, either way
    skew_ms: int = 2_000  # by how much a wall clock may be wrong, either way
    slots: int = 4  # cores of each agent's node
