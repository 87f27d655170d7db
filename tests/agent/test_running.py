"""Real agents run real processes: what a task is given, what is seen of its end, and why one could not start."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hasched.agent.protocol import MAX_REASON
from hasched.model.spec import MAX_OUTPUT_BYTES, JobSpec, Resources
from hasched.model.states import EndKind
from tests.agent.peer import AgentProcess, Certificates, Peer, run_agent, run_peer, text_of


def shell(script: str, **fields: object) -> JobSpec:
    return JobSpec(name="job", command=("/bin/sh", "-c", script), **fields)  # type: ignore[arg-type]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Peer]:
    """The manager of an agent that the tests of this file share."""
    async with run_peer(certificates) as peer, run_agent(peer, tmp_path_factory.mktemp("n1")) as agent:
        await agent.start()
        yield peer


@pytest_asyncio.fixture(loop_scope="module")
async def peer(certificates: Certificates) -> AsyncIterator[Peer]:
    async with run_peer(certificates) as peer:
        yield peer


@pytest_asyncio.fixture(loop_scope="module")
async def agent(peer: Peer, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    """An agent of one test's own, not started yet."""
    async with run_agent(peer, tmp_path) as agent:
        yield agent


async def test_the_exit_code_and_both_streams_arrive(running: Peer) -> None:
    ended = await running.run(shell("echo out; echo err >&2; exit 3"))
    assert (ended.kind, ended.code) == (EndKind.EXITED, 3)
    assert ended.started_ms <= ended.ended_ms
    assert await running.log_of(ended) == b"out\n"
    assert await running.log_of(ended, "stderr") == b"err\n"


async def test_a_signal_is_told_from_an_exit(running: Peer) -> None:
    ended = await running.run(shell("kill -USR1 $$"))
    assert (ended.kind, ended.code) == (EndKind.SIGNALED, signal.SIGUSR1)


async def test_an_array_tells_its_tasks_apart(running: Peer) -> None:
    job_id = running.new_job()
    spec = shell('echo "$HASCHED_JOB_ID $HASCHED_TASK_INDEX/$HASCHED_TASK_COUNT $HASCHED_ATTEMPT"', count=3)
    await running.assign(job_id, spec, [(0, 1), (1, 1), (2, 4)])
    for index, attempt in ((0, 1), (1, 1), (2, 4)):
        ended = await running.ended(job_id, index, attempt)
        assert await running.log_of(ended) == f"{job_id} {index}/3 {attempt}\n".encode()


async def test_a_task_gets_a_small_environment_and_not_the_agents(running: Peer) -> None:
    ended = await running.run(shell("env | cut -d= -f1 | sort", env={"MINE": "1", "HASCHED_NODE": "stolen"}))
    names = (await running.log_of(ended)).decode().split()
    ours = [
        "HASCHED_ATTEMPT",
        "HASCHED_CHECKPOINT",
        "HASCHED_JOB_ID",
        "HASCHED_JOB_NAME",
        "HASCHED_NODE",
        "HASCHED_OUTPUT",
    ]
    ours += ["HASCHED_TASK_COUNT", "HASCHED_TASK_INDEX"]
    assert names == sorted([*ours, "HOME", "LANG", "LOGNAME", "MINE", "PATH", "PWD", "SHELL", "USER"])


async def test_a_job_cannot_replace_our_variables(running: Peer) -> None:
    ended = await running.run(shell("echo $HASCHED_NODE", env={"HASCHED_NODE": "stolen"}))
    assert await running.log_of(ended) == b"n1\n"


async def test_signals_are_at_their_defaults(running: Peer) -> None:
    ended = await running.run(shell("grep -E 'SigIgn|SigBlk' /proc/self/status | cut -f2"))
    masks = (await running.log_of(ended)).split()
    glibc = 0b11 << 31  # two signals that glibc keeps for itself
    assert [int(mask, 16) & ~glibc for mask in masks] == [0, 0]


async def test_output_is_what_the_task_wrote(running: Peer) -> None:
    ended = await running.run(shell("printf 42 > $HASCHED_OUTPUT"))
    assert (ended.output, ended.reason) == (b"42", "")


async def test_a_large_output_is_cut_and_said_to_be(running: Peer) -> None:
    ended = await running.run(shell("head -c 20000 /dev/zero > $HASCHED_OUTPUT"))
    assert ended.output == bytes(MAX_OUTPUT_BYTES)
    assert "20000 bytes was cut" in ended.reason


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("ln -s /etc/passwd $HASCHED_OUTPUT", id="a link"),
        pytest.param("mkfifo $HASCHED_OUTPUT", id="a pipe"),
        pytest.param("mkdir $HASCHED_OUTPUT", id="a directory"),
    ],
)
async def test_an_output_that_is_no_file_is_not_read(running: Peer, script: str) -> None:
    ended = await running.run(shell(script))
    assert ended.output == b""
    assert "the output can't be read" in ended.reason


async def test_input_arrives_as_a_file(running: Peer) -> None:
    ended = await running.run(shell("cat $HASCHED_INPUT", input=b"\0binary\xff"))
    assert await running.log_of(ended) == b"\0binary\xff"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param("echo $0 | sed 's|.*/||'", b"script\n", id="plain text is for /bin/sh"),
        pytest.param("#!/usr/bin/awk -f\nBEGIN { print 6 * 7 }", b"42\n", id="a #! line is obeyed"),
    ],
)
async def test_scripts(running: Peer, script: str, said: bytes) -> None:
    ended = await running.run(JobSpec(name="script", script=script))
    assert ended.reason == ""
    assert await running.log_of(ended) == said


