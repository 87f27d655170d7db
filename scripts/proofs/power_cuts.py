"""The power of all managers is cut at once, again and again, while clients submit: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chaos.checkers import durability
from chaos.cluster import power
from chaos.cluster.loop_disk import LoopDisk, find_obstacle, shared_mounts
from chaos.safety.identity import born
from chaos.safety.traces import processes_of
from hasched.model.errors import HaschedError
from proofs import stored
from proofs.report import Proof
from proofs.syncs import wait_ended
from tests.support.cluster import ProcessCluster
from tests.support.prober import Prober

PROOF = "power-cuts"
SETTINGS = {"raft": {"segment_bytes": 2**20, "snapshot_bytes": 2**20}}
LYING = (
    "strace",
    "-D",
    "-f",
    "-e",
    "trace=fdatasync,fsync",
    "-e",
    "inject=fdatasync,fsync:retval=0",
    "-o",
    "/dev/null",
)
WRITER = """\
import os, sys
descriptor = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
os.fsync(os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY))
for number in range(1_000_000):
    os.write(descriptor, b"%08d\\n" % number)
    if sys.argv[2] == "synced":
        os.fdatasync(descriptor)
    print(number, flush=True)
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--times", type=int, default=50, help="power cuts; default 50")
    parser.add_argument("--managers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which it is cut")


def prove(options: argparse.Namespace) -> Proof:
    obstacle = find_obstacle()
    if obstacle is not None:
        sys.exit(obstacle)
    proof = Proof("Power cuts", ["what", "cuts", "acknowledged", "lost or doubled", "longest until accepted again (s)"])
    control_files(proof, min(10, options.times))
    control_managers(proof, options.managers)
    cut_managers(proof, options.managers, options.times, options.seed)
    lose_disks(proof, options.managers)
    return proof


def control_files(proof: Proof, times: int) -> None:
    """The method itself: a power cut takes what was not synced, and nothing that was."""
    for kind in ("synced", "not synced"):
        written = lost = 0
        with (
            tempfile.TemporaryDirectory(prefix="hasched-prove-") as folder,
            shared_mounts(Path(folder)),
            LoopDisk(Path(folder, "image"), Path(folder, "disk")) as disk,
        ):
            for number in range(times):
                told, kept = _write_and_cut(disk, disk.path / f"file-{number}", kind)
                written += told
                lost += max(0, told - kept)
        proof.add(f"control: a file, {kind}", times, written, lost, "-")
        if kind == "synced" and lost:
            proof.violate(f"the disk lost {lost} synced records: this machine can't keep anything")
        if kind == "not synced" and not lost:
            proof.violate("nothing was lost that was not synced: these are no power cuts")


