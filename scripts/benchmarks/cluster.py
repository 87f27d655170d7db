"""A real cluster for a benchmark: `hasched dev` with its own data directory, and what one must know to measure it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from hasched.client.sync import Client

READY_TIMEOUT_S = 60


class Cluster:
    """A running development cluster. `folder` holds its data, `client()` reaches it through its own context."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], environment: dict[str, str]) -> None:
        self.folder = folder
        self.process = process
        self.environment = environment

    def client(self) -> Client:
        """A synchronous client; the caller closes it."""
        from hasched.client.context import load_context

        return Client(load_context(environ=self.environment))

    def processes(self) -> dict[str, int]:
        """Process ids by name: m1, m2, m3, n1, …"""
        state = json.loads((self.folder / "processes.json").read_text())
        return {name: int(pid) for name, pid in state.items()}

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far by process, an agent's supervisor (and what it has reaped) apart from the agent itself."""
        spent: dict[str, float] = {}
        for name, pid in self.processes().items():
            times = psutil.Process(pid).cpu_times()
            spent[name] = times.user + times.system
        for name, pid in self.supervisors().items():
            times = psutil.Process(pid).cpu_times()
            spent[f"{name}-supervisor"] = times.user + times.system
            spent[f"{name}-tasks"] = times.children_user + times.children_system
        return spent

    def supervisors(self) -> dict[str, int]:
        """Process ids of the agents' supervisors, by node."""
        found = {}
        for process in psutil.process_iter(["pid", "cmdline"]):
            arguments = process.info["cmdline"] or []
            if any("supervisor" in argument for argument in arguments) and any(
                str(self.folder) in argument for argument in arguments
            ):
                for name in self.processes():
                    if any(f"/{name}" in argument for argument in arguments):
                        found[name] = process.info["pid"]
        return found

    def leader(self) -> str:
        """The leading manager's name, once there is one."""
        with self.client() as client:
            while True:
                page = client.managers()
                if page.leader is not None and all(manager.reachable for manager in page.managers):
                    return page.leader
                time.sleep(0.05)

    def wait_until_whole(self) -> None:
        """Until every manager answers and every node is connected."""
        with self.client() as client:
            while True:
                managers = client.managers()
                nodes = client.nodes().nodes
                if (
                    managers.leader is not None
                    and all(manager.reachable for manager in managers.managers)
                    and all(node.connected and node.state == "healthy" for node in nodes)
                ):
                    return
                time.sleep(0.05)


@contextmanager
def dev_cluster(managers: int = 3, agents: int = 1) -> Iterator[Cluster]:
    """Start `hasched dev` in a temporary directory, yield it when it is ready, and stop all of it."""
    with tempfile.TemporaryDirectory(prefix="hasched-bench-") as name:
        folder = Path(name)
        environment = {**os.environ, "HASCHED_CONFIG_DIR": str(folder / "config")}
        environment.pop("HASCHED_CONTEXT", None)
        data = folder / "data"
        command = [sys.executable, "-m", "hasched", "dev", "--managers", str(managers), "--agents", str(agents)]
        command += ["--data-dir", str(data)]
        with (folder / "dev.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        cluster = Cluster(data, process, environment)
        try:
            _wait_for_ready(process, folder / "dev.log")
            cluster.wait_until_whole()
            yield cluster
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while "ready" not in log.read_text(errors="replace").lower():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"hasched dev did not become ready:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)
