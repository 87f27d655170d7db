"""Logs: offsets that stay true while the oldest bytes go, tails, followers, and what is kept for how long."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from hasched.agent import holes
from hasched.agent.logs import Retention, read_piece
from hasched.agent.table import Table
from hasched.model.ids import AttemptId
from tests.agent.peer import AgentProcess, Peer, not_expected, text_of
from tests.agent.test_running import shell


async def test_ranges_and_tails(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    await peer.run(shell("printf 0123456789"))
    assert text_of(await peer.read_log(1, 0, 1, offset=2, limit=3)) == b"234"
    (tail,) = await peer.read_log(1, 0, 0, offset=-4, limit=4)
    assert (tail.offset, tail.data, tail.end) == (6, b"6789", True)
    (nothing,) = await peer.read_log(1, 0, 1, offset=99)
    assert (nothing.data, nothing.end, nothing.error) == (b"", True, "")


async def test_following_ends_with_the_task(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    await peer.assign(1, shell("echo one; while [ ! -e go ]; do sleep 0.02; done; echo two"))
    request = await peer.request_log(1, 0, 0, follow=True)
    await peer.until(lambda: text_of(peer.of(request)) == b"one\n")
    assert not peer.of(request)[-1].end
    (agent.data_dir / "attempts/1/0.1/work/go").touch()
    await peer.until(lambda: peer.of(request)[-1].end)
    assert text_of(peer.of(request)) == b"one\ntwo\n"


async def test_what_is_not_there_is_said(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    await peer.run(shell("true"))
    for key, stream, cause in (
        ((9, 0, 1), "stdout", "holds no log"),
        ((1, 0, 2), "stdout", "holds no log"),
        ((1, 0, -1), "stdout", "holds no log"),
        ((1, 0, 1), "../../../../etc/passwd", "no stream"),
    ):
        (chunk,) = await peer.read_log(*key, stream=stream)
        assert chunk.end
        assert cause in chunk.error


async def test_a_large_log_loses_its_oldest_bytes_and_keeps_its_offsets(agent: AgentProcess, peer: Peer) -> None:
    agent.settings = {"logs": {"max_bytes": 64 * 1024}}
    await agent.start()
    ended = await peer.run(shell("seq -f %09g 0 99999"))  # 1,000,000 bytes, ten a line
    path = agent.data_dir / "attempts/1/0.1/stdout"
    assert path.stat().st_size == 1_000_000
    assert path.stat().st_blocks * 512 <= 64 * 1024 + 2 * holes.BLOCK_BYTES
    first, *_ = await peer.read_log(1, 0, 1)
    assert first.offset == first.first_offset >= 1_000_000 - 64 * 1024 - holes.BLOCK_BYTES
    whole = await peer.log_of(ended)
    assert first.offset + len(whole) == 1_000_000
    (line,) = await peer.read_log(1, 0, 1, offset=990_000, limit=10)
    assert line.data == b"000099000\n"


async def test_a_log_is_bounded_while_its_task_runs(agent: AgentProcess, peer: Peer) -> None:
    agent.settings = {"logs": {"max_bytes": 64 * 1024}}
    await agent.start()
    await peer.assign(1, shell("seq -f %09g 0 99999; echo done >&2; exec sleep 300"))
    await peer.started(1, 0, 1)
    while True:
        (chunk,) = await peer.read_log(1, 0, 1, offset=-10, limit=10)
        if chunk.first_offset:
            break
    assert chunk.data == b"000099999\n"


def test_a_piece_never_shows_the_zeros_of_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a" * 100_000)
    assert holes.bound(str(path), 50_000)
    piece = read_piece(path, 0, 1000)
    assert piece.offset == piece.first_offset > 0
    assert piece.data == b"a" * 1000


def test_a_log_below_its_bound_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a" * 10_000)
    assert holes.bound(str(path), 10_000)
    assert read_piece(path, 0, 20_000).data == b"a" * 10_000


def attempt(data_dir: Path, name: str, age_s: int, size: int) -> Path:
    directory = data_dir / "attempts" / name
    directory.mkdir(parents=True)
    (directory / "stdout").write_bytes(b"x" * size)
    then = (directory.stat().st_mtime - age_s,) * 2
    os.utime(directory / "stdout", then)
    os.utime(directory, then)
    return directory


def test_retention_removes_the_oldest_first(tmp_path: Path) -> None:
    old = attempt(tmp_path, "1/0.1", 5000, 10)
    large = attempt(tmp_path, "2/0.1", 3000, 500_000)
    small = attempt(tmp_path, "2/1.1", 2000, 10)
    running = attempt(tmp_path, "3/0.1", 9000, 10)
    assert Retention(tmp_path, keep_ms=4_000_000, keep_bytes=100_000).sweep(frozenset({AttemptId(3, 0, 1)})) == 2
    assert (old.exists(), large.exists(), small.exists(), running.exists()) == (False, False, True, True)
    assert not old.parent.exists()


def test_retention_leaves_what_has_only_just_ended(tmp_path: Path) -> None:
    fresh = attempt(tmp_path, "1/0.1", 5, 500_000)
    assert Retention(tmp_path, keep_ms=0, keep_bytes=0).sweep(frozenset()) == 0
    assert fresh.exists()


def test_retention_passes_over_what_tasks_made_beside_their_directories(tmp_path: Path) -> None:
    old = attempt(tmp_path, "1/0.1", 5000, 10)
    attempts = tmp_path / "attempts"
    for name in ("checkpoints", "checkpoints/0.1", "1/checkpoints", "1/1.x", "1/.2", "1/0.²", "1/01"):
        (attempts / name).mkdir()
    for name in ("7", "notes", "1/0.7"):
        (attempts / name).write_text("a file")
    (attempts / "8").symlink_to(attempts / "1")
    assert Retention(tmp_path, keep_ms=1, keep_bytes=0).sweep(frozenset()) == 1
    assert not old.exists()
    assert {path.name for path in attempts.iterdir()} == {"checkpoints", "1", "7", "8", "notes"}


async def test_a_task_cannot_end_the_agent_with_names_of_its_own(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    foreign = "for up in . .. ../..; do mkdir $up/checkpoints; touch $up/notes $up/0.x; done"
    await peer.run(shell(f"cd $(dirname $HASCHED_OUTPUT); {foreign}; echo said"))
    await agent.kill(signal.SIGTERM)
    await agent.start()
    await peer.until(lambda: len(peer.hellos) == 2)
    assert text_of(await peer.read_log(1, 0, 0)) == b"said\n"
    beats = peer.heartbeats
    await peer.until(lambda: peer.heartbeats > beats + 2)
    assert len(peer.hellos) == 2


def test_a_table_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    import sqlite3

    (tmp_path / "attempts.db").write_bytes(b"not a database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Table(str(tmp_path / "attempts.db"), lambda number, failure: None, not_expected).open()
