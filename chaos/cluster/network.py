"""Hosts on one machine: a network namespace each, on a bridge in a namespace of its own, and cuts between them.

Needs root, `ip`, `nft` and `nsenter`. Whoever runs the hosts stands outside and reaches all of them, whatever is cut. A cut is
one-way, has a deadline and heals itself: it is an element with a timeout in a set of an nftables table of the bridge, and
each fault may have a table of its own, so that the end of one doesn't end another's. Hosts are known by their hardware
address, for a packet that took a detour (chaos.cluster.links) comes in from another port.

Namespaces begin with `hasched-PID-`, so that those of a dead run can be told apart and taken away (`remove_leftovers`); the
harness gives a tag of its own and keeps a ledger instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from chaos.cluster.base import Pair
from chaos.safety.identity import Born
from chaos.safety.traces import NAMESPACES, residents_of
from chaos.safety.undo import Namespace

PREFIX = "hasched-"
LOOPBACK = "127.0.0.1"
SWITCH = "switch"
OUTSIDE = "outside"  # the port of the bridge behind which the machine itself is
CUTS = "cuts"  # the table of whoever names no other
MAX_PORT_NAME = 15
MAX_HOSTS = 250
MAX_RESERVED = 200
_reserved: deque[socket.socket] = deque()
TOOLS = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "unshare": "util-linux"}
# Within mounts of its own: the namespace's name is seen by nobody else, and gone with the process.
PROBE = """
mount -t tmpfs tmpfs /run
ip netns add probe
echo made
nsenter --net=/run/netns/probe nft -f -
"""
RULES = """
table bridge {table} {{
  set pairs {{ type ether_addr . ifname; flags timeout; }}
  chain forward {{ type filter hook forward priority 0; policy accept; ether saddr . oifname @pairs counter drop; }}
}}
"""


def find_obstacle() -> str | None:
    """What this machine lacks for namespaces and cuts, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            return f"{tool} is not installed (package {package})"
    rules = RULES.format(table=CUTS)
    command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec", PROBE]
    done = subprocess.run(command, input=rules, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    what = "nftables can't filter bridges here" if "made" in done.stdout else "this machine gives no network namespaces"
    return f"{what}: {done.stderr.strip()}"


def enter(namespace: str) -> list[str]:
    """What to put in front of a command so that it runs in a namespace. It becomes the command, so the process id stays; and
    it sees the mounts of everybody, unlike what `ip netns exec` begins."""
    return ["nsenter", f"--net=/run/netns/{namespace}"]


class HostNetwork:
    """`hosts` with an address each. Use it as a context manager: at its end processes and namespaces are gone."""

    def __init__(self, hosts: Sequence[str], tag: str = "") -> None:
        self.hosts = list(hosts)
        for host in hosts:
            _check_port(host)
        self._tag = tag or f"{PREFIX}{os.getpid()}-"
        self.outside = f"hasched{zlib.crc32(self._tag.encode()):08x}"  # our end of the link to the bridge
        self._subnet = _free_subnet(zlib.crc32(self._tag.encode()))

    def address(self, host: str) -> str:
        return f"{self._subnet}.{self._number(host)}"

    def hardware_address(self, host: str) -> str:
        _, second, third, fourth = self.address(host).split(".")
        return f"02:68:63:{int(second):02x}:{int(third):02x}:{int(fourth):02x}"

    def namespace(self, host: str) -> str:
        return f"{self._tag}{host}"

    def namespaces(self) -> list[str]:
        return [self.namespace(host) for host in (SWITCH, *self.hosts)]

    def command(self, host: str) -> list[str]:
        """What to put in front of a command so that it runs on `host`; its process id stays that of the command."""
        return enter(self.namespace(host))

    def residents(self, host: str) -> list[Born]:
        """The processes that run there."""
        return residents_of(self.namespace(host))

    def _number(self, host: str) -> int:
        return 1 if host == OUTSIDE else self.hosts.index(host) + 2

    # --- life ---

    def __enter__(self) -> HostNetwork:
        remove_leftovers()
        try:
            self.build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def build(self) -> None:
        """Raises OSError, and leaves what it made."""
        switch = self.namespace(SWITCH)
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "name", "bridge", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "bridge", "up")
        for host in self.hosts:
            self._build_host(host)
        self._connect(OUTSIDE, self.outside, str(os.getpid()))
        run("ip", "address", "add", f"{self._subnet}.1/24", "dev", self.outside)
        run("ip", "link", "set", self.outside, "up")
        self.nft(RULES.format(table=CUTS))

    def add_host(self, host: str) -> None:
        """One more, while the others run."""
        _check_port(host)
        assert len(self.hosts) < MAX_HOSTS
        self.hosts.append(host)
        self._build_host(host)

    def _build_host(self, host: str) -> None:
        namespace = self.namespace(host)
        run("ip", "netns", "add", namespace)
        self._connect(host, "eth0", namespace)
        run("ip", "-n", namespace, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            run("ip", "-n", namespace, "link", "set", link, "up")

    def _connect(self, port: str, peer: str, namespace: str) -> None:
        switch = self.namespace(SWITCH)
        far_end = ("peer", "name", peer, "address", self.hardware_address(port), "netns", namespace)
        run("ip", "-n", switch, "link", "add", "name", port, "type", "veth", *far_end)
        run("ip", "-n", switch, "link", "set", "dev", port, "master", "bridge", "up")

    def remove(self) -> None:
        if (Path("/sys/class/net") / self.outside).exists():
            run("ip", "link", "delete", self.outside)
        for namespace in self.namespaces():
            Namespace(namespace).perform()

    # --- cuts ---

    def cut(self, pairs: Iterable[Pair], seconds: float, table: str = CUTS) -> None:
        """Nothing gets from the first to the second of each pair for so long, from now; all at one moment."""
        elements = [self._element(pair) for pair in pairs]
        if elements:
            limited = ", ".join(f"{element} timeout {max(1, round(seconds * 1000))}ms" for element in elements)
            # An element that is there keeps its deadline when it is added again, so it goes first, and is there to go.
            made = "" if table == CUTS else RULES.format(table=table)
            self.nft(
                made
                + _change("add", table, ", ".join(elements))
                + _change("delete", table, ", ".join(elements))
                + _change("add", table, limited)
            )

    def mend(self, pairs: Iterable[Pair]) -> None:
        """End these cuts now; what is not cut stays so."""
        elements = ", ".join(self._element(pair) for pair in pairs)
        if elements:
            self.nft(_change("add", CUTS, elements) + _change("delete", CUTS, elements))

    def heal(self) -> None:
        """End all cuts now, but for those in other tables."""
        self.nft(f"flush set bridge {CUTS} pairs\n")

    def cuts(self) -> list[Pair]:
        """What is cut at the moment, whatever the table."""
        hosts = {self.hardware_address(host): host for host in (*self.hosts, OUTSIDE)}
        listed = json.loads(run(*self.command(SWITCH), "nft", "-j", "list", "ruleset", "bridge"))
        sets = [part["set"] for part in listed["nftables"] if "set" in part]
        pairs = [element["elem"]["val"]["concat"] for each in sets for element in each.get("elem", [])]
        return [(hosts[source], target) for source, target in pairs]

    def nft(self, script: str) -> None:
        """On the switch, all of it or nothing. Raises OSError."""
        run(*self.command(SWITCH), "nft", "-f", "-", text=script)

    def _element(self, pair: Pair) -> str:
        source, target = pair
        return f'{self.hardware_address(source)} . "{target}"'


def free_ports(count: int) -> list[int]:
    """Ports of loopback for daemons that are started, killed and started again.

    Each stays bound by this process, the latest 200 that is, but nothing listens on it: so the kernel gives it neither to
    who asks for any port nor to who connects from one, and a server that sets SO_REUSEADDR, as asyncio's do, gets it.
    """
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind((LOOPBACK, 0))
    _reserved.extend(sockets)
    while len(_reserved) > MAX_RESERVED:
        _reserved.popleft().close()
    return [each.getsockname()[1] for each in sockets]


def remove_leftovers() -> None:
    """Take away the hosts of runs whose process is gone; what can't be taken away is nothing to whoever asks."""
    for namespace in [path.name for path in NAMESPACES.glob(f"{PREFIX}*")]:
        owner = namespace.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            with contextlib.suppress(OSError):
                Namespace(namespace).perform()


def run(*command: str, text: str | None = None) -> str:
    """What the command prints. Raises OSError with what it complains of."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _check_port(host: str) -> None:
    taken = host in (OUTSIDE, SWITCH, "bridge") or not host.isalnum()
    assert not taken and len(host) <= MAX_PORT_NAME, f"{host!r} can't be the name of a port"


def _change(verb: str, table: str, elements: str) -> str:
    return f"{verb} element bridge {table} pairs {{ {elements} }}\n"


def _free_subnet(first: int) -> str:
    """The first three numbers of a /24 that no address of this machine is in."""
    taken = {
        address["local"].rpartition(".")[0]
        for link in json.loads(run("ip", "-j", "-4", "address"))
        for address in link.get("addr_info", [])
    }
    candidates = (f"10.{200 + (first + n) // 256 % 50}.{(first + n) % 256}" for n in range(256))
    return next(subnet for subnet in candidates if subnet not in taken)
