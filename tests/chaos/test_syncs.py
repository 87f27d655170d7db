"""Faults at system calls. strace must be allowed to look at processes that are not its children: root, or CAP_SYS_PTRACE."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from chaos.cluster import syncs
from chaos.cluster.own import OwnCluster
from chaos.cluster.strace import EIO, KILL, Tracer, delay, inject
from chaos.cluster.syncs import journal_files, limit_for
from chaos.errors import MachineLacks, Unsettled
from chaos.safety.identity import Born, born, is_alive
from chaos.safety.ledger import Ledger
from chaos.safety.undo import FileLimit, Undo
from tests.support.cluster import eventually

SYNCER = """\
import os, sys, time
descriptors = [os.open(path, os.O_CREAT | os.O_WRONLY) for path in sys.argv[1:]]
for line in sys.stdin:
    begun = time.monotonic()
    try:
        os.fdatasync(descriptors[int(line)])
        print("synced", time.monotonic() - begun, flush=True)
    except OSError as error:
        print(error.strerror, 0, flush=True)
"""
OPENER = """\
import os, sys
gap = os.open("/dev/null", os.O_RDONLY)
kept = os.open("/dev/null", os.O_RDONLY)
os.close(gap)
print("ready", flush=True)
for line in sys.stdin:
    opened = []
    try:
        while len(opened) < 100:
            opened.append(os.open("/dev/null", os.O_RDONLY))
        said = "and more"
    except OSError as error:
        said = error.strerror
    for descriptor in opened:
        os.close(descriptor)
    print(len(opened), said, flush=True)
