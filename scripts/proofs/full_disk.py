"""A manager's disk is full: it stands back, promises nothing, and takes part again once there is room."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from proofs import stored
from proofs.report import Proof
from proofs.workload import Workload
from tests.support.cluster import ProcessCluster, eventually

DISK_BYTES = 32 * 2**20
SPARE_BYTES = 40_000  # of room that is left: a few entries


@contextmanager
def tmpfs(path: Path) -> Iterator[Path]:
    """Needs root."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def visit(proof: Proof, managers: int, settings: dict[str, Any]) -> None:
    """The leader's disk, and a follower's."""
    with tempfile.TemporaryDirectory(prefix="hasched-prove-") as folder, ExitStack() as stack:
        cluster = ProcessCluster(Path(folder), managers, 0, settings)
        for name in cluster.manager_names:
            stack.enter_context(tmpfs(cluster.folder / name))
        stack.enter_context(cluster)
        cluster.start()
        cluster.wait_ready()
        work, stories = Workload(cluster, "full"), {}
        for role in ("leader", "follower")[: min(2, managers)]:
            leader = cluster.leader()
            name = leader if role == "leader" else next(each for each in cluster.manager_names if each != leader)
            stories[role] = _visit_disk(proof, cluster, work, name, role)
        wrong = stored.find_violations(cluster, work.acknowledged)
        lost = sum("is lost" in each for each in wrong)
        for role, story in stories.items():
            proof.add(managers, "full", f"the {role}'s disk", 1, story, len(work.acknowledged), lost)
        for each in wrong:
            proof.violate(f"{managers} managers, after a full disk: {each}")


def _visit_disk(proof: Proof, cluster: ProcessCluster, work: Workload, name: str, role: str) -> str:
    """What happened."""
    managers = len(cluster.manager_names)
    log = cluster.folder / f"{name}.log"
    ballast = cluster.folder / name / "ballast"
    _fill(ballast)
    before = len(work.acknowledged)
    work.run(12, 3.0, lambda: "disk_full" in log.read_text() and managers == 1)
    eventually("a full disk to be noticed", lambda: "disk_full" in log.read_text())
    if cluster.processes[name].poll() is not None:
        proof.violate(f"{managers} managers: the {role} ended when its disk was full")
    went_on = len(work.acknowledged) - before
    if managers > 1:
        if cluster.leader() == name:
            proof.violate(f"{managers} managers: the {role} still leads with a full disk")
        work.run(5, 10.0)
    ballast.unlink()
    work.retry()
    work.run(3, 30.0)
    stored.settle(cluster)
    log.write_text("")
    return f"stood back after {went_on} submissions; takes part again"


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    size = ballast.stat().st_size
    with ballast.open("r+b") as file:
        file.truncate(size - SPARE_BYTES)
