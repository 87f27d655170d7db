"""What every request needs of its manager, and the caps that keep one client from taking it all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from hasched.api.agents import AgentStreams
from hasched.api.auth import Authenticator
from hasched.api.feed import EventFeed
from hasched.api.hub import AgentHub
from hasched.api.peers import Peers
from hasched.api.rehearsals import Rehearsals
from hasched.model.parse import JobDefaults
from hasched.model.states import PlacementPolicy
from hasched.raft.replica import Replica


class ApiLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds and counts. A client that is slower, or wants more, is cut off."""

    body_s: float = 20.0  # from the head of a request to the end of its body
    write_s: float = 20.0  # for the client to take what we send
    idle_s: float = 60.0  # between requests, which bounds the receipt of a later request's head too
    handshake_s: float = 10.0
    head_s: float = 10.0  # from there to the end of the first request's head
    linger_s: float = 2.0  # a refused body is read so long, unkept, for the client to see the answer
    connections: int = 4096  # the oldest that never showed who it is gives place to a new one
    keep_alive_s: float = 10.0  # between comments on a silent event stream


class ApiContext:
    """One manager's API: where it reads and writes, who may ask, and what a job gets where its spec is silent."""

    def __init__(
        self,
        *,
        cluster: str,
        replica: Replica,
        hub: AgentHub,
        agents: AgentStreams,
        authenticator: Authenticator,
        defaults: JobDefaults | None = None,
        limits: ApiLimits | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        test_cluster: bool = False,
        placement: PlacementPolicy = PlacementPolicy.BIN_PACK,
    ) -> None:
        self.cluster = cluster
        self.replica = replica
        self.hub = hub
        self.agents = agents
        self.authenticator = authenticator
        self.defaults = defaults
        self.limits = limits or ApiLimits()
        self.now_ms = now_ms
        self.test_cluster = test_cluster
        self.yaml_turn = asyncio.Semaphore(1)
        self.feed = EventFeed(replica)
        self.peers = Peers(replica)
        self.rehearsals = Rehearsals(replica, placement)
