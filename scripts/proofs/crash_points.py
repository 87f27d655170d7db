"""A manager is killed in front of every sync, every sync fails, its disk is full, its bytes rot: nothing acknowledged is lost."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proofs import damage, full_disk, stored
from proofs.report import Proof
from proofs.syncs import FIRST_START, LATER_START, RUNNING, Place, Traced, wait_ended
from proofs.workload import GIVE_UP_S, Workload
from tests.support.cluster import ProcessCluster, eventually

PROOF = "crash-points"
SETTINGS = {"raft": {"segment_bytes": 65536, "snapshot_bytes": 65536}}
SUBMISSIONS = 16  # in one run: several segments and snapshots
LATE_ACK_S = 0.05  # an answer that was on its way already


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--managers", type=int, nargs="+", default=[1, 3], help="sizes of clusters; default 1 and 3")
    parser.add_argument("--every", type=int, default=1, help="only every so manyth sync of a place")
    parser.add_argument("--parts", nargs="+", default=["kill", "EIO", "full", "rot"], help="kill, EIO, full, rot")


def prove(options: argparse.Namespace) -> Proof:
    proof = Proof("Crash points", ["managers", "fault", "where", "n", "what happened", "acknowledged", "lost"])
    for managers in options.managers:
        for fault in ("kill", "EIO"):
            if fault in options.parts:
                for place in (*FIRST_START, *LATER_START, *RUNNING):
                    visit(proof, managers, place, fault, every=options.every)
        if "full" in options.parts:
            full_disk.visit(proof, managers, SETTINGS)
        if "rot" in options.parts:
            damage.visit(proof, managers, SETTINGS)
    proof.facts["cases"] = len(proof.rows)
    proof.facts["acknowledged"] = sum(int(str(row[-2])) for row in proof.rows)
    proof.facts["acknowledged and lost"] = sum(int(str(row[-1])) for row in proof.rows)
    return proof


@contextmanager
def new_cluster(managers: int) -> Iterator[ProcessCluster]:
    with (
        tempfile.TemporaryDirectory(prefix="hasched-prove-") as folder,
        ProcessCluster(Path(folder), managers, 0, SETTINGS) as cluster,
    ):
        yield cluster


def visit(proof: Proof, managers: int, place: Place, fault: str, *, every: int = 1, limit: int | None = None) -> None:
    """One n after another, until a run ends without reaching it; each begins anew, with empty disks or the same full ones."""
    with new_cluster(managers) as cluster:
        templates = cluster.folder / "templates"
        cluster.start()
        cluster.wait_ready()
        first = Workload(cluster, "before")
        first.run(2, 30.0)
        for name in cluster.manager_names:
            eventually("a vote", lambda name=name: cluster.has_vote(name))
        violations = stored.find_violations(cluster, first.acknowledged)
        assert not violations, violations
        for name in cluster.manager_names:
            shutil.copytree(cluster.folder / name, templates / name)
        keeps = place not in FIRST_START
        number = 1
        while limit is None or number <= limit:
            for name in cluster.manager_names:
                (cluster.folder / f"{name}.log").unlink()
                shutil.rmtree(cluster.folder / name)
                if keeps:
                    shutil.copytree(templates / name, cluster.folder / name)
            point = Point(cluster, place, fault, number, first.acknowledged if keeps else {})
            if not point.run():
                if number == 1:
                    proof.violate(
                        f"{managers} managers, {fault} at {place.name}: it was never reached, so nothing was tried"
                    )
                break
            proof.add(managers, fault, place.name, number, point.story, len(point.acknowledged), point.lost)
            for each in point.violations:
                proof.violate(f"{managers} managers, {fault} at {place.name} {number}: {each}")
            number += every


class Point:
    """One case: m1 meets the fault at the n-th sync of a place, and is started again."""

    def __init__(
        self, cluster: ProcessCluster, place: Place, fault: str, number: int, acknowledged: dict[str, int]
    ) -> None:
        self._cluster = cluster
        self._place = place
        self._fault = fault
        self._log = cluster.folder / "m1.log"
        self._work = Workload(cluster, f"{place.name}-{fault}-{number}".replace(" ", "-").replace(":", ""))
        self._work.acknowledged.update(acknowledged)
        self._traced = Traced(cluster, "m1", place, fault, number)
        self.story = ""
        self.violations: list[str] = []

    @property
    def acknowledged(self) -> dict[str, int]:
        return self._work.acknowledged

    @property
    def lost(self) -> int:
        return sum("is lost" in each for each in self.violations)

    def run(self) -> bool:
        """Whether the fault was reached."""
        cluster = self._cluster
        others = [name for name in cluster.manager_names if name != "m1"]
        try:
            if self._place not in RUNNING:
                if others:
                    cluster.start(*others)
                self._traced.start()
            else:
                cluster.start()
                cluster.wait_ready()
                self._traced.attach()
            self._work.run(SUBMISSIONS, 10.0 if others else GIVE_UP_S, self._ended)
            eventually("m1 to be up or down", lambda: self._ended() or "manager_started" in self._log.read_text())
            if not self._traced.fired:
                return False
            self._tell()
        finally:
            self._traced.detach()
            if not self._ended():
                cluster.kill("m1")
        self._come_back()
        return True

    def _ended(self) -> bool:
        return self._cluster.processes["m1"].poll() is not None

    def _tell(self) -> None:
        """What became of the manager: it died, it stopped and said why, or it goes on without the snapshot."""
        if self._place.name.startswith("snapshot") and self._fault == "EIO":
            self.story = "goes on with the older snapshot"
            if self._ended():
                self.violations.append("it stopped for a snapshot")
            if "snapshot_failed" not in self._log.read_text():
                self.violations.append("it said nothing about its snapshot")
            return
        status = wait_ended(self._cluster, "m1")
        if self._fault == "kill":
            self.story = "killed"
            if status != -9:
                self.violations.append(f"it ended with {status}")
            return
        self.story = "stopped: storage_failed"
        fired_at = self._traced.fired_at
        assert fired_at is not None
        if len(self._cluster.manager_names) == 1 and self._work.last_acknowledged > fired_at + LATE_ACK_S:
            self.violations.append("it acknowledged something after a sync had failed")
        if status != 1 or "storage_failed" not in self._log.read_text():
            self.violations.append(f"it ended with {status} and doesn't say why")

    def _come_back(self) -> None:
        self._cluster.start("m1")
        self._cluster.wait_ready()
        self.story += "; started again"
        self._work.retry()
        self._work.run(2, 30.0)
        self.violations += stored.find_violations(self._cluster, self.acknowledged)
