"""Bytes of a stopped manager's files rot, one of every kind of record: it recovers, or refuses and is filled by the others."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from chaos.cluster.damage import FRAME_HEADER_BYTES, PREFIX_BYTES, flip_bit, frames, header_end
from hasched.raft.segments import ENTRY, VOTE
from proofs import stored
from proofs.report import Proof
from proofs.syncs import wait_ended
from proofs.workload import Workload
from tests.support.cluster import ProcessCluster, eventually

RECORD_HEADER = struct.Struct("<BI")
CHUNK_HEADER = struct.Struct("<II")
VOTE_RECORD = "log: a vote"


class Spot(NamedTuple):
    """A byte that rots: what it is, in which file of the data directory, where."""

    what: str
    file: Path
    offset: int


def visit(proof: Proof, managers: int, settings: dict[str, Any], only: Sequence[str] = ()) -> None:
    """Every kind of record, one after another, or `only` these."""
    with (
        tempfile.TemporaryDirectory(prefix="hasched-prove-") as folder,
        ProcessCluster(Path(folder), managers, 0, settings) as cluster,
    ):
        work = Workload(cluster, "rot")
        cluster.start()
        cluster.wait_ready()
        for name in cluster.manager_names:
            eventually("a vote", lambda name=name: cluster.has_vote(name))
        work.run(16, 30.0)
        for violation in stored.find_violations(cluster, work.acknowledged):
            proof.violate(f"{managers} managers, before anything rots: {violation}")
        kinds = [spot.what for spot in find_spots(cluster.folder / "m1") if spot.what != VOTE_RECORD]
        for what in only or [*kinds, VOTE_RECORD]:
            _visit_spot(proof, cluster, work, _find_spot(cluster, what))


def _find_spot(cluster: ProcessCluster, what: str) -> Spot:
    """A disk that was just filled holds no vote: an election leaves one."""
    while True:
        for spot in find_spots(cluster.folder / "m1"):
            if spot.what == what:
                return spot
        assert what == VOTE_RECORD, what
        cluster.start()
        cluster.wait_ready()
        stored.stop_level(cluster)
        for name in cluster.manager_names:
            cluster.kill(name)
            cluster.thaw(name)


def find_spots(data_dir: Path) -> list[Spot]:
    """One byte of each kind of record, and of entries one of the first, one amid and one of the last."""
    spots = [Spot("identity: a value", Path("identity.json"), _find(data_dir / "identity.json", b"true") + 1)]
    spots.append(Spot("identity: a name", Path("identity.json"), _find(data_dir / "identity.json", b"voter")))
    segments = sorted((data_dir / "journal").glob("*.log"))
    for which, path in (("first", segments[0]), ("last", segments[-1])):
        spots.append(Spot(f"log: header of the {which} segment", path, PREFIX_BYTES + 3))
    spots.append(Spot("log: checksum of a segment's header", segments[-1], 13))
    found = [(path, *frame) for path in segments for frame in frames(path.read_bytes())]
    records = [
        (path, kind, offset) for path, start, end in found for kind, offset in _records(path.read_bytes(), start, end)
    ]
    for which, number in (("first", 0), ("a middle", len(found) // 2), ("last", -1)):
        path, start, _ = found[number]
        for field, offset in (("magic", 0), ("length", 4), ("sequence", 8), ("checksum", 16), ("its own checksum", 20)):
            spots.append(Spot(f"log: {which} frame's header, {field}", path, start + offset))
    entries = [(path, offset) for path, kind, offset in records if kind == ENTRY]
    for which, number in (("first", 0), ("a middle", len(entries) // 2), ("last", -1)):
        path, offset = entries[number]
        spots.append(Spot(f"log: {which} entry, its position", path, offset + RECORD_HEADER.size))
        spots.append(Spot(f"log: {which} entry, its data", path, offset + RECORD_HEADER.size + 16 + 2))
    votes = [(path, offset) for path, kind, offset in records if kind == VOTE]
    if votes:
        spots.append(Spot(VOTE_RECORD, votes[-1][0], votes[-1][1] + RECORD_HEADER.size + 8))
    for snapshot in sorted((data_dir / "snapshots").glob("*.snap"))[-1:]:
        data = snapshot.read_bytes()
        chunk = header_end(data)
        for what, offset in (
            ("magic", 0),
            ("header", PREFIX_BYTES + 2),
            ("a chunk's length", chunk),
            ("a chunk's checksum", chunk + 4),
            ("a chunk's data", chunk + CHUNK_HEADER.size + 100),
            ("end", len(data) - 8),
            ("checksum of the whole", len(data) - 1),
        ):
            spots.append(Spot(f"snapshot: {what}", snapshot, offset))
    return [Spot(spot.what, data_dir / spot.file, spot.offset) for spot in spots]


def _visit_spot(proof: Proof, cluster: ProcessCluster, work: Workload, spot: Spot) -> None:
    """All managers are down, here and afterwards."""
    managers = len(cluster.manager_names)
    data_dir, kept = cluster.folder / "m1", cluster.folder / "kept"
    shutil.copytree(data_dir, kept)
    flip_bit(spot.file, spot.offset, 4)
    log = cluster.folder / "m1.log"
    log.unlink(missing_ok=True)
    cluster.start()
    before = len(proof.violations)
    process = cluster.processes["m1"]
    eventually("m1's start or end", lambda: process.poll() is not None or "manager_started" in log.read_text())
    if process.poll() is None:
        story = "recovered"
        shutil.rmtree(kept)
    else:
        status, said = wait_ended(cluster, "m1"), log.read_text()
        told = "storage_failed" in said and "hint" in said and str(data_dir) in said
        story = "refused to start, and said why"
        if status != 1 or not told:
            proof.violate(f"{managers} managers, {spot.what}: it ended with {status}, and said: {said[-300:]}")
        shutil.rmtree(data_dir)
        if managers == 1:
            kept.rename(data_dir)
            story += "; all there with the byte put right"
        else:
            shutil.rmtree(kept)
            story += "; filled again by the others"
        cluster.start("m1")
    cluster.wait_ready()
    eventually("m1's vote", lambda: cluster.has_vote("m1"))
    work.run(1, 30.0)
    wrong = stored.find_violations(cluster, work.acknowledged)
    for each in wrong:
        proof.violate(f"{managers} managers, {spot.what}: {each}")
    lost = sum("is lost" in each for each in wrong)
    story = story if len(proof.violations) == before else "VIOLATION"
    proof.add(managers, "rot", spot.what, 1, story, len(work.acknowledged), lost)


def _find(path: Path, what: bytes) -> int:
    return path.read_bytes().index(what)


def _records(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Kind and place of each record of a frame."""
    offset = start + FRAME_HEADER_BYTES
    while offset < end:
        kind, length = RECORD_HEADER.unpack_from(data, offset)
        yield kind, offset
        offset += RECORD_HEADER.size + length
