"""Fail-over: how soon after the leader is killed or frozen the next submission is accepted; and nothing is lost.

Two figures for each fault. *cluster*: by a client that submits to all managers at once, so that it shows when the cluster
accepts again. *client*: by the ordinary Python client, which talks to one manager and has to find out that it is gone.
Either is the time from the signal to the end of the first accepted submission that began after it.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from benchmarks.figures import percentile
from chaos.checkers import durability
from hasched.client.sync import Client
from proofs.report import Proof
from tests.support.cluster import ProcessCluster
from tests.support.prober import NEVER_RUNS, Prober, find_rivals, present

PROOF = "fail-over"

PATIENCE_S = 60.0


class PlainClient:
    """Submits through the ordinary client, one after another, in a thread of its own."""

    def __init__(self, client: Client, pause_s: float = 0.02) -> None:
        self._client = client
        self._pause_s = pause_s
        self._stopping = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run)
        self.accepted: list[tuple[float, float]] = []  # begun, ended
        self.job_ids: dict[str, int] = {}

    def __enter__(self) -> PlainClient:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._thread.join()
        self._client.close()

    def next_accepted(self, after: float) -> float:
        """When the first submission that began after this moment was accepted."""
        with self._news:
            while not (self.accepted and self.accepted[-1][0] >= after):
                assert self._news.wait(PATIENCE_S), f"the client's submission was not accepted for {PATIENCE_S:.0f} s"
            return next(ended for begun, ended in self.accepted if begun >= after)

    def _run(self) -> None:
        while not self._stopping:
            begun = time.monotonic()
            submitted = self._client.submit(NEVER_RUNS)
            with self._news:
                self.accepted.append((begun, time.monotonic()))
                self.job_ids[submitted.submission_id] = submitted.id
                self._news.notify_all()
            time.sleep(self._pause_s)


class Times(NamedTuple):
    """Seconds, one pair for each fault."""

    cluster: list[float]
    client: list[float]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=50, help="SIGKILL of the leader, so many times (50)")
    parser.add_argument("--freezes", type=int, default=20, help="SIGSTOP of the leader, so many times (20)")


def prove(options: argparse.Namespace) -> Proof:
    columns = ("fault", "seen by", "times", "p50 ms", "p99 ms", "max ms")
    proof = Proof("Fail-over: from the signal to the next accepted submission", columns)
    with new_cluster() as cluster:
        found = measure(cluster, options.kills, options.freezes, proof)
    for fault, times in found.items():
        for who, seconds in times._asdict().items():
            if seconds:
                figures = (percentile(seconds, 50), percentile(seconds, 99), max(seconds))
                proof.add(fault, who, len(seconds), *(round(each * 1000) for each in figures))
    return proof


def figures(kills: int) -> dict[str, float]:
    """For the record of performance: seconds, as the ordinary client sees them."""
    with new_cluster() as cluster:
        seconds = measure(cluster, kills, 0, Proof("fail-over", ()))["kill"].client
    return {"p50": percentile(seconds, 50), "max": max(seconds)}


@contextmanager
def new_cluster() -> Iterator[ProcessCluster]:
    """Three managers and an agent, whole; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="hasched-prove-") as name, ProcessCluster(Path(name), agents=1) as cluster:
        cluster.start()
        cluster.wait_ready()
        yield cluster


def measure(cluster: ProcessCluster, kills: int, freezes: int, proof: Proof) -> dict[str, Times]:
    """On a cluster that is whole; each fault begins when it is whole again. Broken promises go into `proof`."""
    found = {"kill": Times([], []), "freeze": Times([], [])}
    with Prober(cluster) as prober, PlainClient(cluster.client()) as client:
        for fault in ["kill"] * kills + ["freeze"] * freezes:
            cluster.wait_ready()
            leader = cluster.leader()
            prober.next_accepted(time.monotonic())
            signalled = time.monotonic()
            if fault == "kill":
                cluster.processes[leader].kill()
            else:
                cluster.freeze(leader)
            struck = time.monotonic()
            found[fault].cluster.append(prober.next_accepted(struck).ended - signalled)
            found[fault].client.append(client.next_accepted(struck) - signalled)
            if fault == "kill":
                cluster.kill(leader)
                cluster.start(leader)
            else:
                cluster.thaw(leader)
        cluster.wait_ready()
    there = present(cluster)
    violations = prober.find_violations(there) + durability.check(client.job_ids, (), there)
    for sentence in violations + find_rivals(prober.sights):
        proof.violate(sentence)
    proof.facts["accepted submissions"] = len(prober.accepted) + len(client.job_ids)
    proof.facts["of these lost or doubled"] = len(violations)
    return found
