"""Every nemesis strikes a real cluster once: the harm is there while it lasts, and gone afterwards.

One cluster for all, as in a run, and no pause between the strikes but what a nemesis itself asks for. Needs root: hosts are
network namespaces, disks are loop files.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import combinations
from pathlib import Path

import pytest
import pytest_asyncio

from chaos.cluster.network import OUTSIDE, SWITCH, run
from chaos.cluster.own import OwnCluster
from chaos.cluster.topology import both_ways
from chaos.nemeses.base import Nemesis
from chaos.record import Record, Struck
from chaos.registry import Registry
from chaos.safety.ledger import Ledger
from chaos.safety.places import audit_path
from chaos.stage import Claims, Skipped, Stage
from hasched.client.aio import AsyncClient
from hasched.model.errors import HaschedError
from hasched.model.states import TaskState
from hasched.model.views import ManagerView

NEMESES = Registry().nemeses
pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_S = 30.0
SAMPLE_S = 0.05
MARK = "marked-by-a-test"  # a file that is gone if its disk was replaced
SHORT_S = 0.4
# Those that wait for something to happen within their time, and go on when it has.
SECONDS = {
    "agent-cut-off": 12.0,
    "check-managers": 10.0,
    "failing-sync": 12.0,
    "kill-at-sync": 12.0,
    "crash-loop": 1.2,
    "full-log-volume": 1.0,
}
# Who has only begun to lead hasn't heard of the others' disks yet; one that was let go too early needs far longer than so many.
LOOKS = 5
FRAGILE = ("lost-disk", "flipped-journal-bit", "flipped-snapshot-bit", "failing-sync")
CLEAN_STOPS = ("terminate-manager", "agent-restart")
SNAPSHOT_EVERY = 100
SETTINGS = {"node_grace": "1500ms", "unhealthy_after": "1s", "raft": {"snapshot_every": SNAPSHOT_EVERY}}


class Witness:
    """What could be seen of the cluster's daemons, disks and links while a nemesis struck."""

    def __init__(self, cluster: OwnCluster) -> None:
        self.cluster = cluster
        self.before = {name: cluster.processes.restarts(name) for name in self._names()}
        self.managers = list(cluster.managers)
        for name in self._names():
            _mark(cluster.data_dir(name) / MARK)
        self.stopped: set[str] = set()
        self.traced: set[str] = set()
        self.starved: set[str] = set()
        self.full: set[str] = set()
        self.read_only: set[str] = set()
        self.cut: set[tuple[str, str]] = set()
        self.most_connections = 0

    def _names(self) -> list[str]:
        return [*self.cluster.managers, *self.cluster.agents]

    def restarted(self, name: str) -> bool:
        return self.cluster.processes.restarts(name) > self.before[name]

    def has_new_disk(self, name: str) -> bool:
        return not (self.cluster.data_dir(name) / MARK).exists()

    def disk_error(self, name: str) -> int | None:
        """What a write to its file system comes to; beside its directory, where a manager that starts wants no strange file."""
        probe = self.cluster.data_dir(name).parent / "probe"
        try:
            probe.write_bytes(b"x" * 4096)
            probe.unlink()
        except OSError as error:
            return error.errno
        return None

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    async def _watch(self) -> None:
        assert self.cluster.hosts is not None
        while True:
            for name in self._names():
                with suppress(OSError):  # it is down
                    self.look_at(name)
            self.cut |= set(await asyncio.to_thread(self.cluster.hosts.cuts))
            await asyncio.sleep(SAMPLE_S)

    def look_at(self, name: str) -> None:
        pid = self.cluster.processes.pid(name)
        if pid is not None:
            process = Path(f"/proc/{pid}")
            status = dict(
                line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line
            )
            limit = next(line for line in (process / "limits").read_text().splitlines() if line.startswith("Max open"))
            if status["State"][0] == "T":
                self.stopped.add(name)
            if status["TracerPid"] != "0":
                self.traced.add(name)
            opened = len(list((process / "fd").iterdir()))
            self.most_connections = max(self.most_connections, opened)
            if int(limit.split()[3]) < opened + 20:
                self.starved.add(name)
        error = self.disk_error(name)
        if error == errno.ENOSPC:
            self.full.add(name)
        if error == errno.EROFS:
            self.read_only.add(name)


def _mark(path: Path) -> None:
    """So that it outlives a power cut."""
    path.touch()
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


Effect = Callable[[Witness, Struck], bool]


def _restarted(witness: Witness, struck: Struck) -> bool:
    return bool(struck.targets) and all(map(witness.restarted, struck.targets))


