"""Limits hold: by control groups where this machine has them, by rlimits otherwise."""

from __future__ import annotations

import errno
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
PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from hasched.agent.protocol import Configure
from hasched.agent.supervisor_client import connect

async def main():
    met, lost = asyncio.Queue(), asyncio.Event()
    await connect(Path(sys.argv[1]), Configure("n1", os.defpath, 1 << 20, True, 0), met.put_nowait, lost.set)
    [inventory] = await met.get()
    print(inventory.isolation)
    os.kill(inventory.pid, signal.SIGTERM)
    await lost.wait()

asyncio.run(main())
"""


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
def test_a_supervisor_that_is_not_root_can_enter_the_groups_that_it_makes(tmp_path: Path) -> None:
    not_root = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*not_root, sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] in ("cgroup1", "cgroup2")


def test_groups_that_refuse_a_trial_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that can't limit its tasks by them goes on without."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "not here")

    monkeypatch.setattr(cgroups.Cgroups, "create", refuse)
    assert cgroups.detect(f"{os.getpid()}.tests") is None


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
