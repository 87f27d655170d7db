"""The harness and its guard are killed at five points of a real run; `hasched chaos heal` leaves the machine as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from chaos.safety.book import Book
from chaos.safety.undo import KillMarked, Namespace, RemoveFile, Thaw, Undo
from tests.support.cluster import eventually

HASCHED = [sys.executable, "-m", "hasched"]
ROOT = Path(__file__).parent.parent.parent


def machine() -> dict[str, list[str]]:
    """What a run makes and must take away again, and what stands still."""
    namespaces = json.loads(_output("ip", "-j", "netns", "list") or "[]")
    return {
        "namespaces": sorted(each["name"] for each in namespaces),
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "mounts": sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "loop devices": sorted(_output("losetup", "-n", "-O", "BACK-FILE").split()),
        "tables": sorted(_output("nft", "list", "tables").splitlines()),
        "folders": sorted(str(path) for path in Path("/tmp").glob("hasched-chaos-*")),
        "daemons": sorted(str(each.pid) for each in psutil.process_iter() if _works_for_chaos(each)),
    }


def _works_for_chaos(process: psutil.Process) -> bool:
    return any("/hasched-chaos-" in argument for argument in _command_line(process))


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended
        return []


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "HASCHED_STATE_DIR": str(tmp_path / "state")}


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    started = []

    def start(nemesis: str) -> subprocess.Popen[bytes]:
        command = [*HASCHED, "chaos", "run", "--nemesis", nemesis, "--workload", "submit", "--minutes", "2"]
        with (tmp_path / "harness.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--seed", "1", "--output", str(tmp_path)], env=environment, stdout=log, stderr=log, cwd=ROOT
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
    print((tmp_path / "harness.log").read_text())
    heal(environment)


def heal(environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [*HASCHED, "chaos", "heal", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def open_undos(state: Path) -> list[Undo]:
    """The ways back that the run has written down and not walked yet."""
    found: list[Undo] = []
    for path in (state / "chaos" / "ledgers").glob("*.jsonl"):
        book = Book(path)
        found += [entry.undo for entry in book.open.values()]
        book.close()
    return found


def kill_with_guard(harness: subprocess.Popen[bytes]) -> None:
    """Neither may have a moment without the other: the one that could notice stands still."""
    harness.send_signal(signal.SIGSTOP)
    children = psutil.Process(harness.pid).children()
    guards = [child for child in children if "chaos.safety.guard" in _command_line(child)]
    assert len(guards) == 1
    guards[0].kill()
    harness.kill()
    harness.wait()
    psutil.wait_procs(guards, timeout=10)


@pytest.mark.parametrize(
    ("nemesis", "is_there"),
    [
        pytest.param("kill-leader", lambda undo: isinstance(undo, Namespace), id="while the cluster is made"),
        pytest.param("freeze-manager", lambda undo: isinstance(undo, Thaw), id="while a manager stands still"),
        pytest.param(
            "split-halves",
            lambda undo: "cut" in str(undo) or type(undo).__name__ == "Table",
            id="while the network is cut",
        ),
        pytest.param("full-disk", lambda undo: isinstance(undo, RemoveFile), id="while a disk is full"),
        pytest.param("kill-agent", lambda undo: isinstance(undo, KillMarked), id="while clients work"),
    ],
)
def test_heal_leaves_the_machine_as_it_was(nemesis, is_there, start, environment, tmp_path):
    before = machine()
    harness = start(nemesis)
    state = tmp_path / "state"
    eventually("the harm", lambda: harness.poll() is not None or any(map(is_there, open_undos(state))), patience_s=90)
    assert harness.poll() is None, "the run ended first"
    kill_with_guard(harness)
    assert open_undos(state) and machine() != before

    dry = heal(environment, "--dry-run")
    assert dry.returncode == 0 and "would undo: " in dry.stdout
    assert open_undos(state), "a dry run undoes nothing"

    healed = heal(environment)
    assert healed.returncode == 0, healed.stderr
    assert machine() == before
    assert not list((state / "chaos" / "ledgers").iterdir())

    again = heal(environment)
    assert (again.returncode, again.stdout) == (0, "there is nothing to undo\n")
