"""A node that can't start tasks says so, blames no job, and takes work again once its disk does."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hasched.agent.health import PROBE_BYTES, Health, probe
from hasched.model.states import EndKind
from tests.agent.peer import AgentProcess, Peer, until
from tests.agent.test_running import shell


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of its own with a few megabytes."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(directory)], check=False)
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
async def full(small_disk: Path, peer: Peer) -> AsyncIterator[AgentProcess]:
    data_dir = small_disk / "agent"
    data_dir.mkdir()
    agent = AgentProcess(peer.certificates, data_dir, [peer.url])
    yield agent
    await agent.end()


def fill(directory: Path) -> Path:
    """A file that leaves no room for another byte."""
    path = directory / "filler"
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


async def test_a_full_disk_loses_attempts_and_asks_for_no_more_work(
    full: AgentProcess, small_disk: Path, peer: Peer
) -> None:
    await full.start()
    assert (await peer.run(shell("true"))).kind is EndKind.EXITED
    assert peer.accepts
    filler = fill(small_disk)
    for _ in range(5):
        ended = await peer.run(shell("true"))
        assert ended.kind in (EndKind.EXITED, EndKind.LOST)
    assert ended.kind is EndKind.LOST
    assert "full" in ended.reason or "space" in ended.reason
    assert not peer.accepts, "said before the report of the end"
    filler.unlink()
    await peer.until(lambda: peer.accepts)
    assert (await peer.run(shell("true"))).kind is EndKind.EXITED


async def test_an_agent_that_is_started_on_a_full_disk_waits_until_there_is_room(small_disk: Path, peer: Peer) -> None:
    log, filler = small_disk.parent / "agent.log", fill(small_disk)
    agent = AgentProcess(peer.certificates, small_disk, [peer.url])
    try:
        await agent.start()
        await until(lambda: b"disk_full" in log.read_bytes())
        filler.unlink()
        assert (await peer.run(shell("true"))).kind is EndKind.EXITED
        assert b"agent_failed" not in log.read_bytes()
    finally:
        await agent.end()


async def test_an_agent_that_waits_for_room_can_be_stopped(small_disk: Path, peer: Peer) -> None:
    log = small_disk.parent / "agent.log"
    fill(small_disk)
    agent = AgentProcess(peer.certificates, small_disk, [peer.url])
    await agent.start()
    await until(lambda: b"disk_full" in log.read_bytes())
    assert await agent.kill(signal.SIGTERM) == 0


async def test_a_new_session_hears_it_too(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    await peer.run(shell("true"))
    (agent.data_dir / "attempts").rename(agent.data_dir / "moved")
    (agent.data_dir / "attempts").write_text("in the way")
    await peer.run(shell("true"))
    peer.accepts = True
    await peer.drop()
    await peer.until(lambda: len(peer.hellos) == 2)
    await peer.until(lambda: not peer.accepts)


async def test_health_comes_back_when_the_disk_does(tmp_path: Path) -> None:
    changed = asyncio.Event()
    health = Health(tmp_path, changed.set, probe)
    running = asyncio.create_task(health.run())
    health.failed("no space left on the device")
    assert changed.is_set()
    assert not health.accepts
    changed.clear()
    (tmp_path / "attempts").mkdir()
    async with asyncio.timeout(20):
        await changed.wait()
    assert health.accepts
    running.cancel()


async def test_heartbeats_go_on_when_the_usage_cannot_be_read(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    await peer.until(lambda: peer.heartbeats)
    agent.data_dir.rename(agent.data_dir.with_name("moved"))
    beats = peer.heartbeats
    await peer.until(lambda: peer.heartbeats > beats + 3)
    assert len(peer.hellos) == 1
    agent.data_dir.with_name("moved").rename(agent.data_dir)


def test_a_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "attempts").mkdir()
    probe(tmp_path)
    assert os.listdir(tmp_path) == ["attempts"]
    assert os.listdir(tmp_path / "attempts") == []


def test_a_probe_sees_a_full_disk(small_disk: Path) -> None:
    (small_disk / "attempts").mkdir()
    fill(small_disk)
    with pytest.raises(OSError, match="No space"):
        probe(small_disk)
    (small_disk / "filler").write_bytes(bytes(3 * 1024 * 1024 - PROBE_BYTES // 2))
    with pytest.raises(OSError, match="No space"):
        probe(small_disk)
    assert not (small_disk / "probe").exists()
