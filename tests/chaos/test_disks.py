"""What befalls disks: full, read-only, without power, torn and with a flipped bit. Needs root, for file systems on loop files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio

from chaos.cluster import damage, power
from chaos.cluster.loop_disk import LoopDisk, run, shared_mounts
from chaos.cluster.own import OwnCluster
from chaos.errors import MachineLacks, Unsettled
from chaos.safety import mounts
from chaos.safety.identity import Born, born
from chaos.safety.ledger import Ledger
from chaos.safety.traces import processes_of
from hasched.model.errors import StorageFailed
from hasched.raft.disk import LocalDisk
from hasched.raft.journal import Journal
from hasched.raft.segments import SegmentReader
from tests.support.cluster import eventually

MODULE = pytest.mark.asyncio(loop_scope="module")
WRITER = """\
import os, sys
descriptor = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.write(descriptor, b"synced")
os.fsync(descriptor)
os.fsync(os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY))
os.write(descriptor, b" and not synced")
print("written", flush=True)
sys.stdin.read()
"""


# --- a disk ---


@contextmanager
def running(*command: str, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Whatever becomes of the test, it doesn't stay."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=cwd, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def those(*processes: subprocess.Popen[str]) -> list[Born]:
    """Who is still there."""
    return [process for each in processes if (process := born(each.pid)) is not None]


def state_of(process: subprocess.Popen[str]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().split()[2]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    with shared_mounts(tmp_path), LoopDisk(tmp_path / "image", tmp_path / "disk") as made:
        yield made


def test_a_full_disk_takes_no_block_more_until_there_is_room(disk):
    ballast = disk.path / "ballast"
    disk.fill(ballast)
    with pytest.raises(OSError, match="No space left") as full:
        (disk.path / "new").write_bytes(bytes(8192))
    assert full.value.errno == errno.ENOSPC
    ballast.unlink()
    (disk.path / "new").write_bytes(bytes(8192))


def test_a_disk_with_an_error_keeps_what_was_synced_and_takes_nothing_until_it_is_repaired(disk):
    with (disk.path / "file").open("wb", buffering=0) as file:
        file.write(b"kept")
        os.fsync(file.fileno())
        disk.fail()
        with pytest.raises(OSError, match="Read-only") as refused:
            file.write(b"lost")
        assert refused.value.errno == errno.EROFS
    disk.unmount()
    disk.repair()
    disk.mount()
    assert (disk.path / "file").read_bytes() == b"kept"
    (disk.path / "file").write_bytes(b"again")


def test_a_power_cut_ends_whoever_used_the_disk_and_takes_what_was_not_synced(disk):
    with (
        running(sys.executable, "-c", WRITER, str(disk.path / "file")) as writer,
        running("sleep", "600", cwd=disk.path) as idler,
        running("sleep", "600") as bystander,
        running("sleep", "600") as resident,
    ):
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        assert {each.pid for each in power.users_of([disk])} == {writer.pid, idler.pid}
        power.cut([disk], lambda: those(writer, idler, resident))
        assert (writer.wait(), idler.wait(), resident.wait(), bystander.poll()) == (-9, -9, -9, None)
    assert (disk.path / "file").read_bytes() == b"synced"


def test_the_power_is_cut_under_a_process_that_is_traced(disk):
    """Its tracer is found with it, and would keep it from standing still if it were stopped first."""
    threads = (
        "import sys, threading, time; threading.Thread(target=time.sleep, args=(600,)).start(); print(1, flush=True)"
    )
    traced = ["strace", "-f", "-e", "trace=none", "-o", os.devnull, sys.executable, "-c", f"{threads}; time.sleep(600)"]
    with running(*traced, cwd=disk.path) as tracer:
        assert tracer.stdout is not None
        assert tracer.stdout.readline() == "1\n"
        (user,) = [each for each in power.users_of([disk]) if each.pid != tracer.pid]
        tracing = born(tracer.pid)
        assert tracing is not None
        power.cut([disk], lambda: [tracing, user])
        assert born(user.pid) != user
        assert tracer.wait() == -9  # as what it traced


def test_the_power_is_not_cut_while_somebody_goes_on_and_they_go_on_then(disk, monkeypatch):
    """Somebody who can't be stopped would take a real process in the kernel's hands; here nobody counts as stopped."""
    monkeypatch.setattr(power, "PATIENCE_S", 0.2)
    monkeypatch.setattr(power, "AT_REST", frozenset())
    with running("sleep", "600", cwd=disk.path) as user:
        with pytest.raises(Unsettled, match="still runs"):
            power.cut([disk], lambda: those(user))
        eventually("the user to go on", lambda: state_of(user) != "T")
        (disk.path / "file").write_text("the disk still works")


def test_somebody_elses_process_on_the_disk_is_named_and_nothing_is_cut(disk, monkeypatch):
    monkeypatch.setattr(power, "PATIENCE_S", 0.2)
    with running("sleep", "600", cwd=disk.path) as shell, running("sleep", "600", cwd=disk.path) as ours:
        with pytest.raises(MachineLacks, match=rf"process {shell.pid} \(sleep\) uses {disk.path}"):
            power.cut([disk], lambda: those(ours))
        assert (shell.poll(), ours.poll(), state_of(ours)) == (None, None, "S")
        with pytest.raises(Unsettled, match=rf"process {shell.pid} \(sleep\) keeps {disk.path}"):
            power.release(disk, lambda: those(ours))
        assert (shell.poll(), ours.wait()) == (None, -9)
        (disk.path / "file").write_text("the disk still works")


def test_somebody_elses_process_on_the_disk_is_waited_for(disk):
    with running("sleep", "0.5", cwd=disk.path) as backup:
        power.cut([disk], lambda: [])
        assert backup.wait() == 0


FREEZER = """\
import os, signal, sys
from pathlib import Path
from chaos.cluster import power
from chaos.cluster.loop_disk import LoopDisk
from chaos.safety.identity import born
from chaos.safety.ledger import Ledger

