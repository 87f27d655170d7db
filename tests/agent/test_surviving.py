"""Whatever dies, an attempt runs once and its end is reported: agents, supervisors, sessions and managers come and go."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
from pathlib import Path

import pytest

from hasched.agent import driver, supervisor, supervisor_client
from hasched.agent.config import AgentConfig, TlsFiles
from hasched.agent.protocol import Configure, FromSupervisor, Inventory
from hasched.agent.supervisor_client import SupervisorFailed
from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded, AttemptKey
from tests.agent.peer import AgentProcess, Certificates, Peer, is_running, run_peer, text_of, until
from tests.agent.test_running import shell
from tests.agent.test_stopping import said


async def test_a_task_outlives_its_agent(agent: AgentProcess, peer: Peer) -> None:
    """SIGKILL of the agent mid-task: not started again; its exit code and its whole log arrive."""
    await agent.start()
    await peer.assign(1, shell("echo $$; while [ ! -e go ]; do sleep 0.02; done; echo end; exit 7"))
    pid = int(await said(peer, 1, 0, 1))
    await agent.kill(signal.SIGKILL)
    (agent.data_dir / "attempts/1/0.1/work/go").touch()
    await until(lambda: not is_running(pid))
    await agent.start()
    ended = await peer.ended(1, 0, 1)
    assert (ended.kind, ended.code) == (EndKind.EXITED, 7)
    assert peer.hellos[1].attempts == (AttemptKey(1, 0, 1),)
    assert text_of(await peer.read_log(1, 0, 1)) == f"{pid}\nend\n".encode()


async def test_a_clean_stop_of_the_agent_stops_no_task(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    await peer.assign(1, shell("echo $$; exec sleep 300"))
    pid = int(await said(peer, 1, 0, 1))
    assert await agent.kill(signal.SIGTERM) == 0
    assert is_running(pid)
    await agent.start()
    await peer.until(lambda: len(peer.hellos) == 2)
    assert is_running(pid)
    await peer.stop_attempt(1, 0, 1)
    assert (await peer.ended(1, 0, 1)).kind is EndKind.STOPPED


async def test_an_agent_says_whether_its_table_is_the_one_it_had(agent: AgentProcess, peer: Peer) -> None:
    for starts in (1, 2):
        await agent.start()
        await peer.until(lambda starts=starts: len(peer.hellos) == starts)
        await agent.kill(signal.SIGKILL)
    for file in agent.data_dir.glob("attempts.db*"):
        file.unlink()
    await agent.start()
    await peer.until(lambda: len(peer.hellos) == 3)
    first, second, third = (hello.info.table_id for hello in peer.hellos)
    assert first == second
    assert first
    assert third not in ("", first)


async def test_what_ran_through_a_restart_is_not_reported_twice(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    await peer.run(shell("true"))
    beats = peer.heartbeats
    await peer.until(lambda: peer.heartbeats > beats + 1)  # by now the acknowledgement is in the agent's table
    await agent.kill(signal.SIGKILL)
    await agent.start()
    await peer.until(lambda: len(peer.hellos) == 2)
    await peer.run(shell("true"))
    assert len([each for each in peer.reports if isinstance(each, AttemptEnded)]) == 2


async def test_reports_are_repeated_until_acknowledged(agent: AgentProcess, peer: Peer) -> None:
    peer.acknowledge = False
    await agent.start()
    await peer.run(shell("exit 4"))
    await peer.drop()
    await peer.until(lambda: len(peer.ends(1, 0, 1)) == 2)
    await agent.kill(signal.SIGKILL)
    await agent.start()
    await peer.until(lambda: len(peer.ends(1, 0, 1)) == 3)
    peer.acknowledge = True
    await peer.drop()
    await peer.until(lambda: len(peer.ends(1, 0, 1)) == 4)
    assert {each.code for each in peer.ends(1, 0, 1)} == {4}
    await peer.until(lambda: len(peer.hellos) == 4)
    await peer.drop()
    await peer.until(lambda: len(peer.hellos) == 5)
    assert peer.hellos[-1].attempts == ()


async def test_an_end_survives_agent_and_supervisor(agent: AgentProcess, peer: Peer) -> None:
    """Unacknowledged for a while, an end is in the agent's own table: it needs nobody's memory any more."""
    peer.acknowledge = False
    await agent.start()
    await peer.run(shell("exit 5"))
    beats = peer.heartbeats
    await peer.until(lambda: peer.heartbeats > beats + 2)
    supervisor = agent.supervisor_pid()
    await agent.kill(signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    await agent.start()
    await peer.until(lambda: len(peer.ends(1, 0, 1)) == 2)
    assert peer.ends(1, 0, 1)[1].code == 5


async def test_a_dead_supervisor_means_lost_attempts_and_nothing_left_running(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    await peer.assign(1, shell("sleep 300 & echo $$ $!; wait"))
    leader, grandchild = map(int, (await said(peer, 1, 0, 1)).split())
    os.kill(agent.supervisor_pid(), signal.SIGKILL)
    ended = await peer.ended(1, 0, 1)
    assert ended.kind is EndKind.LOST
    assert "supervisor" in ended.reason
    await until(lambda: not is_running(leader) and not is_running(grandchild))
    await peer.assign(2, shell("true"))
    assert (await peer.ended(2, 0, 1)).kind is EndKind.EXITED


async def test_a_supervisor_that_is_told_to_end_takes_its_tasks_along(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    await peer.assign(1, shell("echo $$; exec sleep 300"))
    pid = int(await said(peer, 1, 0, 1))
    os.kill(agent.supervisor_pid(), signal.SIGTERM)
    assert (await peer.ended(1, 0, 1)).kind is EndKind.LOST
    assert not is_running(pid)


async def test_a_supervisor_whose_data_directory_is_lost_ends_its_tasks(agent: AgentProcess, peer: Peer) -> None:
    """No agent finds it any more: the next one starts another supervisor, which knows nothing of the GPUs in use."""
    await agent.start()
    await peer.assign(1, shell("echo $$; exec sleep 300"))
    pid = int(await said(peer, 1, 0, 1))
    orphaned = agent.supervisor_pid()
    await agent.kill(signal.SIGKILL)
    shutil.rmtree(agent.data_dir)
    await until(lambda: not is_running(pid) and not is_running(orphaned))
    await agent.start()
    await peer.run(shell("true"))
    assert peer.hellos[1].attempts == ()


async def test_a_follower_sends_the_agent_on(agent: AgentProcess, peer: Peer, certificates: Certificates) -> None:
    async with run_peer(certificates) as follower:
        follower.redirect_to = peer.url
        agent.managers = [follower.url]
        await agent.start()
        await peer.until(lambda: peer.hellos)
        assert not follower.hellos


async def test_an_agent_finds_the_manager_that_is_left(
    agent: AgentProcess, peer: Peer, certificates: Certificates
) -> None:
    async with run_peer(certificates) as other:
        agent.managers = [peer.url, other.url]
        other.redirect_to = peer.url
        await agent.start()
        await peer.assign(1, shell("echo $$; exec sleep 300"))
        pid = int(await said(peer, 1, 0, 1))
        await peer.stop()
        other.redirect_to = ""
        await other.until(lambda: other.hellos)
        assert other.hellos[0].attempts == (AttemptKey(1, 0, 1),)
        assert is_running(pid)
        await peer.start()  # for the fixture, which stops it again


async def test_a_silent_manager_is_left(agent: AgentProcess, peer: Peer) -> None:
    peer.answer_heartbeats = False
    await agent.start()
    await peer.until(lambda: len(peer.hellos) == 2)


async def test_a_manager_that_fell_silent_is_not_asked_before_all_others_were(
    agent: AgentProcess, peer: Peer, certificates: Certificates
) -> None:
    """It may be frozen: it takes connections, and each of them would cost time that the tasks don't have."""
    peer.answer_heartbeats = False
    async with run_peer(certificates) as other, run_peer(certificates) as third:
        agent.managers = [peer.url, other.url, third.url]
        other.redirect_to = third.redirect_to = peer.url
        await agent.start()
        await peer.until(lambda: peer.hellos)
        third.redirect_to = ""
        await third.until(lambda: third.hellos)
        assert len(peer.hellos) == 1, "not even when another says that it leads"


