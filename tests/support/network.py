"""Hosts on one machine: a network namespace each, on a bridge in a namespace of its own, and cuts between them.

Needs root, `ip` and `nft`. Whoever runs the hosts stands outside and reaches all of them, whatever is cut. A cut is one-way,
has a deadline and heals itself: it is an element with a timeout in an nftables set of the bridge. Namespaces are named
`hasched-PID-HOST`, so that those of a dead run can be told apart and taken away (`remove_leftovers`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType

PREFIX = "hasched-"
SWITCH = "switch"
OUTSIDE = "outside"  # the port of the bridge behind which the machine itself is
MAX_PORT_NAME = 15
RULES = """
table bridge cuts {
  set pairs { type ifname . ifname; flags timeout; }
  chain forward { type filter hook forward priority 0; policy accept; iifname . oifname @pairs counter drop; }
}
"""

Pair = tuple[str, str]  # from, to


def find_obstacle() -> str | None:
    """What this machine lacks for namespaces and cuts, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "nft"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (scripts/packages)"
    probe = f"{PREFIX}{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False)
    if made.returncode != 0:
        return f"this machine gives no network namespaces: {made.stderr.decode().strip()}"
    try:
        table = ["ip", "netns", "exec", probe, "nft", "-f", "-"]
        ruled = subprocess.run(table, input=RULES.encode(), capture_output=True, check=False)
        return f"nftables can't filter bridges here: {ruled.stderr.decode().strip()}" if ruled.returncode else None
    finally:
        _remove(probe)


def both_ways(pairs: Iterable[Pair]) -> list[Pair]:
    return [way for one, other in pairs for way in ((one, other), (other, one))]


def all_but(links: Iterable[Pair], hosts: Sequence[str]) -> list[Pair]:
    """Every pair of `hosts`, both ways, that is not one of `links`."""
    kept = set(both_ways(links))
    return [(one, other) for one in hosts for other in hosts if one != other and (one, other) not in kept]


def chain(hosts: Sequence[str]) -> list[Pair]:
    """What to cut so that each host reaches its neighbours in this order only."""
    return all_but(pairwise(hosts), hosts)


def star(centre: str, hosts: Sequence[str]) -> list[Pair]:
    """What to cut so that all reach the centre and nobody else."""
    return all_but([(centre, host) for host in hosts if host != centre], hosts)


