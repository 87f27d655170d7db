"""Numbered packets from one host to another, and what came of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from chaos.cluster.network import OUTSIDE, HostNetwork
from tests.support import packet_ends

PORT = "5005"
SCRIPT = [sys.executable, "-I", str(Path(packet_ends.__file__))]
FEW = 3


class Heard(msgspec.Struct, frozen=True):
    """The numbers in the order in which they came, from 0, and the seconds that each was under way."""

    numbers: list[int]
    seconds: list[float]

    @property
    def overtaken(self) -> int:
        """How many came later than one that was sent after them."""
        return sum(number < max(self.numbers[:place]) for place, number in enumerate(self.numbers) if place)


def send(network: HostNetwork, source: str, target: str, count: int) -> Heard:
    """`count` UDP packets of 200 bytes, about one each millisecond, over a link that lets some of them through."""
    return _send(network, source, target, count, expected=0, teller=source)


def reach(network: HostNetwork, source: str, target: str, teller: str) -> bool:
    """Whether packets get there, one way. `teller` is a host that certainly reaches the target."""
    return _send(network, source, target, FEW, expected=FEW, teller=teller).numbers == [*range(FEW)]


def _send(network: HostNetwork, source: str, target: str, count: int, expected: int, teller: str) -> Heard:
    """`teller` says when it was all."""
    where = [network.address(target), PORT]
    receiver = subprocess.Popen(
        [*_on(network, target), *SCRIPT, "receive", *where, str(expected)], stdout=subprocess.PIPE, text=True
    )
    assert receiver.stdout is not None
    try:
        assert receiver.stdout.readline() == "ready\n"
        subprocess.run([*_on(network, source), *SCRIPT, "send", *where, str(count)], check=True)
        telling = subprocess.Popen([*_on(network, teller), *SCRIPT, "tell", *where])
        try:
            return msgspec.json.decode(receiver.stdout.readline(), type=Heard)
        finally:
            telling.kill()
            telling.wait()
    finally:
        receiver.kill()
        receiver.communicate()


def _on(network: HostNetwork, host: str) -> list[str]:
    return [] if host == OUTSIDE else network.command(host)
