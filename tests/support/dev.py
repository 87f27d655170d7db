"""A running `hasched dev`, and the second terminal beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.cluster import eventually

PROGRAM = [sys.executable, "-P", "-m", "hasched"]


class Dev:
    """A running `hasched dev` and the commands that a user types beside it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.data = folder / "data"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HASCHED_")}
        self.environment = {**kept, "HASCHED_CONFIG_DIR": str(folder / "config")}
        command = [*PROGRAM, "dev", "--data-dir", str(self.data), "--json", *options]
        self.log = folder / "dev.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        self.ready = eventually("the cluster to be ready", self._ready)

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def _ready(self) -> dict[str, object] | None:
        assert self.process.poll() is None, self.log.read_text()
        return next((event for event in self.events() if event["event"] == "ready"), None)

    def pids(self) -> dict[str, int]:
        pids: dict[str, int] = json.loads((self.data / "processes.json").read_text())
        return pids

    def run(
        self, *arguments: str, input: str | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command in another terminal."""
        return subprocess.run(
            [*PROGRAM, *arguments],
            env=env or self.environment,
            input=input,
            check=False,
            capture_output=True,
            text=True,
            timeout=90,
        )

    def json(self, *arguments: str) -> dict[str, object]:
        end = arguments.index("--") if "--" in arguments else len(arguments)
        done = self.run(*arguments[:end], "--json", *arguments[end:])
        assert done.returncode == 0, done.stderr
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    def remains(self) -> list[str]:
        """Command lines of processes that still have to do with this cluster."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or [])
            if str(self.data) in line and process.pid != self.process.pid and process.info["status"] != "zombie":
                found.append(line)
        return found

    def __enter__(self) -> Dev:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)