async def test_the_working_directory(running: Peer) -> None:
    ended = await running.run(shell("pwd", working_dir="/usr"))
    assert await running.log_of(ended) == b"/usr\n"


async def test_without_a_working_directory_a_task_begins_in_its_own(running: Peer) -> None:
    ended = await running.run(shell("echo here > file; ls; echo $(pwd) | grep -o '[0-9]*[.].*'"))
    assert await running.log_of(ended) == b"file\n0.1/work\n"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param(JobSpec(name="x", command=("no-such-program",)), "no such program in PATH", id="not in PATH"),
        pytest.param(JobSpec(name="x", command=("/no/such",)), "/no/such: no such file", id="no such file"),
        pytest.param(JobSpec(name="x", command=("/etc/passwd",)), "permission denied", id="not executable"),
        pytest.param(shell("", working_dir="/no/such"), "working directory /no/such: no such file", id="no directory"),
        pytest.param(JobSpec(name="x", script="#!/no/such\n"), "no such file", id="no such interpreter"),
        pytest.param(shell("", env={"BIG": "x" * 200_000}), "too long", id="too large an environment"),
    ],
)
async def test_what_cannot_start_says_why(running: Peer, spec: JobSpec, reason: str) -> None:
    ended = await running.run(spec)
    assert ended.kind is EndKind.LAUNCH_FAILED
    assert reason in ended.reason


async def test_a_reason_stays_short_whatever_the_command_is(running: Peer) -> None:
    ended = await running.run(JobSpec(name="x", command=("x" * 131_000,), env={"PATH": ":".join(["/y"] * 40_000)}))
    assert len(ended.reason) <= MAX_REASON
    assert "no such program in PATH (/y:/y" in ended.reason


async def test_a_log_directory_that_cannot_be_written_costs_the_attempt_only(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    await peer.run(shell("true"))
    attempts = agent.data_dir / "attempts"
    attempts.rename(agent.data_dir / "moved")
    attempts.write_text("in the way")
    ended = await peer.run(shell("true"))
    assert ended.kind is EndKind.LOST
    assert "can't be made" in ended.reason
    assert not peer.accepts
    attempts.unlink()
    (agent.data_dir / "moved").rename(attempts)
    await peer.until(lambda: peer.accepts)
    assert (await peer.run(shell("true"))).kind is EndKind.EXITED


async def test_usage_is_measured(running: Peer) -> None:
    program = "import time\nblock = b'x' * 100_000_000\nwhile time.process_time() < 0.2: pass"
    ended = await running.run(JobSpec(name="usage", command=(sys.executable, "-c", program)))
    assert 200 <= ended.usage.cpu_ms < 2000
    assert 100_000_000 <= ended.usage.peak_memory_bytes < 200_000_000


async def test_the_node_says_what_it_is(agent: AgentProcess, peer: Peer) -> None:
    agent.settings = {"labels": {"rack": "r1"}, "capacity": {"cpu": 2500, "gpus": 2, "countables": {"licence": 3}}}
    await agent.start()
    await peer.until(lambda: peer.hellos)
    info = peer.hellos[0].info
    assert (info.resources.cpu_milli, info.resources.gpus) == (2500, 2)
    assert info.resources.countables == (("licence", 3),)
    assert info.resources.memory_bytes > 0
    assert info.labels == {"rack": "r1"}
    assert info.isolation in ("cgroup1", "cgroup2", "rlimit")
    assert info.boot_id


async def test_gpus_are_bound_to_attempts(agent: AgentProcess, peer: Peer) -> None:
    agent.settings = {"capacity": {"gpus": 3}}
    await agent.start()
    say = 'echo "[$CUDA_VISIBLE_DEVICES]"'
    await peer.assign(1, shell(say + "; sleep 60", resources=Resources(gpus=2)))
    await peer.started(1, 0, 1)
    await peer.assign(2, shell(say, resources=Resources(gpus=1)))
    await peer.ended(2, 0, 1)
    await peer.assign(3, shell(say))
    await peer.ended(3, 0, 1)
    assert text_of(await peer.read_log(1, 0, 1)) == b"[0,1]\n"
    assert text_of(await peer.read_log(2, 0, 1)) == b"[2]\n"
    assert text_of(await peer.read_log(3, 0, 1)) == b"[]\n"


async def test_an_agent_that_finds_fewer_gpus_lets_go_of_what_needs_them(agent: AgentProcess, peer: Peer) -> None:
    agent.settings = {"capacity": {"gpus": 2}}
    await agent.start()
    for job_id in (1, 2):
        await peer.assign(job_id, shell("exec sleep 60", resources=Resources(gpus=1)))
        await peer.started(job_id, 0, 1)
    await agent.kill()
    agent.settings = {"capacity": {"gpus": 1}}
    await agent.start()
    stopped = await peer.ended(2, 0, 1)
    assert (stopped.kind, stopped.reason) == (EndKind.DEVICE_LOST, "a GPU that it held is gone: 1")
    await peer.assign(3, shell("true", resources=Resources(gpus=1)))  # placed before the managers knew
    given_back = await peer.ended(3, 0, 1)
    assert (given_back.kind, given_back.started_ms) == (EndKind.LOST, 0)
    assert "the node has 1 GPU now" in given_back.reason
    assert peer.ends(1, 0, 1) == []
