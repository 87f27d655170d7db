"""Faults of the network between the hosts of a bridge: cuts, links that are slow or lossy, resets."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import msgspec

from chaos.cluster.base import LEAVE_OUT, Fault, Link, Pair
from chaos.cluster.links import LinkSwitch
from chaos.cluster.network import OUTSIDE, SWITCH, HostNetwork, run
from chaos.cluster.steps import faulted, in_thread
from chaos.cluster.topology import between
from chaos.errors import MachineLacks
from chaos.safety.audit import Act
from chaos.safety.ledger import Armed, Ledger
from chaos.safety.undo import Kill, Table


class BridgeNetwork:
    """Each fault has an nftables table of its own, so that faults can overlap; of two that shape one link, the first has it.
    Implements `Network`."""

    def __init__(self, ledger: Ledger, hosts: HostNetwork, *, seed: int = 0) -> None:
        self._ledger = ledger
        self._hosts = hosts
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

    @asynccontextmanager
    async def shaped(self, pairs: Iterable[Pair], link: Link, seconds: float) -> AsyncIterator[None]:
        """Frames to everybody (ARP) go straight."""
        wanted = list(pairs)
        number = next(self._numbers)
        what = f"{_describe(wanted)}: {describe_link(link)}"
        switch = LinkSwitch(self._hosts, f"tap{number}", wanted, link, f"{self._seed} {number}")
        tables: list[Armed] = []
        processes: list[Armed] = []

        def begin() -> None:
            process = switch.start()
            processes.append(self._ledger.arm(Kill(process), f"a link switch for {what}", seconds))
            switch.attach()
            table = Table(self._hosts.namespace(SWITCH), "netdev", f"link{number}")
            tables.append(self._ledger.arm(table, what, seconds))
            switch.divert(table.name, seconds)

        def end() -> None:
            try:
                for armed in tables:
                    armed.undo()  # first, or packets would be led to nowhere
            finally:
                counts = switch.stop()
                for armed in processes:
                    armed.strike_off()
            self._ledger.audit.try_to_write(Act.UNDO, f"{what}; packets: {counts}")

        try:
            await in_thread(begin)
            yield
        finally:
            await in_thread(end)

    async def reset(self, pairs: Iterable[Pair]) -> None:
        """By the kernel of the first host of each pair: its socket is gone, and a RST goes to the other end. Raises
        MachineLacks where the kernel can't."""
        wanted = list(pairs)

        def reset() -> None:
            self._ledger.audit.write(Act.STRIKE, f"reset {_describe(wanted)}")
            for pair in wanted:
                self._reset(pair)

        await in_thread(reset)

    def _reset(self, pair: Pair) -> None:
        source, target = reversed(pair) if pair[0] == OUTSIDE else pair
        address = self._hosts.address(target)
        before = self._connections(source, address)
        run(*self._hosts.command(source), "ss", "-K", "-Htn", "dst", address)
        if before & self._connections(source, address):
            raise MachineLacks(
                "connections can't be reset: the kernel was built without CONFIG_INET_DIAG_DESTROY", LEAVE_OUT
            )

    def _connections(self, host: str, peer: str) -> set[tuple[str, str]]:
        """Both ends of each."""
        listed = run(*self._hosts.command(host), "ss", "-Htn", "state", "established", "dst", peer)
        return {(words[2], words[3]) for words in map(str.split, listed.splitlines())}


def describe_link(link: Link) -> str:
    """What is not as it should be."""
    fields = msgspec.structs.asdict(link)
    return ", ".join(f"{name} {value}" for name, value in fields.items() if value) or "as it should be"


def _describe(pairs: Sequence[Pair]) -> str:
    return ", ".join(f"{source} → {target}" for source, target in pairs)
