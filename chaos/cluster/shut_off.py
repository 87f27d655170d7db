"""Cutting a manager of this machine off from the others, by this machine's packet filter. For a running cluster, as root.

A table of the run's own, whose elements have a timeout: it stops filtering by itself. It drops what the others' machines send
to this manager, and what goes out to their Raft addresses, which nobody but managers uses. Clients, the harness among them,
keep their way to all managers.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from itertools import count
from urllib.parse import urlsplit

import msgspec

from chaos.abilities import Ability
from chaos.cluster.base import Fault, Link, Pair
from chaos.cluster.found import Found
from chaos.cluster.running import RunningProcesses
from chaos.cluster.steps import faulted
from chaos.errors import MachineLacks
from chaos.safety.ledger import Ledger
from chaos.safety.undo import Table
from chaos.stage import Skipped
from hasched.model.views import ManagerView

_OWN = "the harness can only do that to a cluster that it made itself; leave out --attach"


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """Where a manager is: the addresses of its host, and its ports."""

    addresses: list[str]
    raft: int
    api: int


def find_shut_off_obstacle(managers: Sequence[str], found: Found) -> str:
    """Why no manager can be cut off from here; empty if one can."""
    here = [name for name in managers if name in found.daemons or name in found.not_ours]
    if not here:
        return "none of its managers runs on this machine"
    if len(here) == len(managers):
        return f"all of its managers run on this machine, where no network lies between them; {_OWN}"
    if os.geteuid() != 0:
        return "filtering packets needs root"
    if shutil.which("nft") is None:
        return "nft is not installed (package nftables)"
    return ""


class ShutOff:
    """See `chaos.cluster.base.Network`."""

    def __init__(self, ledger: Ledger, managers: Sequence[ManagerView], processes: RunningProcesses) -> None:
        self._ledger = ledger
        self._managers = {each.id: each for each in managers}
        self._processes = processes
        self._numbers = count(1)

    def isolated(self, host: str, seconds: float) -> Fault:
        if host not in self._managers:
            raise Skipped(f"{host} is no manager: its packets can't be told from those of clients here")
        self._processes.daemon(host)
        table = Table("", "inet", f"hasched_{self._ledger.run_id}_{next(self._numbers)}")
        own = _reach(self._managers[host])
        others = [_reach(each) for name, each in self._managers.items() if name != host]
        script = rules(table.name, own, others, seconds)
        what = f"cut {host} off from the other managers for {seconds:.1f} s"
        return faulted(self._ledger, table, what, seconds, lambda: _filter(script))

    def cut(self, pairs: Iterable[Pair], seconds: float) -> Fault:
        raise MachineLacks(f"{Ability.CUTS} can't be had here", _OWN)

    def shaped(self, pairs: Iterable[Pair], link: Link, seconds: float) -> Fault:
        raise MachineLacks(f"{Ability.LINKS} can't be had here", _OWN)

    async def reset(self, pairs: Iterable[Pair]) -> None:
        raise MachineLacks(f"{Ability.CUTS} can't be had here", _OWN)


def rules(table: str, own: Reach, others: Sequence[Reach], seconds: float) -> str:
    """What nft makes of it. Members on this same machine share its addresses, and can't be told from ourselves: left out."""
    far = [each for each in others if not set(each.addresses) & set(own.addresses)]
    timeout = f"timeout {max(1, round(seconds * 1000))}ms"
    lines = [f"table inet {table} {{"]
    for family, version in (("ip", 4), ("ip6", 6)):
        hosts = dict.fromkeys(address for each in far for address in each.addresses if _version(address) == version)
        rafts = [
            f"{address} . {each.raft}" for each in far for address in each.addresses if _version(address) == version
        ]
        if not hosts:
            continue
        kind = f"ipv{version}_addr"
        lines += [
            f"  set hosts{version} {{ type {kind}; flags timeout; elements = {{ {_timed(hosts, timeout)} }}; }}",
            f"  set rafts{version} {{ type {kind} . inet_service; flags timeout; "
            f"elements = {{ {_timed(rafts, timeout)} }}; }}",
            f"  chain in{version} {{ type filter hook input priority -10; policy accept;",
            f"    {family} saddr @hosts{version} tcp dport {{ {own.raft}, {own.api} }} counter drop;",
            f"    {family} saddr . tcp sport @rafts{version} counter drop; }}",
            f"  chain out{version} {{ type filter hook output priority -10; policy accept;",
            f"    {family} daddr . tcp dport @rafts{version} counter drop; }}",
        ]
    return "\n".join([*lines, "}", ""])


def _timed(elements: Iterable[str], timeout: str) -> str:
    return ", ".join(f"{element} {timeout}" for element in elements)


def _reach(manager: ManagerView) -> Reach:
    """Raises Skipped if its address can't be found out."""
    host, _, raft = manager.raft_address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Skipped(f"the address of {manager.id} can't be found out: {error}") from None
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    return Reach(addresses=addresses, raft=int(raft), api=urlsplit(manager.api_url).port or 443)


def _version(address: str) -> int:
    return ip_address(address.partition("%")[0]).version


def _filter(script: str) -> None:
    done = subprocess.run(["nft", "-f", "-"], input=script, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"nft: {done.stderr.strip()}")