class HostNetwork:
    """`hosts` with an address each. Use it as a context manager: at its end processes and namespaces are gone."""

    def __init__(self, hosts: Sequence[str]) -> None:
        too_long = [host for host in hosts if len(host) > MAX_PORT_NAME or host == OUTSIDE]
        assert not too_long and len(hosts) < 250, f"names that no port can have: {too_long}"
        self.hosts = list(hosts)
        self._tag = f"{PREFIX}{os.getpid()}-"
        self._outside = f"hasched{os.getpid()}"[:MAX_PORT_NAME]
        self._subnet = _free_subnet()

    def address(self, host: str) -> str:
        return f"{self._subnet}.{self.hosts.index(host) + 2}"

    def namespace(self, host: str) -> str:
        return f"{self._tag}{host}"

    def command(self, host: str) -> list[str]:
        """What to put in front of a command so that it runs on `host`; its process id stays that of the command."""
        return ["ip", "netns", "exec", self.namespace(host)]

    # --- life ---

    def __enter__(self) -> HostNetwork:
        remove_leftovers()
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _build(self) -> None:
        switch = self.namespace(SWITCH)
        for namespace in (switch, *map(self.namespace, self.hosts)):
            _run("ip", "netns", "add", namespace)
        _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "bridge", "up")
        for host in self.hosts:
            namespace = self.namespace(host)
            _run(
                "ip",
                "-n",
                switch,
                "link",
                "add",
                "name",
                host,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                namespace,
            )
            self._attach(host)
            _run("ip", "-n", namespace, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                _run("ip", "-n", namespace, "link", "set", link, "up")
        here = ("peer", "name", self._outside, "netns", str(os.getpid()))
        _run("ip", "-n", switch, "link", "add", "name", OUTSIDE, "type", "veth", *here)
        self._attach(OUTSIDE)
        _run("ip", "address", "add", f"{self._subnet}.1/24", "dev", self._outside)
        _run("ip", "link", "set", self._outside, "up")
        self._nft(RULES)

    def _attach(self, port: str) -> None:
        _run("ip", "-n", self.namespace(SWITCH), "link", "set", "dev", port, "master", "bridge", "up")

    def _remove(self) -> None:
        mine = [namespace for namespace in _namespaces() if namespace.startswith(self._tag)]
        if self.namespace(SWITCH) in mine and (Path("/sys/class/net") / self._outside).exists():
            _run("ip", "link", "delete", self._outside)
        for namespace in mine:
            _remove(namespace)

    # --- faults ---

    def cut(self, pairs: Iterable[Pair], seconds: float) -> None:
        """Nothing gets from the first to the second of each pair for so long, from now; all at one moment."""
        elements = [f'"{source}" . "{target}"' for source, target in pairs]
        if elements:
            limited = ", ".join(f"{element} timeout {max(1, round(seconds * 1000))}ms" for element in elements)
            # An element that is there keeps its deadline when it is added again, so it goes first, and is there to go.
            plain = ", ".join(elements)
            change = "{verb} element bridge cuts pairs {{ {what} }}\n"
            self._nft(
                change.format(verb="add", what=plain)
                + change.format(verb="delete", what=plain)
                + change.format(verb="add", what=limited)
            )

    def mend(self, pairs: Iterable[Pair]) -> None:
        """End these cuts now; what is not cut stays so."""
        elements = ", ".join(f'"{source}" . "{target}"' for source, target in pairs)
        if elements:
            change = "{verb} element bridge cuts pairs {{ {what} }}\n"
            self._nft(change.format(verb="add", what=elements) + change.format(verb="delete", what=elements))

    def heal(self) -> None:
        """End all cuts now."""
        self._nft("flush set bridge cuts pairs\n")

    def cuts(self) -> list[Pair]:
        """What is cut at the moment."""
        listed = _run(*self.command(SWITCH), "nft", "-j", "list", "set", "bridge", "cuts", "pairs")
        found = next(part["set"] for part in json.loads(listed)["nftables"] if "set" in part)
        pairs = [element["elem"]["val"]["concat"] for element in found.get("elem", [])]
        return [(source, target) for source, target in pairs]

    def _nft(self, script: str) -> None:
        _run(*self.command(SWITCH), "nft", "-f", "-", text=script)


def remove_leftovers() -> None:
    """Take away the hosts of runs whose process is gone."""
    for namespace in _namespaces():
        owner = namespace.removeprefix(PREFIX).partition("-")[0]
        if namespace.startswith(PREFIX) and owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _remove(namespace)


def _namespaces() -> list[str]:
    listed = _run("ip", "-j", "netns", "list")
    return [entry["name"] for entry in json.loads(listed)] if listed.strip() else []


def _remove(namespace: str) -> None:
    """With the processes that are still in it."""
    for line in _run("ip", "netns", "pids", namespace).split():
        try:
            os.kill(int(line), signal.SIGKILL)
        except ProcessLookupError:
            continue
    _run("ip", "netns", "delete", namespace)


def _free_subnet() -> str:
    """The first three numbers of a /24 that no address of this machine is in."""
    taken = {
        address["local"].rpartition(".")[0]
        for link in json.loads(_run("ip", "-j", "-4", "address"))
        for address in link.get("addr_info", [])
    }
    first = os.getpid()
    candidates = (f"10.{200 + (first + n) // 256 % 50}.{(first + n) % 256}" for n in range(256))
    return next(subnet for subnet in candidates if subnet not in taken)


def _run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