disk, ours = LoopDisk(Path(sys.argv[1]), Path(sys.argv[2])), born(int(sys.argv[3]))
disk.cut_power = lambda: os.kill(os.getpid(), signal.SIGKILL)
power.cut([disk], lambda: [ours], Ledger.open("c1", command="pytest"))
"""


def test_nobody_stays_frozen_when_the_harness_is_killed_before_the_cut(disk, tmp_path, monkeypatch):
    monkeypatch.setenv("HASCHED_STATE_DIR", str(tmp_path / "state"))
    with running("sleep", "600", cwd=disk.path) as user:
        command = [sys.executable, "-c", FREEZER, str(tmp_path / "image"), str(disk.path), str(user.pid)]
        assert subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode == -9
        audit = tmp_path / "state" / "chaos" / "audit.jsonl"
        eventually("the guard to let it go on", lambda: '"heal"' in audit.read_text())
        eventually("the user to go on", lambda: state_of(user) == "S")
        assert f"let process {user.pid} go on" in audit.read_text()


def test_a_disk_that_somebody_is_looking_at_is_mounted_again_when_they_have_gone(disk):
    with running("sleep", "600", cwd=disk.path) as user, ThreadPoolExecutor(1) as pool:
        with (disk.path / "file").open("w"):  # this process is the harness, which is never killed
            cutting = pool.submit(power.cut, [disk], lambda: those(user))
            assert user.wait() == -9
        cutting.result(60)
    (disk.path / "file").write_text("again")


# --- its files ---


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """With a journal of several segments, the last of which has frames."""
    journal = Journal(tmp_path / "journal", 700, random=Random(1))
    for index in range(2, 14):
        journal.add(b"an entry " * 9, index, 1)
        journal.flush()
    journal.close()
    return tmp_path


def last_index(data_dir: Path) -> int:
    journal = Journal(data_dir / "journal", 10**6)
    try:
        return journal[-1].index
    finally:
        journal.close()


def test_a_torn_tail_is_what_a_manager_cuts_and_nothing_else_is_touched(data_dir):
    before = {path: path.read_bytes() for path in (data_dir / "journal").iterdir()}
    said = damage.tear_tail(data_dir)
    *others, last = sorted(before)
    assert last.name in said
    assert all(path.read_bytes() == before[path] for path in others)
    torn = last.read_bytes()
    assert torn.startswith(before[last]) and torn[len(before[last]) :].startswith(damage.FRAME_MAGIC)
    with pytest.raises(Unsettled, match="already"):
        damage.tear_tail(data_dir)
    assert last_index(data_dir) == 13
    assert last.read_bytes() == before[last], "the manager cut exactly what was added"


def test_what_is_torn_would_have_been_a_good_frame(data_dir):
    """Or it would show nothing: the manager would refuse it, or cut it, for another reason."""
    for path in sorted((data_dir / "journal").iterdir()):  # with frames, and without
        path.write_bytes(path.read_bytes() + damage.next_frame(path.read_bytes()))
        (*_, payload) = SegmentReader(LocalDisk(), path).frames(is_last=True)
        assert payload.startswith(b"never synced")


def test_every_flipped_bit_is_one_bit_and_no_manager_starts_with_fewer_entries(data_dir):
    journal = data_dir / "journal"
    before = {path: path.read_bytes() for path in sorted(journal.iterdir())}
    bits = 8 * sum(map(len, before.values()))
    hit = dict.fromkeys(before, 0)
    refused = 0
    for chance in range(5, bits, 101):
        said = damage.flip(data_dir, damage.JOURNAL, chance + bits)  # it is taken modulo the size
        changed = {path: path.read_bytes() for path in before if path.read_bytes() != before[path]}
        ((path, data),) = changed.items()
        assert path.name in said
        assert sum((one ^ other).bit_count() for one, other in zip(data, before[path], strict=True)) == 1
        hit[path] += 1
        try:
            assert last_index(data_dir) == 13
        except StorageFailed:
            refused += 1
        path.write_bytes(before[path])
    assert all(hit.values()), "every file has its turn"
    assert refused


def test_there_must_be_something_to_damage(tmp_path):
    with pytest.raises(Unsettled, match="no snapshot yet"):
        damage.flip(tmp_path, damage.SNAPSHOT, 1)
    with pytest.raises(Unsettled, match="no journal yet"):
        damage.tear_tail(tmp_path)


# --- the disks of a cluster ---


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(ledger: Ledger) -> AsyncIterator[OwnCluster]:
    async with OwnCluster(ledger, managers=3, agents=1) as made:
        await made.ready()
        yield made
    assert mounts.below(made.folder) == []
    assert str(made.folder) not in run("losetup", "--list", "--noheadings", "--output", "BACK-FILE")


async def submit(cluster: OwnCluster, *command: str) -> int:
    async with cluster.client() as client:
        return (await client.submit({"name": "work", "command": list(command)})).id


def log(cluster: OwnCluster, name: str) -> str:
    return cluster.daemons.log(name).read_text()


@MODULE
async def test_a_manager_on_a_full_disk_stands_back_and_takes_part_again(cluster):
    restarts = cluster.processes.restarts("m1")
    async with cluster.disks.full("m1", 60):
        assert os.statvfs(cluster.disks.path("m1")).f_bavail == 0
        while "disk_full" not in log(cluster, "m1"):
            await submit(cluster, "true")
    await cluster.ready()
    assert cluster.processes.restarts("m1") == restarts


@MODULE
async def test_a_manager_whose_disk_becomes_read_only_stops_and_is_back_at_the_end(cluster):
    first = cluster.processes.pid("m2")
    async with cluster.disks.read_only("m2", 60):
        with pytest.raises(OSError, match="Read-only"):
            (cluster.disks.path("m2") / "new").touch()
        while cluster.processes.pid("m2") == first:
            await submit(cluster, "true")
        assert "storage_failed" in log(cluster, "m2")
    await cluster.ready()
    assert cluster.processes.pid("m2") not in (first, None)
    (cluster.disks.path("m2") / "new").touch()


@MODULE
async def test_a_disk_that_somebody_else_uses_is_let_be(cluster, monkeypatch):
    monkeypatch.setattr(power, "PATIENCE_S", 0.2)
    pid = cluster.processes.pid("m2")
    with running("sleep", "600", cwd=cluster.disks.path("m2")) as shell:
        with pytest.raises(MachineLacks, match=rf"process {shell.pid} \(sleep\)"):
            async with cluster.disks.read_only("m2", 60):
                pytest.fail("it must not become read-only")
        with pytest.raises(MachineLacks, match=rf"process {shell.pid} \(sleep\)"):
            await cluster.disks.cut_power(["m1", "m2"])
        assert shell.poll() is None
    assert cluster.processes.pid("m2") == pid
    (cluster.disks.path("m2") / "new").touch()


@MODULE
async def test_a_manager_that_is_down_may_be_torn_and_wiped_and_one_that_runs_may_not(cluster):
    with pytest.raises(Unsettled, match="m3 runs"):
        await cluster.disks.tear_tail("m3")
    with pytest.raises(Unsettled, match="m3 runs"):
        await cluster.disks.wipe("m3")
    await cluster.processes.kill("m3")
    assert "never whole" in await cluster.disks.tear_tail("m3")
    await cluster.processes.start("m3")
    await cluster.ready()
    assert "journal_tail_cut" in log(cluster, "m3")
    await cluster.processes.kill("m3")
    await cluster.disks.wipe("m3")
    assert list(cluster.disks.path("m3").iterdir()) == []
    await cluster.processes.start("m3")
    await cluster.ready()


@MODULE
async def test_the_power_of_a_node_takes_its_agent_its_supervisor_and_its_tasks(cluster):
    job_id = await submit(cluster, "sleep", "601")
    folder = str(cluster.disks.path("n1"))

    def sleepers() -> list[bytes]:
        commands = [Path(f"/proc/{each.pid}/cmdline").read_bytes() for each in processes_of(folder)]
        return [command for command in commands if command.startswith(b"sleep\x00601")]

    eventually("the task to run", sleepers)
    await cluster.disks.cut_power(["n1"])
    assert processes_of(folder) == []
    assert cluster.processes.pid("n1") is None
    await cluster.processes.start("n1")
    await cluster.ready()
    async with cluster.client() as client:
        await client.cancel(job_id)


@MODULE
async def test_the_power_of_all_managers_takes_nothing_that_was_accepted(cluster):
    accepted = [await submit(cluster, "true") for _ in range(20)]
    pids = [cluster.processes.pid(name) for name in cluster.managers]
    await cluster.disks.cut_power(cluster.managers)
    assert [cluster.processes.pid(name) for name in cluster.managers] == [None] * 3
    audit = Path(os.environ["HASCHED_STATE_DIR"], "chaos", "audit.jsonl").read_text()
    assert all(f"let process {pid} go on" in audit for pid in pids), "whoever stood still had a way back"
    for name in cluster.managers:
        await cluster.processes.start(name)
    await cluster.ready()
    async with cluster.client() as client:
        for job_id in accepted:
            assert (await client.job(job_id)).id == job_id
