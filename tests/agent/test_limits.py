"""Limits hold: by control groups where this machine has them, by rlimits otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hasched.agent import cgroups
from hasched.agent.cgroups import Limits
from hasched.model.spec import Resources
from hasched.model.states import EndKind
from tests.agent.peer import AgentProcess, Peer, until
from tests.agent.test_running import shell

GREEDY = f"{sys.executable} -c \"block = b'x' * 200_000_000; print('held')\""
LIMIT = Resources(cpu_milli=500, memory_bytes=64 * 1024 * 1024)


def has_cgroups() -> bool:
    found = cgroups.detect(f"{os.getpid()}.trial")
    if found is not None:
        found.close()
    return found is not None


needs_cgroups = pytest.mark.skipif(not has_cgroups(), reason="no usable control groups on this machine")


@needs_cgroups
async def test_too_much_memory_is_out_of_memory(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    ended = await peer.run(shell(GREEDY, resources=LIMIT))
    assert ended.kind is EndKind.OUT_OF_MEMORY
    assert ended.usage.peak_memory_bytes <= LIMIT.memory_bytes
    within = await peer.run(shell("echo fine", resources=LIMIT))
    assert (within.kind, within.code) == (EndKind.EXITED, 0)


@needs_cgroups
async def test_a_control_group_is_gone_after_its_task(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    ended = await peer.run(shell("cat /proc/self/cgroup; (setsid sleep 300 &)", resources=LIMIT))
    line = next(line for line in (await peer.log_of(ended)).decode().splitlines() if "hasched-tasks" in line)
    group = line.rpartition(":")[2]
    await until(lambda: not list(Path("/sys/fs/cgroup").glob(f"*{group}")))


async def test_without_control_groups_an_rlimit_holds(agent: AgentProcess, peer: Peer) -> None:
    agent.settings = {"isolation": "rlimit"}
    await agent.start()
    ended = await peer.run(shell(GREEDY, resources=LIMIT))
    assert (ended.kind, ended.code) == (EndKind.EXITED, 1)
    assert b"MemoryError" in await peer.log_of(ended, "stderr")
    assert peer.hellos[0].info.isolation == "rlimit"


@needs_cgroups
def test_a_group_that_cannot_have_its_limit_is_not_left_behind() -> None:
    found = cgroups.detect(f"{os.getpid()}.tests")
    assert found is not None
    with pytest.raises(OSError):
        found.create("refused", Limits(memory_bytes=-5, cpu_milli=0, pids_max=0))
    assert found.create("refused", Limits(1 << 30, 0, 0)).remove()
    found.close()


@needs_cgroups
def test_groups_of_a_dead_supervisor_are_swept() -> None:
    with subprocess.Popen(["sleep", "300"]) as alive:
        left = cgroups.detect(f"{alive.pid}.tests")
        assert left is not None
        group = left.create("1.0.1", Limits(1 << 30, 0, 0))
        alive.kill()
    found = cgroups.detect(f"{os.getpid()}.tests")
    assert found is not None
    assert group.pids() == []
    with pytest.raises(FileNotFoundError):
        group.oom_kills()
    found.close()
