"""The files of a development cluster: certificates, a token, one configuration for each daemon, and remembered ports.

Everything lives in one directory, so the same directory later means the same cluster, with its jobs.
"""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path
from typing import Any

import msgspec
import yaml

from hasched.agent.pretend.nodes import common_nodes, document
from hasched.certs.issuing import MAX_NAME_CHARS, create_ca, create_token, issue_agent, issue_manager
from hasched.client.files import replace_file
from hasched.model.errors import Conflict
from hasched.model.ids import is_name

CLUSTER = "dev"
SIMULATION = "simulated"  # the process of all simulated nodes
# Outside the range that Linux hands out by itself, so that a remembered port stays free while the cluster is down.
PORT_RANGE = range(20_000, 32_000)


class Remembered(msgspec.Struct):
    """What a data directory is: written at its first use."""

    managers: int
    ports: list[int]  # API and Raft port of m1, of m2, …


class Layout(msgspec.Struct, frozen=True):
    """The cluster in `directory`, every file in place."""

    directory: Path
    managers: list[str]
    agents: list[str]
    simulated: list[str]
    urls: list[str]
    token: str

    @property
    def ca(self) -> Path:
        return self.directory / "certs" / "ca.crt"

    @property
    def processes(self) -> Path:
        """The process id of each daemon by name, as JSON."""
        return self.directory / "processes.json"

    def config(self, name: str) -> Path:
        return self.directory / f"{name}.yaml"

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"


def prepare(
    directory: Path,
    managers: int,
    agents: int,
    simulated: int,
    port_base: int | None,
    *,
    plugins: Path | None = None,
) -> Layout:
    """Write what is missing. Raises Conflict if the directory holds a cluster with another number of managers."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    remembered = _remember(directory / "cluster.json", managers, port_base)
    certs = directory / "certs"
    if not (certs / "ca.crt").exists():
        create_ca(certs, CLUSTER)
    layout = Layout(
        directory=directory,
        managers=[f"m{number}" for number in range(1, managers + 1)],
        agents=[f"n{number}" for number in range(1, agents + 1)],
        simulated=[node.name for node in common_nodes(simulated)],
        urls=[f"https://127.0.0.1:{port}" for port in remembered.ports[::2]],
        token=_token(directory),
    )
    for name in layout.managers:
        if not (certs / f"{name}.crt").exists():
            issue_manager(certs, name, [])
    for name in (*layout.agents, *layout.simulated):
        if not (certs / f"{name}.crt").exists():
            issue_agent(certs, name)
    (directory / "secrets").mkdir(exist_ok=True, mode=0o700)
    _write_configs(layout, remembered.ports, plugins)
    return layout


def _remember(path: Path, managers: int, port_base: int | None) -> Remembered:
    known = msgspec.json.decode(path.read_bytes(), type=Remembered) if path.exists() else None
    if known is not None and known.managers != managers:
        raise Conflict(
            f"{path.parent} holds a cluster of {known.managers} managers, not {managers}",
            f"use --managers {known.managers}, or another --data-dir",
        )
    if port_base is not None:
        ports = list(range(port_base, port_base + 2 * managers))
        taken = [port for port in ports if not _is_free(port)]
        if taken:
            raise Conflict(f"port {taken[0]} is in use", "choose another --port-base")
    elif known is not None and all(map(_is_free, known.ports)):
        ports = known.ports
    else:  # A member is known by its name, so a cluster whose ports were taken can move.
        candidates = random.sample(PORT_RANGE, len(PORT_RANGE))
        free = (port for port in candidates if _is_free(port))
        ports = [next(free) for _ in range(2 * managers)]
    remembered = Remembered(managers, ports)
    replace_file(path, msgspec.json.encode(remembered))
    return remembered


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _token(directory: Path) -> str:
    """The one token of the cluster, kept in the clear beside its hash so that the context can be written again."""
    path = directory / "token"
    if not path.exists():
        (directory / "tokens.json").unlink(missing_ok=True)
        user = os.environ.get("USER", "")
        name = user if is_name(user) and len(user) <= MAX_NAME_CHARS else "dev"
        replace_file(path, create_token(directory / "tokens.json", name).encode())
    return path.read_text()


def _write_configs(layout: Layout, ports: list[int], plugins: Path | None) -> None:
    members = [
        {"name": name, "api": url, "raft": f"127.0.0.1:{port}"}
        for name, url, port in zip(layout.managers, layout.urls, ports[1::2], strict=True)
    ]
    for name, member in zip(layout.managers, members, strict=True):
        config = {
            "cluster": CLUSTER,
            "name": name,
            "data_dir": str(layout.directory / name),
            "api": {"listen": member["api"].removeprefix("https://")},
            "raft": {"listen": member["raft"]},
            "members": members,
            "tls": _tls(layout, name),
            "tokens": str(layout.directory / "tokens.json"),
            "notifications": {"secrets_dir": str(layout.directory / "secrets"), "allow": ["127.0.0.1"]},
        }
        _write_config(layout.config(name), "manager", config)
    for name in layout.agents:
        config = {
            "name": name,
            "address": "127.0.0.1",
            "data_dir": str(layout.directory / name),
            "managers": layout.urls,
            "tls": _tls(layout, name),
            "reconnect_max": "500ms",
        }
        if plugins is not None:
            config["devices"] = {"plugins": str(plugins.absolute()), "refresh": "1s"}
        _write_config(layout.config(name), "agent", config)
    if layout.simulated:
        config = {
            "data_dir": str(layout.directory / SIMULATION),
            "certs": str(layout.directory / "certs"),
            "managers": layout.urls,
            "nodes": [document(node) for node in common_nodes(len(layout.simulated))],
            "reconnect_max": "500ms",
        }
        _write_config(layout.config(SIMULATION), "agent", config)


def _tls(layout: Layout, name: str) -> dict[str, str]:
    certs = layout.directory / "certs"
    return {"ca": str(layout.ca), "cert": str(certs / f"{name}.crt"), "key": str(certs / f"{name}.key")}


def _write_config(path: Path, kind: str, config: dict[str, Any]) -> None:
    heading = f"# Written by `hasched dev` at every start: edit a copy, and start it with `hasched {kind} start`.\n"
    replace_file(path, (heading + yaml.safe_dump(config, sort_keys=False)).encode())
