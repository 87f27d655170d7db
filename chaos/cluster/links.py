"""Links that behave badly: the packets of some pairs of hosts are led through a link switch (chaos.cluster.forwarder).

nftables takes them where they come in, so it works on any pair and leaves the others alone. The sets that say which have
timeouts: at the deadline the packets go straight again, whatever became of the switch.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from chaos.cluster import forwarder
from chaos.cluster.base import Link, Pair
from chaos.cluster.network import SWITCH, HostNetwork, run
from chaos.safety.identity import Born, born

END_PATIENCE_S = 10.0
# Frames that the bridge floods must not come to the port, or they would go round.
PORT_SETTINGS = "learning off flood off mcast_flood off bcast_flood off".split()
RULES = """
table netdev {table} {{
  set pairs {{ type ifname . ether_addr; flags timeout; elements = {{ {elements} }}; }}
  chain ingress {{
    type filter hook ingress devices = {{ {devices} }} priority 0; policy accept;
    iifname . ether daddr @pairs fwd to "{port}"
  }}
}}
"""


def find_obstacle() -> str | None:
    """What this machine lacks for it where it has network namespaces, or None."""
    if not os.access(forwarder.TUN_DEVICE, os.R_OK | os.W_OK):
        return f"{forwarder.TUN_DEVICE} can't be used (modprobe tun)"
    table = RULES.format(table="probe", elements='"lo" . 02:00:00:00:00:01 timeout 1s', devices='"lo"', port="lo")
    command = ["unshare", "--net", "nft", "-f", "-"]
    done = subprocess.run(command, input=table.encode(), capture_output=True, check=False)
    if done.returncode != 0:
        return f"nftables can't forward packets here: {done.stderr.decode().strip().splitlines()[0]}"
    return None


class LinkSwitch:
    """One forwarder process and its port `name` on the bridge. Methods block and raise OSError."""

    def __init__(self, hosts: HostNetwork, name: str, pairs: Sequence[Pair], link: Link, seed: str) -> None:
        self._hosts = hosts
        self._name = name
        self._pairs = pairs
        self._link = link
        self._seed = seed
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Born:
        """Returns once the port is there. It ends by itself when the harness does."""
        links = {
            "pairs": [tuple(map(self._hosts.hardware_address, pair)) for pair in self._pairs],
            "seed": self._seed,
            **msgspec.to_builtins(self._link),
        }
        script = str(Path(forwarder.__file__))
        command = [*self._hosts.command(SWITCH), sys.executable, "-I", script, self._name, json.dumps(links)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            start_new_session=True,
        )
        process = born(self._process.pid)
        assert self._process.stdout is not None and self._process.stderr is not None
        if self._process.stdout.readline() != "ready\n" or process is None:
            complaint = self._process.stderr.read().strip().splitlines()
            self.stop()
            raise OSError(f"the link switch did not start: {complaint[-1] if complaint else 'it said nothing'}")
        return process

    def attach(self) -> None:
        port = ("ip", "-n", self._hosts.namespace(SWITCH), "link", "set", "dev", self._name)
        run(*port, "master", "bridge")
        run(*port, "type", "bridge_slave", *PORT_SETTINGS)
        run(*port, "up")

    def divert(self, table: str, seconds: float) -> None:
        """From now on, for so long, or until the table is gone."""
        elements = ", ".join(
            f'"{source}" . {self._hosts.hardware_address(target)} timeout {max(1, round(seconds * 1000))}ms'
            for source, target in self._pairs
        )
        devices = ", ".join(f'"{source}"' for source in dict.fromkeys(source for source, _ in self._pairs))
        self._hosts.nft(RULES.format(table=table, elements=elements, devices=devices, port=self._name))

    def stop(self) -> str:
        """What it did to how many packets. It gives back what it holds; the port is gone."""
        if self._process is None:
            return ""
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                said, _ = self._process.communicate(timeout=END_PATIENCE_S)
                return ", ".join(f"{count} {what}" for what, count in json.loads(said or "{}").items())
        finally:
            self._process.kill()
            self._process.communicate()
            self._process = None
        return "it did not end by itself"
