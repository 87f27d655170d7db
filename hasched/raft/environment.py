"""The environment of a replica: its disk, its links, its clock and its randomness. The simulation brings its own.

The monotonic clock is not among them: pysyncobj reads it from `syncobj.monotonicTime`, and so does all of this package.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random, SystemRandom

from hasched.raft.disk import Disk, LocalDisk
from hasched.raft.transport import Handler, Links, LinksConfig, Transport


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Environment:
    """The default is the real one. `connect` makes the links, which are started later."""

    disk: Disk = field(default_factory=LocalDisk)
    connect: Callable[[LinksConfig, Handler], Links] = Transport
    wall_ms: Callable[[], int] = _wall_ms
    random: Random = field(default_factory=SystemRandom)