async def test_a_leader_that_was_not_reached_at_first_is_found(
    agent: AgentProcess, peer: Peer, certificates: Certificates
) -> None:
    """All start together, and the others name it as the leader before it is asked again."""
    async with run_peer(certificates) as other:
        agent.managers = [peer.url, other.url]
        other.redirect_to = peer.url
        await peer.stop()
        await agent.start()
        await other.until(lambda: other.redirected >= 3)
        await peer.start()
        await peer.until(lambda: peer.hellos)


async def test_one_data_directory_has_one_agent(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    await peer.until(lambda: peer.hellos)
    second = AgentProcess(agent.certificates, agent.data_dir, agent.managers)
    await second.start()
    assert second.process is not None
    assert await second.process.wait() == 1


async def test_a_supervisor_that_an_agent_before_has_just_started_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the lock, and doesn't listen yet."""
    start, tried = supervisor_client.start, []

    def try_to_start(data_dir: Path) -> int | None:
        tried.append(start(data_dir))
        return tried[-1]

    monkeypatch.setattr(supervisor_client, "start", try_to_start)
    settings = Configure("n1", os.defpath, 2**20, cgroups=False, pids_max=0)
    met: asyncio.Queue[list[FromSupervisor]] = asyncio.Queue()
    lost = asyncio.Event()
    with (tmp_path / supervisor.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connecting = asyncio.create_task(supervisor_client.connect(tmp_path, settings, met.put_nowait, lost.set))
        await until(lambda: tried or connecting.done())
        assert tried[:1] == [None]
    async with asyncio.timeout(20):
        await connecting
        [inventory] = await met.get()
        assert isinstance(inventory, Inventory)
        os.kill(inventory.pid, signal.SIGTERM)
        await lost.wait()
    supervisor_client.collect(inventory.pid)


async def test_a_supervisor_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    settings = Configure("n1", os.defpath, 2**20, cgroups=False, pids_max=0)
    (tmp_path / "roster").mkdir()
    with pytest.raises(SupervisorFailed, match=r"ended with 1; the end of .*: IsADirectoryError"):
        await supervisor_client.connect(tmp_path, settings, lambda _: None, lambda: None)


async def test_a_supervisor_that_does_not_answer_is_not_awaited_for_ever(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "INVENTORY_TIMEOUT_S", 0.1)
    files = TlsFiles(ca="", cert="", key="")
    config = AgentConfig(data_dir=str(tmp_path), managers=["https://localhost:1"], tls=files)
    mute = supervisor.listen(str(tmp_path))
    agent = driver.Driver(config, certificates.agent())
    async with asyncio.timeout(10):
        with pytest.raises(SupervisorFailed, match="inventory"):
            await agent.start()
    agent.close()
    mute.close()


async def test_an_agent_whose_table_is_gone_ends_loudly(agent: AgentProcess, peer: Peer) -> None:
    """Whatever ends the table's thread: without it nothing would start again, and nobody would know."""
    await agent.start()
    await peer.assign(2**63, shell("true"))  # more than a column of the table holds
    assert agent.process is not None
    async with asyncio.timeout(10):
        assert await agent.process.wait() == 1
    log = (agent.data_dir.parent / "agent.log").read_text()
    assert "agent_failed" in log
    assert "table" in log
    assert "Traceback" not in log


async def test_a_stranger_cannot_use_the_socket(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    await peer.until(lambda: peer.hellos)
    assert (agent.data_dir / "supervisor.sock").stat().st_mode & 0o777 == 0o600
