"""An agent belongs to one cluster, whatever others answer at the managers' addresses; what runs on it goes on meanwhile."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from hasched.agent.origin import FILE, keep_origin, read_origin
from hasched.model.states import EndKind
from hasched.model.wire import AttemptKey, Stop
from tests.agent.peer import AgentProcess, Certificates, Peer, is_running, run_peer, until
from tests.agent.test_running import shell
from tests.agent.test_stopping import said


def complaints(agent: AgentProcess) -> list[str]:
    log = (agent.data_dir.parent / "agent.log").read_text()
    return [line for line in log.splitlines() if "foreign_cluster" in line]


async def test_the_origin_of_the_first_leader_is_kept_and_told_to_the_next(agent: AgentProcess, peer: Peer) -> None:
    peer.origin = "here"
    for starts in (1, 2):
        await agent.start()
        await peer.until(lambda starts=starts: len(peer.hellos) == starts)
        beats = peer.heartbeats
        await peer.until(lambda beats=beats: peer.heartbeats > beats)
        await agent.kill(signal.SIGKILL)
    assert [hello.origin for hello in peer.hellos] == ["", "here"]
    assert (agent.data_dir / FILE).read_text() == "here\n"


@pytest.mark.parametrize("other", ["elsewhere", ""], ids=["of another origin", "that says none"])
async def test_a_leader_of_another_cluster_is_refused_and_its_orders_are_not_obeyed(
    agent: AgentProcess, peer: Peer, certificates: Certificates, other: str
) -> None:
    peer.origin = "here"
    await agent.start()
    await peer.assign(1, shell("echo $$; exec sleep 300"))
    pid = int(await said(peer, 1, 0, 1))
    peer.origin, peer.orders = other, (Stop((AttemptKey(1, 0, 1),), "it doesn't count any more"),)
    await peer.drop()
    await peer.until(lambda: len(peer.hellos) == 5)
    assert is_running(pid)
    assert peer.reports[1:] == []
    (complaint,) = complaints(agent)  # once, and loudly
    assert "level=error" in complaint
    assert "remove origin in its data_dir" in complaint
    peer.origin = "here"
    assert (await peer.ended(1, 0, 1)).kind is EndKind.STOPPED


async def test_an_agent_that_cannot_keep_its_cluster_takes_no_orders_until_it_can(
    agent: AgentProcess, peer: Peer
) -> None:
    peer.redirect_to = peer.url  # it knows no leader
    await agent.start()
    await peer.until(lambda: peer.redirected)
    in_the_way = agent.data_dir / FILE
    in_the_way.mkdir()
    peer.origin, peer.redirect_to = "here", ""
    await peer.until(lambda: len(peer.hellos) == 4)
    assert ([hello.origin for hello in peer.hellos], peer.heartbeats) == ([""] * 4, 0)
    log = (agent.data_dir.parent / "agent.log").read_text()
    assert log.count("origin_not_kept") == 1
    in_the_way.rmdir()
    await peer.until(lambda: peer.heartbeats)
    assert in_the_way.read_text() == "here\n"


async def test_a_manager_of_the_own_cluster_is_found_beside_one_of_another(
    agent: AgentProcess, peer: Peer, certificates: Certificates
) -> None:
    peer.origin = "here"
    await agent.start()
    await peer.until(lambda: peer.heartbeats)
    async with run_peer(certificates) as other:
        other.origin = "elsewhere"
        await agent.kill(signal.SIGKILL)
        agent.managers = [other.url, peer.url]
        for hellos in range(2, 6):
            await agent.start()
            await peer.until(lambda hellos=hellos: len(peer.hellos) == hellos)
            await agent.kill(signal.SIGKILL)
        assert other.heartbeats == 0


async def test_an_agent_is_moved_to_another_cluster_by_removing_the_file(agent: AgentProcess, peer: Peer) -> None:
    peer.origin = "here"
    await agent.start()
    await peer.assign(1, shell("echo $$; exec sleep 300"))
    pid = int(await said(peer, 1, 0, 1))
    await agent.kill(signal.SIGKILL)
    (agent.data_dir / FILE).unlink()
    peer.origin = "elsewhere"
    await agent.start()
    await peer.until(lambda: len(peer.hellos) == 2)
    assert (peer.hellos[1].origin, peer.hellos[1].attempts) == ("", (AttemptKey(1, 0, 1),))
    await peer.stop_attempt(1, 0, 1)
    await until(lambda: not is_running(pid))
    assert (agent.data_dir / FILE).read_text() == "elsewhere\n"


async def test_a_file_that_holds_nothing_stops_the_agent_with_its_name(agent: AgentProcess, peer: Peer) -> None:
    (agent.data_dir / FILE).touch()
    await agent.start()
    assert agent.process is not None
    assert await agent.process.wait() == 1
    log = (agent.data_dir.parent / "agent.log").read_text()
    assert str(agent.data_dir / FILE) in log
    assert "Traceback" not in log


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    assert read_origin(tmp_path) == ""
    keep_origin(tmp_path, "here")
    keep_origin(tmp_path, "there")
    assert read_origin(tmp_path) == "there"
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
