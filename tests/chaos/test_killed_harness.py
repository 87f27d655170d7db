"""The harness and its guard are killed at five points of a real run; `hasched chaos heal` leaves the machine as it was.

Needs root: the run makes hosts and disks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from chaos.safety.book import Book
from chaos.safety.undo import Interface, Namespace, RemoveFile, Table, Thaw, Undo
from tests.support.cluster import eventually
from tests.support.leftovers import traces_of

HASCHED = [sys.executable, "-m", "hasched"]
ROOT = Path(__file__).parent.parent.parent
SYS_NET = Path("/sys/class/net")


class Run(NamedTuple):
    """A harness at work, and what it says."""

    process: subprocess.Popen[bytes]
    log: Path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "HASCHED_STATE_DIR": str(tmp_path / "state")}


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[[str], Run]]:
    started: list[Run] = []

    def start(nemesis: str) -> Run:
        command = [*HASCHED, "chaos", "run", "--nemesis", nemesis, "--workload", "submit", "--minutes", "2"]
        path = tmp_path / "harness.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [*command, "--seed", "1", "--output", str(tmp_path)], env=environment, stdout=log, stderr=log, cwd=ROOT
            )
        started.append(Run(process, path))
        return started[-1]

    yield start
    for run in started:
        run.process.kill()
        run.process.wait()
        print(run.log.read_text())
    heal(environment)


def heal(environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [*HASCHED, "chaos", "heal", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def read_ledger(state: Path) -> tuple[str, list[Undo]]:
    """The run's name, and the ways back that it has written down and not walked yet. Nothing, if there is no ledger."""
    for path in (state / "chaos" / "ledgers").glob("[!.]*.jsonl"):
        book = Book(path)
        try:
            return book.owner.run if book.owner else "", [entry.undo for entry in book.open.values()]
        finally:
            book.close()
    return "", []


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


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended
        return []


@pytest.mark.skipif(os.geteuid() != 0, reason="hosts and disks need root")
@pytest.mark.parametrize(
    ("nemesis", "way_back", "said"),
    [
        pytest.param("kill-leader", Namespace, "", id="while the cluster is made"),
        pytest.param("freeze-manager", Thaw, "", id="while a manager stands still"),
        pytest.param("split-halves", Table, "", id="while the network is cut"),
        pytest.param("full-disk", RemoveFile, "", id="while a disk is full"),
        pytest.param("kill-agent", Undo, "kill-agent n", id="while clients work"),
    ],
)
def test_heal_leaves_the_machine_as_it_was(nemesis, way_back, said, start, environment, tmp_path):
    state = tmp_path / "state"
    run = start(nemesis)

    def is_there() -> bool:
        undos = read_ledger(state)[1]
        return run.process.poll() is not None or (
            any(isinstance(undo, way_back) for undo in undos) and said in run.log.read_text()
        )

    eventually("the harm", is_there, patience_s=90)
    assert run.process.poll() is None, "the run ended first"
    kill_with_guard(run.process)
    run_id, undos = read_ledger(state)
    assert undos and traces_of(run_id)

    dry = heal(environment, "--dry-run")
    assert dry.returncode == 0 and "would undo: " in dry.stdout
    assert read_ledger(state) == (run_id, undos), "a dry run undoes nothing"

    healed = heal(environment)
    assert healed.returncode == 0, healed.stderr
    assert traces_of(run_id) == []
    assert not [each.name for each in undos if isinstance(each, Interface) and (SYS_NET / each.name).exists()]
    assert not list((state / "chaos" / "ledgers").iterdir())

    again = heal(environment)
    assert (again.returncode, again.stdout) == (0, "there is nothing to undo\n")
