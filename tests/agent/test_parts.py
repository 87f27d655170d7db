"""The small parts on their own: the configuration, the table, the roster, frames and the spec cache."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasched.agent import discovery
from hasched.agent.config import AgentConfig, check
from hasched.agent.events import Row, Save
from hasched.agent.executors.process import ProcessExecutor
from hasched.agent.processes import Families, boot_ms, read_process
from hasched.agent.protocol import (
    MAX_FRAME_BYTES,
    Configure,
    Forget,
    FrameBuffer,
    FrameTooLarge,
    Inventory,
    LaunchTask,
    RunningAttempt,
    decode_from_supervisor,
    decode_to_supervisor,
    encode,
    joined,
    parts,
)
from hasched.agent.roster import Roster
from hasched.agent.specs import MAX_SPECS, SpecCache, launch_job
from hasched.agent.table import Table
from hasched.model.config_text import load_config
from hasched.model.errors import ConfigInvalid
from hasched.model.ids import AttemptId
from hasched.model.spec import JobSpec
from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded, AttemptKey
from tests.agent.peer import not_expected

CONFIG = """
name: n1
data_dir: /var/lib/hasched
managers: [https://m1:7411]
tls: {ca: /c, cert: /d, key: /e}
capacity: {cpu: 1.5, memory: 512Mi, gpus: 2, countables: {licence: 3}}
logs: {max_bytes: 1Mi, keep: 1d}
"""


def load(text: str) -> AgentConfig:
    return load_config(text, "agent.yaml", AgentConfig, {}, check)


def test_a_configuration_is_read_with_its_units() -> None:
    config = load(CONFIG)
    assert (config.capacity.cpu, config.capacity.memory) == (1500, 512 * 1024 * 1024)
    assert (config.logs.max_bytes, config.logs.keep) == (1024 * 1024, 86_400_000)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        pytest.param("name: n1", "name: ../n1", "can't be a node's name", id="a name that is no file name"),
        pytest.param("/var/lib/hasched", "var/lib", "absolute", id="a relative directory"),
        pytest.param("[https://m1:7411]", "[]", "at least one manager", id="no manager"),
        pytest.param("https://m1:7411", "http://m1:7411", "not an address", id="no TLS"),
        pytest.param("gpus: 2", "gpus: -1", "zero or more", id="fewer than no GPUs"),
        pytest.param("gpus: 2", "gpus: 3.5", "int", id="half a GPU"),
        pytest.param("licence: 3", "licence: 0", "1 or more", id="none of a countable"),
        pytest.param("1Mi", "1Ki", "64Ki or more", id="logs too small to bound"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said(old: str, new: str, complaint: str) -> None:
    with pytest.raises(ConfigInvalid, match=complaint):
        load(CONFIG.replace(old, new))


def test_the_table_keeps_rows_until_they_are_removed(tmp_path: Path) -> None:
    saved: queue.Queue[int] = queue.Queue()
    first, second = AttemptId(1, 0, 1), AttemptId(1, 1, 1)
    ended = AttemptEnded(*first, 1, 2, EndKind.EXITED, 3, output=b"\0")
    table = Table(str(tmp_path / "attempts.db"), lambda number, failure: saved.put(number), not_expected)
    assert table.open() == ()
    table.save(Save(1, added=(Row(first, "s1"), Row(second, "s1"))))
    table.save(Save(2, ended=(ended,)))
    while saved.get(timeout=10) < 2:
        pass
    table.close()
    table = Table(str(tmp_path / "attempts.db"), lambda number, failure: saved.put(number), not_expected)
    assert table.open() == (Row(first, "s1", ended), Row(second, "s1"))
    table.save(Save(3, removed=(first, second)))
    table.close()
    table = Table(str(tmp_path / "attempts.db"), lambda number, failure: None, not_expected)
    assert table.open() == ()
    table.close()


def test_a_full_disk_is_told_and_outlived(tmp_path: Path) -> None:
    outcomes: queue.Queue[tuple[int, str]] = queue.Queue()
    path = str(tmp_path / "attempts.db")
    table = Table(path, lambda number, failure: outcomes.put((number, failure)), not_expected, max_pages=12)
    table.open()
    table.save(Save(1, added=tuple(Row(AttemptId(1, index, 1), "x" * 100) for index in range(10_000))))
    number, failure = outcomes.get(timeout=10)
    assert number == 1
    assert "full" in failure
    table.save(Save(2, added=(Row(AttemptId(1, 0, 1), "s1"),)))
    assert outcomes.get(timeout=10) == (2, "")
    table.close()


def test_the_roster_finds_exactly_what_a_dead_supervisor_left(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as left:
        with subprocess.Popen(["sleep", "300"], start_new_session=True) as other:
            dead = Roster(str(tmp_path / "roster"))
            dead.clear()
            process = read_process(left.pid)
            assert process is not None
            dead.add(left.pid, process.started_ms)
            dead.add(other.pid, process.started_ms - 60_000)  # the number was another process's, a minute ago
            gone = dead.add(os.getpid(), process.started_ms)
            dead.remove(gone)
            assert Roster(str(tmp_path / "roster")).leftovers() == [left.pid]
            left.kill()
            other.kill()


def test_a_roster_of_another_boot_is_void(tmp_path: Path) -> None:
    roster = Roster(str(tmp_path / "roster"))
    roster.clear()
    roster.add(os.getpid(), boot_ms())
    with open(tmp_path / "roster", "r+b") as file:
        file.write(b"another boot")
    assert Roster(str(tmp_path / "roster")).leftovers() == []


def test_a_family_holds_those_that_left_the_session() -> None:
    command = "import os, time\nif os.fork() == 0: os.setsid()\nos.write(1, b'%d\\n' % os.getpid()); time.sleep(300)"
    argv = [sys.executable, "-c", command]
    with subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE, bufsize=0) as leader:
        assert leader.stdout is not None
        both = {int(leader.stdout.readline()), int(leader.stdout.readline())}
        found = set(Families().of(leader.pid))
        for pid in both:
            os.kill(pid, signal.SIGKILL)
    assert found == both


@given(st.lists(st.integers(1, 9), min_size=1), st.data())
def test_frames_survive_any_cutting(numbers: list[int], data: st.DataObject) -> None:
    messages = [Forget((AttemptKey(number, 0, 1),)) for number in numbers]
    stream = b"".join(encode([message]) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    buffer = FrameBuffer()
    received = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for frame in buffer.feed(stream[begin:end]):
            received += decode_to_supervisor(frame)
    assert received == messages


def test_a_frame_beyond_the_cap_is_refused() -> None:
    with pytest.raises(FrameTooLarge):
        list(FrameBuffer().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big")))


def test_an_inventory_of_many_ends_fits_into_frames_and_is_whole_again() -> None:
    ends = tuple(AttemptEnded(1, index, 1, 1, 2, EndKind.EXITED, output=bytes(16_384)) for index in range(5000))
    running = (RunningAttempt(1, 5000, 1, 1),)
    inventory = Inventory("1", "s1", 1, "rlimit", running, ends)
    frames = [encode([part]) for part in parts(inventory)]
    assert max(map(len, frames)) < MAX_FRAME_BYTES
    received = [message for frame in frames for message in decode_from_supervisor(frame[4:])]
    assert all(isinstance(part, Inventory) for part in received)
    assert joined([part for part in received if isinstance(part, Inventory)]) == inventory
    assert parts(joined([Inventory("1", "s1", 1, "rlimit", (), ())])) == [Inventory("1", "s1", 1, "rlimit", (), ())]


def test_the_spec_cache_keeps_what_was_used_last() -> None:
    cache = SpecCache()
    for job_id in range(MAX_SPECS + 1):
        cache.put(job_id, JobSpec(name="job"))
        assert cache.get(0) is not None
    assert cache.get(1) is None


def test_the_spec_cache_is_bounded_in_bytes() -> None:
    cache = SpecCache()
    for job_id in range(100):
        cache.put(job_id, JobSpec(name="job", script="x" * 1_000_000))
    assert cache.get(10) is None
    assert cache.get(99) is not None


def test_usage_is_read(tmp_path: Path) -> None:
    usage = discovery.read_usage(str(tmp_path))
    assert usage.memory_bytes > 0
    assert usage.disk_free_bytes > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that isn't there")
def test_tasks_can_run_as_a_user_who_is_in_no_list(tmp_path: Path) -> None:
    job = launch_job(1, JobSpec(name="me", script='#!/bin/sh\necho "$USER $HOME"'), [])
    tmp_path.chmod(0o777)
    for name in ("stdout", "stderr"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o666)
    os.seteuid(54321)
    try:
        executor = ProcessExecutor(Configure("n1", "/bin", 2**20, cgroups=False, pids_max=0))
    finally:
        os.seteuid(0)
    pid = executor.start(job, LaunchTask(0, 1, None), str(tmp_path), None)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (tmp_path / "stdout").read_text() == "54321 /\n"