def _new_disk(witness: Witness, struck: Struck) -> bool:
    return _restarted(witness, struck) and all(map(witness.has_new_disk, struck.targets))


def _kept_disk(witness: Witness, struck: Struck) -> bool:
    return _restarted(witness, struck) and not any(map(witness.has_new_disk, struck.targets))


def _seen(what: str) -> Effect:
    return lambda witness, struck: bool(struck.targets) and set(struck.targets) <= getattr(witness, what)


def _traced(witness: Witness, struck: Struck) -> bool:
    return set(struck.targets) <= witness.traced and _restarted(witness, struck)


def _cut(witness: Witness, struck: Struck) -> bool:
    return bool(witness.cut) and set(struck.targets) <= {host for pair in witness.cut for host in pair}


def _shaped(how: str) -> Effect:
    """Packets went through a link of that kind."""

    def effect(witness: Witness, struck: Struck) -> bool:
        last = [line for line in audit_path().read_text().splitlines() if "packets: " in line][-1]
        seen = re.search(r"packets: ([0-9]+) seen", last)
        return seen is not None and int(seen[1]) > 0 and how in last and _noted(how)(witness, struck)

    return effect


def _audited(text: str) -> Effect:
    """It stands in the audit log; that it works is for the tests of clocks and links to show."""
    return lambda witness, struck: text.format(*struck.targets) in audit_path().read_text()


def _logged(witness: Witness, struck: Struck) -> bool:
    """A task wrote more than any other does here."""
    logs = [log for name in witness.cluster.agents for log in witness.cluster.data_dir(name).glob("attempts/*/*/std*")]
    return max(log.stat().st_size for log in logs) > 2**20


def _noted(text: str) -> Effect:
    return lambda witness, struck: any(text in note for note in struck.notes)


def _all(*effects: Effect) -> Effect:
    return lambda witness, struck: all(effect(witness, struck) for effect in effects)


def _hits(count: int, effect: Effect) -> Effect:
    return lambda witness, struck: len(struck.targets) == count and effect(witness, struck)


