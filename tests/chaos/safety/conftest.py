"""What the tests of safety share: a state directory of their own, a process to freeze, a harness to kill."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from chaos.safety.identity import Born, is_stopped
from tests.chaos.safety.harness import HARNESS, SLEEP, Harness, known
from tests.support.cluster import eventually


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder that the harness could have made: elsewhere it removes and unmounts nothing."""
    folder = tmp_path / "hasched-chaos-test"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HASCHED_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Processes that are gone at the end of the test."""
    with ExitStack() as stack:

        def spawn(*command: str, **options: object) -> subprocess.Popen[str]:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            process = subprocess.Popen(command or SLEEP, text=True, **{**pipes, **options})  # type: ignore[call-overload]
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process  # type: ignore[no-any-return]

        yield spawn


@pytest.fixture
def victim(spawn: Callable[..., subprocess.Popen[str]]) -> Born:
    return known(spawn().pid)


@pytest.fixture
def start(spawn: Callable[..., subprocess.Popen[str]], victim: Born, tmp_path: Path) -> Callable[..., Harness]:
    def start(seconds: float = 600) -> Harness:
        harness = Harness(spawn(sys.executable, "-c", HARNESS, str(victim.pid), str(tmp_path / "made"), str(seconds)))
        eventually("the freeze", lambda: seconds < 1 or is_stopped(victim))
        return harness

    return start
