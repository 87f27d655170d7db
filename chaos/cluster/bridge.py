"""Faults of the network between the hosts of a bridge: cuts, links that are slow or lossy, resets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from chaos.cluster.base import Fault, Link, Pair
from chaos.cluster.network import SWITCH, HostNetwork
from chaos.cluster.steps import faulted
from chaos.cluster.topology import between
from chaos.errors import MachineLacks
from chaos.safety.ledger import Ledger
from chaos.safety.undo import Table


class BridgeNetwork:
    """Each fault has an nftables table of its own, so that faults can overlap. Implements `Network`.

    `members` are the hosts that `isolated` means by the others; the list may change.
    """

    def __init__(self, ledger: Ledger, hosts: HostNetwork, members: Sequence[str], *, seed: int = 0) -> None:
        self._ledger = ledger
        self._hosts = hosts
        self._members = members
        self._seed = seed
        self._numbers = itertools.count(1)

    def cut(self, pairs: Iterable[Pair], seconds: float) -> Fault:
        wanted = list(pairs)
        table = f"cut{next(self._numbers)}"
        return faulted(
            self._ledger,
            Table(self._hosts.namespace(SWITCH), "bridge", table),
            f"cut {_describe(wanted)}",
            seconds,
            lambda: self._hosts.cut(wanted, seconds, table),
        )

    def isolated(self, host: str, seconds: float) -> Fault:
        return self.cut(between([host], self._hosts.hosts), seconds)

    def shaped(self, pairs: Iterable[Pair], link: Link, seconds: float) -> Fault:
        raise MachineLacks("not there yet")

    async def reset(self, pairs: Iterable[Pair]) -> None:
        raise MachineLacks("not there yet")


def _describe(pairs: Sequence[Pair]) -> str:
    return ", ".join(f"{source} → {target}" for source, target in pairs)
