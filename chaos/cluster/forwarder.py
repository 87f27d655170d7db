"""A link switch: a process that carries the packets of some links, and does to them what a bad network does.

    python forwarder.py PORT LINKS

It is a port of the bridge (a TAP device, so it stands in for the kernel's netem, which may be missing). Frames that nftables
hands to the port are late, lost, doubled, overtaken or queued, then given back to the bridge, which delivers them. LINKS is
JSON: `pairs` of hardware addresses (from, to), the `seed` of its chance, and the fields of `chaos.cluster.base.Link`. Each
pair is a link of its own.

It says `ready` once the port is there, ends when its input is closed (as it is when the harness dies), lets go of what it
still holds, and prints what it did. Run as a script with the standard library alone, so that it starts in no time.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
TUN_DEVICE = "/dev/net/tun"
FRAME_BYTES = 65536
QUEUE_BYTES = 256 * 1024  # in front of a slow link; what comes on top is dropped
OVERTAKEN_S = 0.02  # a packet that loses its place comes so much later
BATCH = 64  # frames taken in before what is due goes out


class Line:
    """One link, one way. Pure: the time is told, chance is given."""

    def __init__(
        self,
        chance: random.Random,
        *,
        delay_ms: float = 0,
        jitter_ms: float = 0,
        loss: float = 0,
        duplicated: float = 0,
        reordered: float = 0,
        bytes_per_s: int = 0,
    ) -> None:
        self._chance = chance
        self._delay_s = delay_ms / 1000
        self._jitter_s = jitter_ms / 1000
        self._loss = loss
        self._duplicated = duplicated
        self._reordered = reordered
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0  # when the last packet has left its queue
        self._last_at = 0.0  # when the last packet arrives
        self.counts = dict.fromkeys(("seen", "lost", "dropped", "duplicated", "reordered"), 0)

    def take(self, size: int, now: float) -> list[float]:
        """When a packet of `size` bytes arrives: once, never, or twice. `now` in seconds."""
        self._count("seen")
        if self._chance.random() < self._loss:
            self._count("lost")
            return []
        left = self._queue(size, now)
        if left is None:
            self._count("dropped")
            return []
        arrivals = [self._arrive(left)]
        if self._chance.random() < self._duplicated:
            self._count("duplicated")
            arrivals.append(self._arrive(left))
        return arrivals

    def _queue(self, size: int, now: float) -> float | None:
        """When it has gone through a link of this rate; None if there is no room in front of it."""
        if not self._bytes_per_s:
            return now
        starts = max(now, self._free_at)
        if (starts - now) * self._bytes_per_s + size > QUEUE_BYTES:
            return None
        self._free_at = starts + size / self._bytes_per_s
        return self._free_at

    def _arrive(self, left: float) -> float:
        at = left + max(0.0, self._delay_s + self._chance.uniform(-self._jitter_s, self._jitter_s))
        if self._chance.random() < self._reordered:
            self._count("reordered")
            return max(at, self._last_at) + OVERTAKEN_S
        self._last_at = max(at, self._last_at)  # jitter alone doesn't reorder
        return self._last_at

    def _count(self, what: str) -> None:
        self.counts[what] += 1


def open_port(name: str) -> int:
    """A TAP device of this network namespace, which is gone when the descriptor is closed. Raises OSError."""
    port = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(port, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return port


def carry(port: int, until_closed: int, lines: dict[bytes, Line]) -> None:
    """`lines` by the first twelve bytes of their frames: to, from."""
    held: list[tuple[float, int, bytes]] = []
    number = 0
    poll = select.epoll()
    poll.register(port, select.EPOLLIN)
    poll.register(until_closed, select.EPOLLIN)
    while True:
        patience_s = max(0.0, held[0][0] - time.monotonic()) if held else -1
        if any(descriptor == until_closed for descriptor, _ in poll.poll(patience_s)):
            break
        for _ in range(BATCH):
            frame = _read(port)
            if frame is None:
                break
            line = lines.get(frame[:12])
            for at in line.take(len(frame), time.monotonic()) if line is not None else ():
                number += 1
                heapq.heappush(held, (at, number, frame))
        while held and held[0][0] <= time.monotonic():
            _write(port, heapq.heappop(held)[2])
    while held:
        _write(port, heapq.heappop(held)[2])


def _read(port: int) -> bytes | None:
    try:
        return os.read(port, FRAME_BYTES)
    except BlockingIOError:
        return None
    except OSError:  # the port is not up yet, or any more
        time.sleep(0.01)
        return None


def _write(port: int, frame: bytes) -> None:
    try:
        os.write(port, frame)
    except OSError:  # as on any full or broken link, the frame is lost
        return


def main(name: str, links: str) -> None:
    wanted = json.loads(links)
    seed, pairs = wanted.pop("seed"), wanted.pop("pairs")
    lines = {}
    for source, target in pairs:
        key = bytes.fromhex((target + source).replace(":", ""))
        chance = random.Random(f"{seed} {source} {target}")  # noqa: S311 - bad luck, not a secret
        lines[key] = Line(chance, **wanted)
    port = open_port(name)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    carry(port, sys.stdin.fileno(), lines)
    totals: dict[str, int] = {}
    for line in lines.values():
        for what, count in line.counts.items():
            totals[what] = totals.get(what, 0) + count
    sys.stdout.write(json.dumps(totals) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