def _write_and_cut(disk: LoopDisk, path: Path, kind: str) -> tuple[int, int]:
    """How many records the writer told of, and how many are there afterwards."""
    told = 0
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path), kind], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        while told < 200:
            told = int(writer.stdout.readline()) + 1
        power.cut([disk], lambda: filter(None, [born(writer.pid)]))
    data = path.read_bytes() if path.exists() else b""
    kept = next((n for n in range(len(data) // 9) if data[n * 9 : n * 9 + 9] != b"%08d\n" % n), len(data) // 9)
    return told, kept


@contextmanager
def cluster_on_disks(managers: int) -> Iterator[tuple[ProcessCluster, dict[str, LoopDisk]]]:
    """Every manager's data on a disk of its own. Whatever happens, no mount and no loop device stays."""
    with tempfile.TemporaryDirectory(prefix="hasched-prove-") as name, ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(shared_mounts(folder))
        cluster = ProcessCluster(folder, managers, 0, SETTINGS)
        disks = {
            each: stack.enter_context(LoopDisk(folder / f"{each}.image", folder / each))
            for each in cluster.manager_names
        }
        stack.enter_context(cluster)
        yield cluster, disks


def cut_power(cluster: ProcessCluster, disks: dict[str, LoopDisk]) -> None:
    """All at once; afterwards all managers are down, and their disks are as a start would find them."""
    power.cut(list(disks.values()), lambda: processes_of(str(cluster.folder)))
    for name in disks:
        cluster.kill(name)  # it is dead, and is collected


def control_managers(proof: Proof, managers: int) -> None:
    """Managers whose syncs do nothing lose what they acknowledged: so the cluster below owes its luck to its syncs."""
    with cluster_on_disks(managers) as (cluster, disks):
        cluster.start(under=LYING)
        cluster.wait_ready()
        with Prober(cluster) as prober:
            begun = time.monotonic()
            for _ in range(100):
                prober.next_accepted(begun)
                begun = time.monotonic()
            cut_power(cluster, disks)
        accepted = {each.submission_id: each.job_id for each in prober.accepted}
        kept: dict[str, int] = {}
        for name in cluster.manager_names:
            try:
                state = stored.state_at(cluster.folder / name, 2**62)
            except (HaschedError, OSError):
                continue  # it would refuse to start, or there is nothing
            kept |= {job.submission_id: job_id for job_id, job in state.jobs.items()}
        lost = len(durability.check(accepted, (), kept.items()))
        proof.add("control: managers whose syncs do nothing", 1, len(accepted), lost, "-")
        if not lost:
            proof.violate("managers that don't sync lost nothing: these are no power cuts")


def cut_managers(proof: Proof, managers: int, times: int, seed: int) -> None:
    moments = random.Random(seed)
    waits: list[float] = []
    with cluster_on_disks(managers) as (cluster, disks):
        cluster.start()
        cluster.wait_ready()
        with Prober(cluster) as prober:
            for _ in range(times):
                prober.next_accepted(time.monotonic())
                time.sleep(moments.uniform(0.05, 1.5))  # the moment of the fault; nothing is waited for
                cut_power(cluster, disks)
                begun = time.monotonic()
                cluster.start()
                waits.append(prober.next_accepted(begun).ended - begun)
        cluster.wait_ready()
        accepted = {each.submission_id: each.job_id for each in prober.accepted}
        wrong = stored.find_violations(cluster, accepted)
        proof.add(f"{managers} managers", times, len(accepted), len(wrong), f"{max(waits):.2f}")
        for each in wrong[:20]:
            proof.violate(each)
        cuts = [path for path in cluster.folder.glob("m?.log") if "journal_tail_cut" in path.read_text()]
        proof.facts["managers that cut a torn tail"] = len(cuts)
        proof.facts["median until accepted again (s)"] = f"{sorted(waits)[len(waits) // 2]:.2f}"


def lose_disks(proof: Proof, managers: int) -> None:
    """One disk dies under a manager that runs, the leader's and then a follower's: it stops, says why, and the others go on."""
    with cluster_on_disks(managers) as (cluster, disks):
        cluster.start()
        cluster.wait_ready()
        waits: dict[str, float] = {}
        with Prober(cluster) as prober:
            for role in ("leader", "follower"):
                leader = cluster.leader()
                name = leader if role == "leader" else next(each for each in disks if each != leader)
                disks[name].cut_power()
                begun = time.monotonic()
                waits[role] = prober.next_accepted(begun).ended - begun
                status = wait_ended(cluster, name)
                if status != 1 or "storage_failed" not in (cluster.folder / f"{name}.log").read_text():
                    proof.violate(f"the {role} ended with {status} when its disk died, and doesn't say why")
                disks[name].unmount()
                disks[name].mount()
                cluster.start(name)
                cluster.wait_ready()
        accepted = {each.submission_id: each.job_id for each in prober.accepted}
        wrong = stored.find_violations(cluster, accepted)
        for role, waited in waits.items():
            proof.add(f"the {role}'s disk dies", 1, len(accepted), len(wrong), f"{waited:.2f}")
        for each in wrong[:20]:
            proof.violate(f"after disks died: {each}")
