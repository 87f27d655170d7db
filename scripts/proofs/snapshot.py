"""Snapshots of a large state: how long the loop stands still, how long they take, restart from one, and catching up."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import percentile
from benchmarks.http import Connection
from hasched.client.tls import client_context
from hasched.model.errors import HaschedError
from proofs.report import Proof, say
from tests.support.cluster import ProcessCluster, eventually
from tests.support.flipped_bit import NEVER_RUNS

PROOF = "snapshot"
BATCH = 200
SNAPSHOT_EVERY, CHECK_EVERY = 4000, 6000
PROMISED = ("a snapshot", "a check")
STALL_MS = 50  # the loop computes no longer at a stretch during those


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=1_000_000, help="that the state holds (default: 1,000,000)")
    parser.add_argument("--connections", type=int, default=16, help="that submit meanwhile (default: 16)")
    parser.add_argument(
        "--quiet-s", type=float, default=10.0, help="how long to measure without a snapshot (default: 10)"
    )


class WatchedCluster(ProcessCluster):
    """Managers that note when their loop was late."""

    def start(self, *names: str) -> None:
        for name in names or self.manager_names:
            command = [sys.executable, "-m", "tests.support.watched", "manager", "start"]
            environment = os.environ | {"HASCHED_WATCHED": str(self.folder / f"{name}.late")}
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [*command, "--config", str(self.folder / f"{name}.yaml")],
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=environment,
                )

    def lateness(self, name: str, begin: float, end: float) -> list[tuple[float, float]]:
        """Milliseconds by which beats of its loop were late between two times, and those of them that its thread computed."""
        lines = (self.folder / f"{name}.late").read_text().splitlines()
        beats = [tuple(map(float, line.split())) for line in lines if line.count(" ") == 2]
        return [(1000 * late, 1000 * spent) for at, late, spent in beats if begin <= at - late and at <= end + late]

    def events(self, name: str, event: str, after: float = 0) -> list[tuple[float, dict[str, str]]]:
        """When a manager logged `event`, and with what."""
        found = []
        for line in (self.folder / f"{name}.log").read_text().splitlines():
            match = re.match(rf"time=(\S+) level=\S+ event={event}\b(.*)", line)
            if match:
                at = datetime.fromisoformat(match[1]).timestamp()
                if at >= after:
                    found.append((at, dict(re.findall(r"(\w+)=(\S+)", match[2]))))
        return found


class Answer(NamedTuple):
    at: float
    latency_ms: float


class Load:
    """Single submissions to the leader over `connections`, in a thread of its own, between `__enter__` and `__exit__`."""

    def __init__(self, url: str, tls: ssl.SSLContext, token: str, connections: int) -> None:
        self._url, self._tls, self._token, self._connections = url, tls, token, connections
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.answers: list[Answer] = []
        self.refused = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()

    def latencies(self, begin: float, end: float) -> list[float]:
        return [answer.latency_ms for answer in self.answers if begin <= answer.at <= end]

    async def _run(self) -> None:
        await asyncio.gather(*(self._submit() for _ in range(self._connections)))

    async def _submit(self) -> None:
        connection = await Connection(self._url, self._tls, self._token).open()
        while not self._stopping:
            begun = time.perf_counter()
            status, _ = await connection.post("/v1/jobs", json.dumps(NEVER_RUNS).encode(), uuid.uuid4().hex)
            if status < 300:
                self.answers.append(Answer(time.time(), 1000 * (time.perf_counter() - begun)))
            else:
                self.refused += 1
        connection.close()


async def fill(url: str, tls: ssl.SSLContext, token: str, jobs: int) -> None:
    left = iter(range(jobs // BATCH))

    async def submit() -> None:
        connection = await Connection(url, tls, token).open()
        for number in left:
            batch = [{"submission_id": uuid.uuid4().hex, "spec": NEVER_RUNS} for _ in range(BATCH)]
            while (await connection.post("/v1/jobs/batch", json.dumps({"jobs": batch}).encode()))[0] == 503:
                say("refused, or not known: the same ids again")
            if number % 500 == 0:
                say(f"{number * BATCH:,} jobs")
        connection.close()

    await asyncio.gather(*(submit() for _ in range(4)))


class Measure:
    """The proof as it goes on."""

    def __init__(self, options: argparse.Namespace, cluster: WatchedCluster) -> None:
        self.options, self.cluster = options, cluster
        self.proof = Proof(
            f"Snapshots of {options.jobs:,} jobs, under {options.connections} connections that submit one after another",
            ("what", "s", "loop late max ms", "computing ms", "p99 ms", "submissions/s", "p50 ms", "p99 ms ", "max ms"),
        )
        self.tls = client_context(cluster.ca)
        self.find_leader()

    def find_leader(self) -> None:
        self.leader = self.cluster.leader()
        self.url = next(member["api"] for member in self.cluster.members if member["name"] == self.leader)
        self.followers = [name for name in self.cluster.manager_names if name != self.leader]

    def note(self, what: str, load: Load, begin: float, end: float) -> None:
        beats = self.cluster.lateness(self.leader, begin, end)
        late, spent = [each[0] for each in beats] or [0.0], [min(each) for each in beats] or [0.0]
        taken = load.latencies(begin, end) or [0.0]
        self.proof.add(
            what,
            f"{end - begin:.1f}",
            f"{max(late):.0f}",
            f"{max(spent):.0f}",
            f"{percentile(late, 99):.0f}",
            f"{len(taken) / (end - begin):.0f}",
            f"{percentile(taken, 50):.1f}",
            f"{percentile(taken, 99):.1f}",
            f"{max(taken):.0f}",
        )

    def watch(self, what: str, event: str, load: Load) -> None:
        """Until the leader has logged that it did `event`, and what happened while it did."""
        after = time.time()
        at, fields = eventually(what, lambda: next(iter(self.cluster.events(self.leader, event, after)), None), 300)
        time.sleep(0.2)  # what was late at its very end is noted a little later
        self.note(what, load, at - float(fields["seconds"]), at)
        if "bytes" in fields:
            self.proof.facts["size of the snapshot"] = f"{int(fields['bytes']) / 1e6:.0f} MB"

    def run(self) -> Proof:
        self.proof.facts["the machine"] = (
            f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f} before it began"
        )
        begun = time.monotonic()
        asyncio.run(fill(self.url, self.tls, self.cluster.token, self.options.jobs))
        taken = time.monotonic() - begun
        self.proof.facts["filled"] = (
            f"{self.options.jobs:,} jobs in {taken:.0f} s, {self.options.jobs / taken:,.0f} a second"
        )
        self.find_leader()
        with Load(self.url, self.tls, self.cluster.token, self.options.connections) as load:
            self.settle(load)
            self.watch("a snapshot", "snapshot_taken", load)
            self.watch("a check", "state_digested", load)
            self.restart(self.followers[0], load)
            self.catch_up(self.followers[1], load)
            self.proof.facts["refused, or not known"] = load.refused
        if self.cluster.leader() != self.leader:
            self.proof.facts["note"] = "the leader changed meanwhile; its figures are those of the first"
        self.judge()
        return self.proof

    def settle(self, load: Load) -> None:
        """A stretch in which the leader does nothing else."""
        busy = ("snapshot_taken", "state_digested")
        while True:
            begin = time.time()
            time.sleep(self.options.quiet_s)
            end = time.time()
            time.sleep(8)
            jobs = [each for event in busy for each in self.cluster.events(self.leader, event, begin)]
            if not any(at - float(fields["seconds"]) < end for at, fields in jobs):
                self.note("neither", load, begin, end)
                return

    def restart(self, name: str, load: Load) -> None:
        """SIGTERM, and from the new process to an answer that shows everything that was committed when it began."""
        self.cluster.terminate(name)
        target = self.applied(self.leader)
        begin, begun = time.time(), time.monotonic()
        self.cluster.start(name)
        eventually("its return", lambda: self.applied(name) >= target, 300)
        self.proof.facts["restart of a follower from its snapshot and log"] = f"{time.monotonic() - begun:.1f} s"
        self.note("a follower restarts", load, begin, time.time())

    def catch_up(self, name: str, load: Load) -> None:
        """An empty disk, filled by the leader while it takes submissions."""
        self.cluster.processes[name].send_signal(signal.SIGKILL)
        self.cluster.processes[name].wait()
        shutil.rmtree(self.cluster.folder / name)
        begin, begun = time.time(), time.monotonic()
        self.cluster.start(name)
        eventually("its vote", lambda: self.cluster.events(name, "joined", begin), 300)
        self.proof.facts["an empty manager has caught up and its vote"] = (
            f"{time.monotonic() - begun:.1f} s after its start"
        )
        self.note("an empty manager is filled", load, begin, time.time())

    def applied(self, name: str) -> int:
        """As the manager itself says."""
        with self.cluster.client() as client:
            try:
                return next(each.applied_index for each in client.managers().managers if each.id == name)
            except HaschedError:
                return 0

    def judge(self) -> None:
        for row in self.proof.rows:
            if row[0] in PROMISED and float(str(row[3])) > STALL_MS:
                self.proof.violate(f"the leader's loop computed for {row[3]} ms at a stretch: {row[0]}")


def prove(options: argparse.Namespace) -> Proof:
    settings = {"raft": {"snapshot_every": SNAPSHOT_EVERY, "check_every": CHECK_EVERY}}
    with (
        tempfile.TemporaryDirectory(prefix="hasched-snapshot-") as folder,
        WatchedCluster(Path(folder), agents=0, settings=settings) as cluster,
    ):
        cluster.start()
        cluster.wait_ready()
        return Measure(options, cluster).run()
