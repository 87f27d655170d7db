"""Ending tasks: stops, timeouts, leases and freezing reach every process of a task, with or without an agent."""

from __future__ import annotations

import signal
import time

import pytest

from hasched.model.states import EndKind, OnDisconnect
from tests.agent.peer import AgentProcess, Peer, is_running, text_of, until
from tests.agent.test_running import shell

GRANDCHILD = "sleep 300 & echo $!; "


@pytest.fixture
async def running(agent: AgentProcess, peer: Peer) -> Peer:
    await agent.start()
    return peer


async def said(peer: Peer, *key: int) -> bytes:
    """The first line that a task has written, once it has."""
    request = await peer.request_log(*key, follow=True)
    await peer.until(lambda: b"\n" in text_of(peer.of(request)))
    return text_of(peer.of(request)).splitlines()[0]


async def test_stop_asks_first(running: Peer) -> None:
    await running.assign(1, shell("trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done"))
    assert await said(running, 1, 0, 1) == b"ready"
    await running.stop_attempt(1, 0, 1)
    ended = await running.ended(1, 0, 1)
    assert (ended.kind, ended.reason) == (EndKind.STOPPED, "cancelled")
    assert text_of(await running.read_log(1, 0, 1)) == b"ready\nasked\n"


async def test_stop_kills_what_does_not_listen_after_its_grace(running: Peer) -> None:
    await running.assign(1, shell("trap '' TERM; echo ready; while :; do sleep 0.05; done", kill_grace_ms=300))
    assert await said(running, 1, 0, 1) == b"ready"
    began = time.monotonic()
    await running.stop_attempt(1, 0, 1)
    assert (await running.ended(1, 0, 1)).kind is EndKind.STOPPED
    assert 0.3 <= time.monotonic() - began < 3


async def test_a_timeout_ends_the_grandchildren_too(running: Peer) -> None:
    await running.assign(1, shell(GRANDCHILD + "wait", timeout_ms=300))
    grandchild = int(await said(running, 1, 0, 1))
    ended = await running.ended(1, 0, 1)
    assert ended.kind is EndKind.TIMED_OUT
    assert "timeout of 300 ms" in ended.reason
    await until(lambda: not is_running(grandchild))


@pytest.mark.parametrize(
    "start",
    [
        pytest.param("sleep 300 & echo $!", id="in its group"),
        pytest.param("python3 -c 'import os; os.setpgid(0, 0); print(os.getpid(), flush=1); os.execlp(\"sleep\", "
                     "\"sleep\", \"300\")' & sleep 0.3", id="in a group of its own"),
        pytest.param("(setsid sh -c 'echo $$; exec sleep 300' &) ; sleep 0.3", id="in a session of its own"),
    ],
)  # fmt: skip
async def test_what_a_task_leaves_behind_ends_with_it(running: Peer, start: str) -> None:
    ended = await running.run(shell(start))
    assert ended.kind is EndKind.EXITED
    left = int(text_of(await running.read_log(1, 0, 1)))
    await until(lambda: not is_running(left))


async def test_an_orphan_of_a_running_task_is_left_alone(running: Peer) -> None:
    await running.assign(1, shell("(setsid sh -c 'echo $$; exec sleep 300' &) ; sleep 300"))
    orphan = int(await said(running, 1, 0, 1))
    await running.assign(2, shell("true"))
    await running.ended(2, 0, 1)
    assert is_running(orphan)


async def test_stop_of_an_attempt_that_never_came_is_answered(running: Peer) -> None:
    await running.stop_attempt(9, 0, 1)
    ended = await running.ended(9, 0, 1)
    assert ended.kind is EndKind.STOPPED
    assert "before it started" in ended.reason


async def test_a_frozen_task_stands_still_and_so_does_its_timeout(running: Peer) -> None:
    await running.assign(1, shell("echo ready; sleep 0.2; echo woken; sleep 300", timeout_ms=1_000))
    assert await said(running, 1, 0, 1) == b"ready"
    await running.freeze(True, 1, 0, 1)
    begun = running.heartbeats
    await running.until(lambda: running.heartbeats > begun + 8)  # 1.6 s, longer than the timeout
    assert not running.ends(1, 0, 1)
    assert text_of(await running.read_log(1, 0, 1)) == b"ready\n"
    await running.freeze(False, 1, 0, 1)
    assert (await running.ended(1, 0, 1)).kind is EndKind.TIMED_OUT
    assert b"woken" in text_of(await running.read_log(1, 0, 1))


async def test_a_frozen_task_can_be_stopped(running: Peer) -> None:
    await running.assign(1, shell("echo ready; sleep 300"))
    await said(running, 1, 0, 1)
    await running.freeze(True, 1, 0, 1)
    await running.stop_attempt(1, 0, 1)
    assert (await running.ended(1, 0, 1)).kind is EndKind.STOPPED


async def test_a_lease_ends_without_the_agent(agent: AgentProcess, peer: Peer) -> None:
    """The agent is stopped (SIGSTOP), so it can't renew the lease nor end the task: the supervisor does, in time."""
    peer.lease_ms = 1_500
    await agent.start()
    leased = shell("echo $$; exec sleep 300", on_disconnect=OnDisconnect.STOP, kill_grace_ms=100)
    await peer.assign(1, leased)
    await peer.assign(2, shell("echo $$; exec sleep 300"))
    first, second = int(await said(peer, 1, 0, 1)), int(await said(peer, 2, 0, 1))
    assert agent.process is not None
    agent.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    await until(lambda: not is_running(first))
    assert time.monotonic() - began < peer.lease_ms / 1000
    assert is_running(second), "a job that runs on is none of the lease's business"
    agent.process.send_signal(signal.SIGCONT)
    ended = await peer.ended(1, 0, 1)
    assert ended.kind is EndKind.STOPPED
    assert "lease" in ended.reason


async def test_a_newer_attempt_waits_for_the_end_of_the_older(running: Peer) -> None:
    spec = shell("trap 'sleep 0.3; date +%s%N; exit 0' TERM; date +%s%N; while :; do sleep 0.02; done")
    await running.assign(1, spec)
    await said(running, 1, 0, 1)
    await running.assign(1, spec, [(0, 2)])
    assert (await running.ended(1, 0, 1)).kind is EndKind.STOPPED
    second = int(await said(running, 1, 0, 2))
    first = int(text_of(await running.read_log(1, 0, 1)).split()[-1])
    assert first < second


async def test_the_same_assignment_twice_runs_once(running: Peer) -> None:
    spec = shell("echo once >> /proc/self/fd/1; sleep 0.3")
    await running.assign(1, spec)
    await running.assign(1, spec)
    await running.ended(1, 0, 1)
    assert text_of(await running.read_log(1, 0, 1)) == b"once\n"
    assert len(running.ends(1, 0, 1)) == 1
