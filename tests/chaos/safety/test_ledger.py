"""A fault has its way back on disk before it begins, and somebody walks it, whoever dies, hangs or runs out of disk."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.errors import MachineLacks
from chaos.safety import places
from chaos.safety.book import Book
from chaos.safety.healing import Healed, heal
from chaos.safety.identity import Born, is_alive, is_stopped, send
from chaos.safety.ledger import Ledger
from chaos.safety.undo import (
    RemoveFile,
    RemoveFolder,
    Unmount,
)
from tests.chaos.safety.harness import Harness, audited
from tests.support.cluster import eventually

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mounts and packet filters need root")

# --- where it is kept ---


@pytest.mark.parametrize(
    ("uid", "variables", "folder"),
    [
        pytest.param(0, {}, "/var/lib/hasched-chaos", id="root's is not the managers' /var/lib/hasched"),
        pytest.param(7, {}, "/home/u/.local/state/hasched-chaos", id="an ordinary user's"),
        pytest.param(7, {"XDG_STATE_HOME": "/s"}, "/s/hasched-chaos", id="where the user keeps such things"),
        pytest.param(7, {"XDG_STATE_HOME": "s"}, "/home/u/.local/state/hasched-chaos", id="not where we just stand"),
        pytest.param(0, {"HASCHED_STATE_DIR": "/x"}, "/x/chaos", id="as was asked for"),
    ],
)
def test_the_ledgers_and_the_audit_log_lie_together(uid, variables, folder, monkeypatch: pytest.MonkeyPatch):
    for name in ("HASCHED_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/u", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert (places.ledgers_dir(), places.audit_path()) == (Path(folder, "ledgers"), Path(folder, "audit.jsonl"))
    for name, value in places.variables().items():  # a guard's, which stands elsewhere
        monkeypatch.setenv(name, value)
    assert places.ledgers_dir() == Path(folder, "ledgers")


def test_every_folder_that_is_made_for_them_is_the_users_alone(tmp_path: Path):
    before = os.umask(0)
    try:
        places.make_private(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o700] * 3


# --- the ledger of a run that goes well ---


def test_the_way_back_is_on_disk_before_the_harm(tmp_path: Path, state: Path):
    with Ledger.open("c1", command="hasched chaos run --seed 1") as ledger:
        armed = ledger.arm(RemoveFile(str(tmp_path / "x")), "a file", 60)
        book = Book(ledger.path)
        assert book.owner is not None
        assert (book.owner.cluster, book.owner.command) == ("c1", "hasched chaos run --seed 1")
        assert [(each.undo, each.what) for each in book.open.values()] == [(RemoveFile(str(tmp_path / "x")), "a file")]
        armed.undo()
        book.refresh()
        assert not book.open
    assert list((state / "chaos" / "ledgers").iterdir()) == []


def test_a_run_undoes_what_is_left_the_latest_first(tmp_path: Path, state: Path):
    folder = tmp_path / "hasched-chaos-x"
    folder.mkdir()
    with Ledger.open("c1", command="") as ledger:
        ledger.arm(RemoveFolder(str(folder)), "first")
        ledger.arm(RemoveFile(str(folder / "x")), "second")
        ledger.arm(RemoveFile(str(folder / "y")), "third").strike_off()
    assert ledger.left == []
    undone = [line["what"].partition("(")[2].rstrip(")") for line in audited(state) if line["act"] == "undo"]
    assert undone == ["second", "first"]


def test_what_cannot_be_undone_stays_with_its_reason_and_hinders_nothing_else(tmp_path: Path):
    (tmp_path / "control").mkdir()
    (tmp_path / "other").touch()
    with Ledger.open("c1", command="") as ledger:
        ledger.arm(RemoveFile(str(tmp_path / "other")), "another file")
        ledger.arm(RemoveFile(str(tmp_path / "control")), "a file")
    assert not (tmp_path / "other").exists()
    assert len(ledger.left) == 1
    assert "Is a directory" in ledger.left[0]
    first = heal(all_of_them=False, dry_run=False)
    assert first.done == []
    assert "Is a directory" in first.failed[0]
    (tmp_path / "control").rmdir()
    assert len(heal(all_of_them=False, dry_run=False).done) == 1
    assert heal(all_of_them=False, dry_run=False) == Healed()


def test_everything_is_noted(tmp_path: Path, state: Path):
    with (
        Ledger.open("c1", command="") as ledger,
        ledger.armed(RemoveFile(str(tmp_path / "x")), "a file", 5),
    ):
        pass
    arm, undo = audited(state)
    assert (arm["act"], undo["act"]) == ("arm", "undo")
    for line in (arm, undo):
        assert line["run"] == ledger.run_id
        assert line["cluster"] == "c1"
        assert "a file" in line["what"]
        assert line["user"]
        assert line["host"]
        assert line["time"].endswith("+00:00")
    assert (state / "chaos" / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_without_an_audit_log_nothing_is_harmed(tmp_path: Path, state: Path):
    with Ledger.open("c1", command="") as ledger:
        (state / "chaos" / "audit.jsonl").mkdir(parents=True)
        with (
            pytest.raises(MachineLacks, match="audit log can't be written"),
            ledger.armed(RemoveFile(str(tmp_path / "x")), "a file"),
        ):
            pytest.fail("the harm would be done here")
        assert Book(ledger.path).open == {}


@needs_root
def test_on_a_full_disk_nothing_is_harmed_and_everything_undone(tmp_path: Path, state: Path):
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", state], check=True)
    try:
        (tmp_path / "x").touch()
        with Ledger.open("c1", command="") as ledger:
            ledger.arm(RemoveFile(str(tmp_path / "x")), "a file")
            with pytest.raises(OSError), (state / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
            refused = 0
            while not refused:  # until the last pages of the files themselves are full
                try:
                    ledger.arm(RemoveFile(str(tmp_path / "y")), "x" * 500)
                except MachineLacks:
                    refused += 1
        assert ledger.left == []
        assert not (tmp_path / "x").exists()
        (state / "filler").unlink()
        assert heal(all_of_them=False, dry_run=False) == Healed()
    finally:
        Unmount(str(state)).perform()


# --- a harness that dies, or hangs ---


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_harness_that_ends_leaves_nothing(start: Callable[..., Harness], victim: Born, number: signal.Signals):
    """Killed, its guard heals; interrupted, it does so itself."""
    harness = start()
    harness.process.send_signal(number)
    harness.process.wait()
    eventually("the guard to heal", lambda: not harness.ledger.exists())
    eventually("the guard to end", lambda: not is_alive(harness.guard))
    assert not is_stopped(victim)


def test_a_guard_does_not_end_when_the_terminal_does(start: Callable[..., Harness], victim: Born):
    harness = start()
    assert os.getsid(harness.guard.pid) == harness.guard.pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert send(harness.guard, number)
    harness.kill(guard=False)
    eventually("the guard to heal", lambda: not harness.ledger.exists())
    assert not is_stopped(victim)


def test_a_harness_that_hangs_does_not_keep_a_fault_beyond_its_deadline(
    start: Callable[..., Harness], victim: Born, state: Path
):
    harness = start(seconds=0.1)  # the guard gives it a while more
    send(harness.born, signal.SIGSTOP)
    eventually("the guard to end the freeze", lambda: [line for line in audited(state) if line["act"] == "heal"])
    assert not is_stopped(victim)
    made = harness.ledger.parents[3] / "made"
    assert made.exists(), "what is for the life of the run stays"
    send(harness.born, signal.SIGCONT)
    assert harness.end() == "ended\n"
    assert not made.exists()
    assert not harness.ledger.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_nothing_is_harmed_without_a_guard(tmp_path: Path, number: signal.Signals):
    with Ledger.open("c1", command="") as ledger:
        first = ledger.guard
        assert first is not None
        send(first, number)
        eventually("it to be down", lambda: is_stopped(first) or not is_alive(first))
        ledger.arm(RemoveFile(str(tmp_path / "x")), "a file")
        second = ledger.guard
        assert second is not None
        assert second != first
        assert is_alive(second)
        assert not is_alive(first)
    assert not is_alive(second)


def test_a_guard_keeps_the_audit_log_of_its_run_though_it_stands_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HASCHED_STATE_DIR", "state")
    with Ledger.open("c1", command="") as ledger:
        assert ledger.guard is not None
        variables = Path(f"/proc/{ledger.guard.pid}/environ").read_text().split("\0")
    assert f"HASCHED_STATE_DIR={tmp_path}/state" in variables