"""


class Child:
    """A process that answers each line with one."""

    def __init__(self, code: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid

    def ask(self, line: str = "") -> str:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)
        return self.read()

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def syncer(tmp_path: Path) -> Iterator[Child]:
    """Asked for a number, it syncs that one of two files."""
    child = Child(SYNCER, str(tmp_path / "0"), str(tmp_path / "1"))
    with child.process:
        assert child.ask("0").startswith("synced")
        yield child
        child.process.kill()


def tracer_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("TracerPid")).split()[1])


# --- strace ---


def test_the_nth_sync_of_the_files_meant_fails_and_no_other(syncer, tmp_path):
    tracer = Tracer(syncer.pid, inject("fdatasync", EIO, when=2, files=[tmp_path / "0"]))
    tracer.attach()
    said = [syncer.ask(file).rsplit(" ", 1)[0] for file in ("0", "1", "1")]
    assert (said, tracer.fired) == (["synced"] * 3, False)
    assert (syncer.ask("0"), tracer.fired) == ("Input/output error 0", True)
    assert syncer.ask("0").startswith("synced"), "only that one"
    tracer.detach()
    assert tracer_of(syncer.pid) == 0
    assert syncer.ask("0").startswith("synced")


def test_a_process_is_killed_in_front_of_its_nth_sync(syncer, tmp_path):
    tracer = Tracer(syncer.pid, inject("fdatasync", KILL, when=2))
    tracer.attach()
    assert syncer.ask("0").startswith("synced")
    assert syncer.ask("0") == ""
    assert syncer.process.wait() == -signal.SIGKILL
    eventually("strace to have told of it", lambda: tracer.fired)
    tracer.detach()


def test_every_sync_is_slow_while_it_lasts(syncer):
    tracer = Tracer(syncer.pid, inject("fdatasync", delay(80)))
    tracer.attach()
    taken = [float(syncer.ask(file).split()[1]) for file in ("0", "1", "0")]
    tracer.detach()
    assert min(taken) >= 0.08


def test_whoever_is_traced_goes_on_when_strace_is_killed(syncer):
    known: list[Born] = []
    tracer = Tracer(syncer.pid, inject("fdatasync", EIO, when=1))
    tracer.attach(known.append)
    assert tracer_of(syncer.pid) == known[0].pid, "what was told is what traces"
    os.kill(known[0].pid, signal.SIGKILL)
    eventually("the tracer to be gone", lambda: tracer_of(syncer.pid) == 0)
    assert syncer.ask("0").startswith("synced")
    tracer.detach()


def test_nothing_is_traced_that_could_not_be_put_in_the_ledger(syncer):
    known: list[Born] = []

    def refuse(tracer: Born) -> None:
        known.append(tracer)
        raise MachineLacks("no ledger")

    with pytest.raises(MachineLacks, match="no ledger"):
        Tracer(syncer.pid, inject("fdatasync", EIO)).attach(refuse)
    eventually("what would have been strace to end", lambda: not is_alive(known[0]))
    assert syncer.ask("0").startswith("synced")


def test_a_process_that_is_gone_can_not_be_traced(syncer):
    syncer.process.kill()
    syncer.process.wait()
    with pytest.raises(MachineLacks, match="No such process"):
        Tracer(syncer.pid, inject("fdatasync", EIO)).attach()


# --- open files ---


def test_a_starved_process_can_open_exactly_the_spare_ones_until_its_limit_is_back():
    child = Child(OPENER)
    with child.process:
        assert child.read() == "ready"
        assert child.ask() == "100 and more"
        process = born(child.pid)
        assert process is not None
        soft, hard = resource.prlimit(child.pid, resource.RLIMIT_NOFILE)
        for spare in (0, 1, 5):
            resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (limit_for(child.pid, spare), hard))
            assert child.ask() == f"{spare} Too many open files"
        undo: Undo = FileLimit(process, soft, hard)
        msgspec.json.decode(msgspec.json.encode(undo), type=Undo).perform()  # as it comes out of a ledger
        assert resource.prlimit(child.pid, resource.RLIMIT_NOFILE) == (soft, hard)
        assert child.ask() == "100 and more"
        FileLimit(Born(child.pid, process.started - 1), 1, hard).perform()
        assert child.ask() == "100 and more", "another process of that id is none of ours"
        child.process.kill()
        child.process.wait()
        undo.perform()


# --- a manager ---


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(ledger: Ledger) -> AsyncIterator[OwnCluster]:
    async with OwnCluster(ledger, managers=3, agents=0) as made:
        await made.ready()
        yield made


async def submit(cluster: OwnCluster) -> None:
    async with cluster.client() as client:
        await client.submit({"name": "work", "command": ["true"]})


def said_of_storage(cluster: OwnCluster) -> int:
    return cluster.daemons.log("m2").read_text().count("storage_failed")


async def until_it_ended(cluster: OwnCluster, manager: str) -> None:
    async with asyncio.timeout(60):
        while cluster.processes.pid(manager) is not None:
            await submit(cluster)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_manager_with_slow_syncs_goes_on_and_is_let_go(cluster):
    pid = cluster.processes.pid("m1")
    async with cluster.syncs.slow("m1", 20, 60):
        assert tracer_of(pid) != 0
        await submit(cluster)
    assert (tracer_of(pid), cluster.processes.pid("m1")) == (0, pid)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_manager_stops_when_a_sync_of_its_journal_fails_and_is_back_at_the_end(cluster):
    async with cluster.syncs.failing("m2", 3, 60):
        await until_it_ended(cluster, "m2")
        assert cluster.daemons.ended("m2") == 1
        assert "storage_failed" in cluster.daemons.log("m2").read_text()
        with pytest.raises(Unsettled, match="m2 is down"):
            async with cluster.syncs.slow("m2", 1, 60):
                raise AssertionError("nobody is there to be slow")
    await cluster.ready()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_manager_is_killed_in_front_of_a_sync_and_is_back_at_the_end(cluster):
    async with cluster.syncs.killed("m3", 3, 60):
        await until_it_ended(cluster, "m3")
        assert cluster.daemons.ended("m3") == -signal.SIGKILL
    await cluster.ready()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_fault_that_is_left_as_it_happens_leaves_nobody_down(cluster):
    """The sync has just failed, and the manager may still be on its way out, when the fault ends."""
    restarts = cluster.processes.restarts("m2")
    before = said_of_storage(cluster)
    async with cluster.syncs.failing("m2", 1, 60):
        while said_of_storage(cluster) == before:
            await submit(cluster)
    assert cluster.processes.restarts("m2") == restarts + 1
    await cluster.ready()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_sync_that_never_comes_harms_nobody(cluster):
    pid = cluster.processes.pid("m1")
    async with cluster.syncs.killed("m1", 1000, 60):
        tracing = Path(f"/proc/{tracer_of(pid)}/cmdline").read_text().split("\0")
        assert f"{cluster.disks.path('m1')}/journal/{1:016d}.log" in tracing, "syncs of other files don't count"
        await submit(cluster)
    assert (tracer_of(pid), cluster.processes.pid("m1")) == (0, pid)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_starved_manager_has_its_limit_back_at_the_end(cluster):
    pid = cluster.processes.pid("m1")
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    async with cluster.syncs.starved("m1", 2, 60):
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) != limit
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] <= len(list(Path(f"/proc/{pid}/fd").iterdir())) + 10
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == limit
    await cluster.ready()


def test_the_journal_is_found_where_the_manager_writes_it(cluster, monkeypatch):
    pid = cluster.processes.pid("m1")
    files = journal_files(pid)
    latest = max((cluster.disks.path("m1") / "journal").glob("*.log"))
    assert files[:2] == [latest, latest.with_name(f"{latest.name}.tmp")]
    monkeypatch.setattr(syncs, "JOURNAL_PATIENCE_S", 0.1)
    with pytest.raises(Unsettled, match="no journal open"):
        journal_files(os.getpid())
