"""What a dead harness and its guard have left is undone, once, and by who may."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from chaos.safety.book import Book, Owner
from chaos.safety.healing import heal
from chaos.safety.identity import Born, is_alive, is_stopped
from chaos.safety.undo import (
    Kill,
    RemoveFile,
    RemoveFolder,
    Undo,
)
from tests.chaos.safety.harness import Harness, audited
from tests.support.cluster import eventually

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mounts and packet filters need root")


def test_healing_undoes_what_a_dead_harness_and_guard_left(start: Callable[..., Harness], victim: Born, state: Path):
    harness = start()
    harness.kill(guard=True)
    assert is_stopped(victim)
    with harness.ledger.open("a") as file:
        file.write('{"type":"armed","number":3,"wh')  # the harness died in the middle of a line
    planned = heal(all_of_them=False, dry_run=True)
    assert is_stopped(victim), "a dry run changes nothing"
    done = heal(all_of_them=False, dry_run=False)
    assert done == planned
    assert [f"run {harness.run} on c1: {what}" for what in (f"let {victim} go on (a freeze)",)] == done.done[:1]
    assert len(done.done) == 2
    assert not is_stopped(victim)
    assert not harness.ledger.exists()
    assert [line["act"] for line in audited(state)] == ["arm", "arm", "heal", "heal"]


def test_a_reason_is_legible_after_half_a_line(start: Callable[..., Harness], state: Path, tmp_path: Path):
    harness = start()
    harness.kill(guard=True)
    (tmp_path / "made").unlink()
    (tmp_path / "made").mkdir()  # now it can't be removed as a file
    with harness.ledger.open("a") as file:
        file.write('{"type":"armed","number":3,"wh')
    assert len(heal(all_of_them=False, dry_run=False).failed) == 1
    assert "Is a directory" in Book(harness.ledger).left()[0]


def test_a_run_under_way_is_left_alone_unless_all_are_meant(start: Callable[..., Harness], victim: Born):
    harness = start()
    healed = heal(all_of_them=False, dry_run=False)
    assert (healed.done, healed.failed) == ([], [])
    assert "under way" in healed.left[0]
    assert is_stopped(victim)
    healed = heal(all_of_them=True, dry_run=False)
    assert (healed.left, healed.failed) == ([], [])
    assert "told process" in healed.done[0]
    assert not is_alive(harness.born)
    assert not is_stopped(victim)
    assert not harness.ledger.exists()


def test_a_ledger_that_is_finished_while_we_look_hinders_no_healing(tmp_path: Path, state: Path):
    path = _ledger_of_the_dead(tmp_path, RemoveFile(str(tmp_path / "x")))
    path.with_name(".new.jsonl").symlink_to("gone by now")
    healed = heal(all_of_them=False, dry_run=False)
    assert (len(healed.done), healed.failed) == (1, [])


def test_healing_at_the_same_time_heals_once(spawn: Callable[..., subprocess.Popen[str]], tmp_path: Path, state: Path):
    path = _ledger_of_the_dead(tmp_path, *(RemoveFile(str(tmp_path / str(n))) for n in range(50)))
    program = "from chaos.safety.healing import heal; import sys; input(); print(len(heal(False, False).done))"
    healers = [spawn(sys.executable, "-c", program) for _ in range(3)]
    for healer in healers:
        assert healer.stdin is not None
        healer.stdin.write("now\n")
        healer.stdin.flush()
    done = [int(healer.communicate()[0]) for healer in healers]
    assert sum(done) == 50
    assert len(audited(state)) == 50
    assert not path.exists()


def test_nobody_undoes_what_somebody_else_is_just_undoing(spawn: Callable[..., subprocess.Popen[str]], tmp_path: Path):
    """The lock is held by whoever is at it; who waited finds it struck off, and leaves alone what may be new by then."""
    (tmp_path / "made anew").touch()
    book = Book(_ledger_of_the_dead(tmp_path, RemoveFile(str(tmp_path / "made anew"))))
    with book.locked():
        program = "from chaos.safety.healing import heal; print(len(heal(False, False).done))"
        healer = spawn(sys.executable, "-c", program)
        eventually("the healer to read the ledger", lambda: _has_open(healer.pid, book.path))
        book.strike_off(1)
    assert healer.communicate()[0] == "0\n"
    assert (tmp_path / "made anew").exists()


def _has_open(pid: int, path: Path) -> bool:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if entry.readlink() == path:
                return True
    return False


def test_after_a_restart_of_the_machine_processes_are_not_mistaken(victim: Born, tmp_path: Path):
    (tmp_path / "hasched-chaos-x").mkdir()
    _ledger_of_the_dead(tmp_path, RemoveFolder(str(tmp_path / "hasched-chaos-x")), Kill(victim), boot="another")
    healed = heal(all_of_them=False, dry_run=False)
    assert (healed.failed, healed.left) == ([], [])
    assert is_alive(victim)
    assert not (tmp_path / "hasched-chaos-x").exists()


@needs_root
def test_ledgers_of_others_are_left_with_a_word(victim: Born, tmp_path: Path):
    away = _ledger_of_the_dead(tmp_path, Kill(victim), host="elsewhere", run="r1")
    theirs = _ledger_of_the_dead(tmp_path, Kill(victim), run="r2")
    os.chown(theirs, 65534, -1)
    healed = heal(all_of_them=True, dry_run=False)
    assert (healed.done, healed.failed) == ([], [])
    assert len(healed.left) == 2
    assert "of the machine elsewhere" in healed.left[0]
    assert "belongs to nobody" in healed.left[1]
    assert is_alive(victim)
    assert away.exists()
    assert theirs.exists()


def test_what_a_newer_version_armed_is_not_forgotten(tmp_path: Path):
    path = _ledger_of_the_dead(tmp_path)
    with path.open("a") as file:
        file.write('{"type":"armed","number":9,"what":"a spell","undo":{"type":"Unspell"},"until_ms":0}\n')
    healed = heal(all_of_them=False, dry_run=False)
    assert len(healed.failed) == 1
    assert "Unspell" in healed.failed[0]
    assert path.exists()


def _ledger_of_the_dead(folder: Path, *undos: Undo, boot: str = "", host: str = "", run: str = "r") -> Path:
    """As a harness left it that is gone by now."""
    from chaos.safety.book import Entry
    from chaos.safety.identity import boot_id

    ledgers = folder / "state" / "chaos" / "ledgers"
    ledgers.mkdir(parents=True, exist_ok=True)
    gone = Born(os.getpid(), 1)
    owner = Owner(
        run=run,
        cluster="c1",
        command="",
        harness=gone,
        boot=boot or boot_id(),
        host=host or os.uname().nodename,
        uid=os.geteuid(),
        at_ms=0,
    )
    book = Book.create(ledgers / f"{run}.jsonl", owner)
    for number, undo in enumerate(undos, 1):
        book.add(Entry(number=number, what="x", undo=undo))
    book.close()
    return book.path
