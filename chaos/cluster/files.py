"""The files of a cluster that the harness makes: certificates, a token, and a configuration for each daemon."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from hasched.certs.issuing import create_ca, create_token, issue_agent, issue_manager
from hasched.client.context import Context

CLUSTER = "chaos"
USER = "chaos"

# Small enough that a run of minutes sees snapshots, comparisons of states and lost nodes.
MANAGER_SETTINGS: dict[str, Any] = {
    "test_cluster": True,
    "heartbeat": "500ms",
    "unhealthy_after": "1500ms",
    "node_grace": "3s",
    "raft": {"snapshot_every": 500, "check_every": 1000, "segment_bytes": "256Ki"},
}
AGENT_SETTINGS: dict[str, Any] = {
    "capacity": {"cpu": 4, "memory": "4Gi", "countables": {"licence": 3}},
    "reconnect_max": "500ms",
}


class Member(msgspec.Struct, frozen=True):
    """A manager as the others, the agents and the clients reach it."""

    name: str
    api: str  # https://HOST:PORT
    raft: str  # HOST:PORT


class ClusterFiles:
    """Below `folder`: certs/, tokens, NAME.yaml. `members` are the managers of now, which new files and clients are told of."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], agent_settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.members: list[Member] = []
        self._certs = folder / "certs"
        self._settings = merged(MANAGER_SETTINGS, settings)
        self._agent_settings = merged(AGENT_SETTINGS, agent_settings)
        self._token = ""

    def create(self) -> None:
        create_ca(self._certs, CLUSTER)
        self._token = create_token(self.folder / "tokens", USER)

    def config(self, name: str) -> Path:
        return self.folder / f"{name}.yaml"

    def context(self, *managers: str) -> Context:
        urls = [member.api for member in self.members if not managers or member.name in managers]
        return Context(managers=urls, ca=str(self._certs / "ca.crt"), token=self._token)

    def write_manager(self, member: Member, data_dir: Path, *, join: bool = False) -> None:
        """Its certificate and its file; `members` must hold it already."""
        host = member.raft.rpartition(":")[0]
        issue_manager(self._certs, member.name, [host])
        config = {
            "cluster": CLUSTER,
            "name": member.name,
            "data_dir": str(data_dir),
            "api": {"listen": member.api.removeprefix("https://")},
            "raft": {"listen": member.raft},
            "members": [msgspec.to_builtins(each) for each in self.members],
            "tls": self._tls(member.name),
            "tokens": str(self.folder / "tokens"),
            "join": join,
        }
        self._write(member.name, merged(config, self._settings))

    def write_agent(self, name: str, data_dir: Path) -> None:
        issue_agent(self._certs, name)
        config = {
            "name": name,
            "data_dir": str(data_dir),
            "managers": [member.api for member in self.members],
            "tls": self._tls(name),
        }
        self._write(name, merged(config, self._agent_settings))

    def _write(self, name: str, config: dict[str, Any]) -> None:
        self.config(name).write_text(yaml.safe_dump(config, sort_keys=False))

    def _tls(self, name: str) -> dict[str, str]:
        return {
            "ca": str(self._certs / "ca.crt"),
            "cert": str(self._certs / f"{name}.crt"),
            "key": str(self._certs / f"{name}.key"),
        }


def merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """`upper` over `lower`, section by section."""
    result = dict(lower)
    for key, value in upper.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result
