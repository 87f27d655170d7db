"""A cluster of real processes on loopback, whose members a test starts, kills, freezes and starts again one by one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import yaml

from chaos.cluster.network import HostNetwork, free_ports
from hasched.certs.issuing import create_ca, create_token, issue_agent, issue_manager
from hasched.client.context import Context
from hasched.client.sync import Client
from hasched.model.errors import HaschedError

PATIENCE_S = 60.0
T = TypeVar("T")


def eventually(what: str, probe: Callable[[], T | None], patience_s: float = PATIENCE_S) -> T:
    """The first truthy answer of `probe`; fails with `what` when there was none in time. Errors of the API count as no answer."""
    deadline = time.monotonic() + patience_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            answer = probe()
            if answer:
                return answer
            last = answer
        except HaschedError as error:
            last = error
        time.sleep(0.02)
    raise AssertionError(f"waited {patience_s:.0f} s in vain for: {what}; last: {last!r}")


class ProcessCluster:
    """Managers m1… and agents n1…, each with its own configuration file and data directory under `folder`.

    Those that are hosts of `network` run there, the others here.
    """

    def __init__(
        self,
        folder: Path,
        managers: int = 3,
        agents: int = 2,
        settings: dict[str, Any] | None = None,
        network: HostNetwork | None = None,
    ) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.manager_names = [f"m{number}" for number in range(1, managers + 1)]
        self.agent_names = [f"n{number}" for number in range(1, agents + 1)]
        self._settings = settings or {}
        self._frozen: list[str] = []
        certs = folder / "certs"
        create_ca(certs, "test")
        self.token = create_token(folder / "tokens", "tester")
        ports = free_ports(2 * managers)
        self._network = network
        self.members = [
            {
                "name": name,
                "api": f"https://{self._address(name)}:{ports[2 * i]}",
                "raft": f"{self._address(name)}:{ports[2 * i + 1]}",
            }
            for i, name in enumerate(self.manager_names)
        ]
        for name in self.manager_names:
            issue_manager(certs, name, [self._address(name)])
            self._write_manager(name)
        for name in self.agent_names:
            issue_agent(certs, name)
            self._write_agent(name)
        self.ca = certs / "ca.crt"

    def add_manager(self, name: str) -> None:
        """Another manager with its certificate and configuration; it isn't started, and not yet added to the cluster."""
        api, raft = free_ports(2)
        address = self._address(name)
        self.manager_names.append(name)
        self.members.append({"name": name, "api": f"https://{address}:{api}", "raft": f"{address}:{raft}"})
        issue_manager(self.folder / "certs", name, [address])
        self._write_manager(name, join=True)

    def forget_manager(self, name: str) -> None:
        """After its removal: clients aren't told of it any more."""
        self.manager_names.remove(name)
        self.members[:] = [member for member in self.members if member["name"] != name]

    def member(self, name: str) -> dict[str, str]:
        return next(member for member in self.members if member["name"] == name)

    def _address(self, name: str) -> str:
        return "127.0.0.1" if self._network is None or name not in self._network.hosts else self._network.address(name)

    def _tls(self, name: str) -> dict[str, str]:
        certs = self.folder / "certs"
        return {"ca": str(certs / "ca.crt"), "cert": str(certs / f"{name}.crt"), "key": str(certs / f"{name}.key")}

    def _write_manager(self, name: str, *, join: bool = False) -> None:
        member = self.member(name)
        config = {
            "cluster": "test",
            "name": name,
            "data_dir": str(self.folder / name),
            "api": {"listen": member["api"].removeprefix("https://")},
            "raft": {"listen": member["raft"], **self._settings.get("raft", {})},
            "members": self.members,
            "tls": self._tls(name),
            "tokens": str(self.folder / "tokens"),
            "join": join,
            **{key: value for key, value in self._settings.items() if key != "raft"},
        }
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(config))

    def _write_agent(self, name: str) -> None:
        config = {
            "name": name,
            "data_dir": str(self.folder / name),
            "managers": [member["api"] for member in self.members],
            "tls": self._tls(name),
            "capacity": {"cpu": 4, "memory": "4Gi"},
            "reconnect_max": "500ms",
        }
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(config))

    def start(self, *names: str, under: Sequence[str] = ()) -> None:
        """All, or these; `under` a command that runs another, like strace."""
        for name in names or (*self.manager_names, *self.agent_names):
            role = "manager" if name in self.manager_names else "agent"
            command = [sys.executable, "-m", "hasched", role, "start", "--config", str(self.folder / f"{name}.yaml")]
            if self._network is not None and name in self._network.hosts:
                command = self._network.command(name) + command
            command = [*under, *command]
            environment = {**os.environ, "HASCHED_LOG_FORMAT": "text"}  # for tests that read it, whatever ran before
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    command, stdout=log, stderr=log, env=environment, start_new_session=True
                )

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until the process is gone."""
        self.processes[name].kill()
        self.processes[name].wait()

    def terminate(self, name: str) -> int:
        """SIGTERM; the exit status."""
        self.processes[name].terminate()
        return self.processes[name].wait(30)

    def freeze(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGSTOP)
        self._frozen.append(name)

    def thaw(self, name: str) -> None:
        self._frozen.remove(name)
        self.processes[name].send_signal(signal.SIGCONT)

    def client(self, *names: str) -> Client:
        """A client of all managers, or of these."""
        urls = [member["api"] for member in self.members if not names or member["name"] in names]
        return Client(Context(managers=urls, ca=str(self.ca), token=self.token))

    def hasched(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line, as a user of this cluster."""
        environment = {
            **os.environ,
            "HASCHED_MANAGERS": ",".join(member["api"] for member in self.members),
            "HASCHED_CA": str(self.ca),
            "HASCHED_TOKEN": self.token,
        }
        command = [sys.executable, "-m", "hasched", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def wait_ready(self) -> None:
        """Until somebody leads, every manager answers and counts, and every agent is connected."""
        with self.client() as client:

            def whole() -> bool:
                page = client.managers()
                nodes = client.nodes().nodes
                return (
                    page.leader is not None
                    and all(manager.reachable and self.has_vote(manager.id) for manager in page.managers)
                    and len([node for node in nodes if node.connected and node.state == "healthy"])
                    == len(self.agent_names)
                )

            eventually("a whole cluster", whole)

    def has_vote(self, name: str) -> bool:
        """Whether a manager counts; at a cluster's first start it takes a moment after it is ready."""
        return bool(json.loads((self.folder / name / "identity.json").read_text())["voter"])

    def leader(self) -> str:
        with self.client() as client:
            return eventually("a leader", lambda: client.managers().leader)

    def logs(self) -> str:
        """The last lines of every process, for a failing test."""
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            process = self.processes.get(path.stem)
            ended = "" if process is None or process.poll() is None else f" (ended with {process.poll()})"
            parts.append(f"==== {path.name}{ended}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-40:]))
        return "\n".join(parts)

    def __enter__(self) -> ProcessCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._frozen):
            self.thaw(name)
        if kind is not None:
            print(self.logs())
        for process in self.processes.values():
            process.kill()
            process.wait()
        self._stop_supervisors()

    def _stop_supervisors(self) -> None:
        """End what outlives the agents by design: their supervisors, and with them their tasks."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            mark = str(self.folder).encode()
            if (mark in command and b"supervisor" in command) or (
                b"HASCHED_ATTEMPT=" in environment and mark in environment
            ):
                try:
                    os.kill(int(entry.name), signal.SIGKILL)
                except ProcessLookupError:
                    continue