EFFECTS: dict[str, Effect] = {
    # process
    "kill-leader": _hits(1, _kept_disk),
    "kill-manager": _hits(1, _kept_disk),
    "kill-all-managers": _hits(3, _kept_disk),
    "kill-majority": _hits(2, _kept_disk),
    "freeze-leader": _hits(1, _seen("stopped")),
    "freeze-manager": _hits(1, _seen("stopped")),
    "freeze-majority": _hits(2, _seen("stopped")),
    "terminate-manager": lambda witness, struck: _restarted(witness, struck) and not struck.notes,  # it ended with 0
    "rolling-restart": lambda witness, struck: _hits(3, _restarted)(witness, struck) and not struck.notes,
    "crash-loop": _hits(1, _restarted),
    # agent
    "kill-agent": _hits(1, _kept_disk),
    "freeze-agent": _hits(1, _seen("stopped")),
    "reboot-node": _hits(1, _kept_disk),
    "agent-restart": lambda witness, struck: _restarted(witness, struck) and not struck.notes,
    "agents-come-and-go": _restarted,
    "agent-cut-off": lambda witness, struck: (
        _cut(witness, struck) and not _noted("did not count as lost")(witness, struck)
    ),
    "lost-agent-disk": _hits(1, _new_disk),
    "lost-reports": _cut,
    "leader-and-node": lambda witness, struck: (
        witness.restarted(struck.targets[0]) and struck.targets[1] in {host for pair in witness.cut for host in pair}
    ),
    # network
    "split-halves": _cut,
    "isolate-leader": _hits(1, _cut),
    "isolate-manager": _hits(1, _cut),
    "one-way-cut": lambda witness, struck: len(witness.cut) == 1 and _hits(2, _cut)(witness, struck),
    "chain": lambda witness, struck: len(witness.cut) == 2,  # of three managers in a row the outer two
    "star": lambda witness, struck: len(witness.cut) == 2,
    "flapping-link": _hits(2, _cut),
    "slow-links": _shaped("delay_ms"),
    "lossy-links": _shaped("loss"),
    "duplicating-links": _shaped("duplicated"),
    "reordering-links": _shaped("reordered"),
    "narrow-link": _shaped("bytes_per_s"),
    "reset-connections": _all(_noted("times"), _audited("reset ")),
    "client-cut": lambda witness, struck: witness.cut == {(OUTSIDE, struck.targets[0]), (struck.targets[0], OUTSIDE)},
    # disk
    "power-cut": _hits(3, _kept_disk),
    "power-cut-one": _hits(1, _kept_disk),
    "torn-tail": _all(_kept_disk, _noted("a frame that was never whole")),
    "flipped-journal-bit": _all(_new_disk, _noted("is flipped")),
    "flipped-snapshot-bit": _all(_new_disk, _noted("is flipped")),
    "lost-disk": _hits(1, _new_disk),
    "full-disk": _hits(1, _seen("full")),
    "read-only-disk": _hits(1, _seen("read_only")),
    "slow-disk": _hits(1, _seen("traced")),
    "failing-sync": _all(_traced, _noted("stopped at sync")),
    "kill-at-sync": _all(_traced, _noted("died at sync")),
    "starved-descriptors": _hits(1, _seen("starved")),
    # clock
    "clock-jump": _audited("the clock of {} jumps by"),
    "clock-drift": _audited("the clock of {} jumps by +0 s and drifts by"),
    # load
    "submission-storm": lambda witness, struck: int(struck.notes[-1].split()[0]) >= 50,
    "big-array": _noted("1 jobs"),
    "huge-bodies": _noted("{'body_too_large': "),
    "slow-clients": _noted("of 30 were cut off"),
    "idle-connections": lambda witness, struck: (
        witness.most_connections > 100 and _noted("300 connections")(witness, struck)
    ),
    "full-log-volume": _all(_logged, _noted("1 jobs")),
    # operator
    "membership": lambda witness, struck: (
        witness.cluster.managers != witness.managers and len(witness.cluster.managers) == 3
    ),
    "transfer-leadership": _noted("to m"),
    "check-managers": _noted("differing []"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(ledger: Ledger) -> AsyncIterator[OwnCluster]:
    async with OwnCluster(ledger, settings=SETTINGS) as made:
        await made.ready()
        async with made.client() as client:
            for _ in range(SNAPSHOT_EVERY + 20):  # an entry each: there are snapshots to be hit
                await client.submit({"name": "early", "command": ["/bin/true"]})
        work = asyncio.create_task(_work(made))
        try:
            yield made
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work


async def _work(cluster: OwnCluster) -> None:
    """Something to sync, and something that runs, all the time."""
    while True:
        async with cluster.client(timeout_s=5.0) as client:
            with suppress(HaschedError):
                while True:
                    await client.submit({"name": "work", "command": ["/bin/sleep", "0.3"]})
                    await asyncio.sleep(0.2)
        await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
def claims() -> Claims:
    return Claims()


@pytest.mark.parametrize("name", EFFECTS)
async def test_strike(cluster: OwnCluster, claims: Claims, name: str) -> None:
    if name in CLEAN_STOPS:
        await cluster.ready()  # who has hardly started ends by SIGTERM without a word
    struck, witness = await _strike(cluster, claims, NEMESES[name], SECONDS.get(name, SHORT_S))
    assert EFFECTS[name](witness, struck), (struck, vars(witness), cluster.logs())
    assert cluster.hosts is not None
    assert (claims.held, claims.links, cluster.hosts.cuts()) == ([], [], [])
    if name in FRAGILE:
        seen = [await _targets(cluster, struck) for _ in range(LOOKS)]
        assert any(all(each.reachable and each.filled for each in views) for views in seen), f"let go too early: {seen}"


async def _targets(cluster: OwnCluster, struck: Struck) -> list[ManagerView]:
    async with cluster.client() as client:
        return [each for each in (await client.managers()).managers if each.id in struck.targets]


async def _strike(cluster: OwnCluster, claims: Claims, nemesis: Nemesis, seconds: float) -> tuple[Struck, Witness]:
    """One strike, once there is somebody to hit."""
    stage, struck = _stage(cluster, claims, nemesis)
    async with asyncio.timeout(PATIENCE_S + seconds):
        while True:
            witness = Witness(cluster)
            try:
                async with witness.watching():
                    await nemesis.strike(stage, seconds)
                return struck, witness
            except Skipped:
                await asyncio.sleep(0.2)


def _stage(
    cluster: OwnCluster, claims: Claims, nemesis: Nemesis, over: asyncio.Event | None = None
) -> tuple[Stage, Struck]:
    struck = Struck(number=1, nemesis=nemesis.name, family=nemesis.family.value, at_s=0.0)
    seed = f"test {nemesis.name}"
    return Stage(cluster, Record(), claims, struck, seed=seed, over=over or asyncio.Event()), struck


LONG = ["freeze-manager", "kill-agent", "one-way-cut", "full-disk", "slow-disk", "slow-links"]


@pytest.mark.parametrize(
    ("name", "how"), [*((name, "cancelled") for name in LONG), *((name, "over") for name in LONG[::3])]
)
async def test_a_strike_that_is_ended_early_undoes_its_harm(
    cluster: OwnCluster, claims: Claims, name: str, how: str
) -> None:
    await cluster.ready()  # nobody is about to start, and to fail at it for want of a disk
    over = asyncio.Event()
    stage, struck = _stage(cluster, claims, NEMESES[name], over)
    strike = asyncio.create_task(NEMESES[name].strike(stage, 60.0))
    try:
        assert await stage.until(lambda: strike.done() or _harmed(cluster, struck), PATIENCE_S) and not strike.done()
        over.set() if how == "over" else strike.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([strike])
    finally:
        strike.cancel()
    assert strike.cancelled() == (how == "cancelled")
    assert not _harmed(cluster, struck) and (claims.held, claims.links) == ([], [])


def _harmed(cluster: OwnCluster, struck: Struck) -> bool:
    """Whether anything is not as it should be, of what these do."""
    assert cluster.hosts is not None
    witness = Witness(cluster)
    for name in struck.targets:
        with suppress(OSError):
            witness.look_at(name)
    down = [name for name in struck.targets if cluster.processes.pid(name) is None]
    shaped = "table netdev" in run(*cluster.hosts.command(SWITCH), "nft", "list", "tables")
    return bool(witness.stopped or witness.traced or witness.full or down or shaped or cluster.hosts.cuts())


async def test_a_disk_is_endangered_only_while_all_managers_are_whole(cluster: OwnCluster, claims: Claims) -> None:
    stage, _ = _stage(cluster, claims, NEMESES["lost-disk"])
    await cluster.ready()
    async with stage.claim("m1" if "m1" in cluster.managers else cluster.managers[0]):
        with pytest.raises(Skipped, match="not all managers are whole"):
            async with stage.spare_manager():
                pass
    async with cluster.processes.down(cluster.managers[0], 30.0):
        with pytest.raises(Skipped, match="not all managers are whole"):
            async with stage.spare_manager():
                pass
    await cluster.ready()
    async with stage.spare_manager():
        with pytest.raises(Skipped, match="another manager's disk"):
            async with stage.spare_manager():
                pass


async def test_two_nemeses_never_have_the_same_daemon_or_link(cluster: OwnCluster, claims: Claims) -> None:
    stage, _ = _stage(cluster, claims, NEMESES["kill-manager"])
    victim = cluster.managers[0]
    async with stage.claim(victim), stage.claim_links(both_ways(combinations([*cluster.managers, "n1", "n2"], 2))):
        for name in ("kill-all-managers", "power-cut", "split-halves", "isolate-manager", "slow-links"):
            other, struck = _stage(cluster, claims, NEMESES[name])
            with pytest.raises(Skipped, match="is being hit already"):
                await NEMESES[name].strike(other, 1.0)
            assert struck.targets == []
        other, struck = _stage(cluster, claims, NEMESES["freeze-manager"])
        await NEMESES["freeze-manager"].strike(other, 0.1)
        assert struck.targets != [victim]


async def test_every_nemesis_is_struck_here() -> None:
    assert list(NEMESES) == sorted(EFFECTS)


async def test_nemeses_are_called_as_their_modules_and_have_bounds() -> None:
    for name, nemesis in NEMESES.items():
        assert type(nemesis).__module__ == f"chaos.nemeses.{name.replace('-', '_')}"
        assert 0 < nemesis.seconds[0] <= nemesis.seconds[1] <= 30 and nemesis.weight > 0, name
        assert nemesis.summary and not nemesis.summary.endswith("."), name


async def test_afterwards_the_cluster_is_whole_and_no_job_of_a_nemesis_is_left(cluster: OwnCluster) -> None:
    await cluster.ready()
    assert all(cluster.processes.pid(name) for name in (*cluster.managers, *cluster.agents))
    async with cluster.client() as client, asyncio.timeout(PATIENCE_S):
        while left := await _jobs_of_nemeses(client):
            await asyncio.sleep(0.2)
        asked = await client.check_managers()
        while (check := (await client.managers()).check) is None or check.log_index < asked:
            await asyncio.sleep(0.1)
    assert left == [] and check.agreed and not check.differing


async def _jobs_of_nemeses(client: AsyncClient) -> list[int]:
    return [job.id async for job in client.jobs() if job.name.startswith("chaos-") and not TaskState[job.state].final]
