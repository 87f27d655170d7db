"""What managers have on their disks, read as a start would read it: from the snapshot, and the log after it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.checkers import durability
from hasched.raft.engine import COMMANDS
from hasched.raft.journal import Journal
from hasched.raft.snapshots import SnapshotStore
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import decode_batch
from hasched.statemachine.digest import digest
from hasched.statemachine.snapshot import restore
from hasched.statemachine.state import State
from tests.support.cluster import ProcessCluster, eventually

CLUSTER_ID = "test"


@contextmanager
def opened(data_dir: Path) -> Iterator[tuple[SnapshotStore, Journal]]:
    """A copy of what lies in `data_dir`, whose manager may be down or stand still."""
    with tempfile.TemporaryDirectory(prefix="hasched-stored-") as folder:
        copy = Path(folder, "copy")
        shutil.copytree(data_dir, copy, ignore=shutil.ignore_patterns("lost+found", "ballast"))
        journal = Journal(copy / "journal", 2**30)
        try:
            yield SnapshotStore(copy / "snapshots", CLUSTER_ID), journal
        finally:
            journal.close()


def state_at(data_dir: Path, upto: int) -> State:
    with opened(data_dir) as (store, journal):
        state = restore(store.chunks(store.latest.path)) if store.latest is not None else State()
        index = store.latest.index if store.latest is not None else 1
        assert index <= upto, "there is no state before a snapshot"
        for entry in journal[1:]:
            if index < entry.index <= upto and entry.data[0] == COMMANDS:
                apply(state, entry.index, decode_batch(entry.data[1:]))
        return state


def reach(data_dir: Path) -> tuple[int, int]:
    """The index of the snapshot, and of the last entry."""
    with opened(data_dir) as (store, journal):
        return store.latest.index if store.latest is not None else 1, journal[-1].index


def stop_level(cluster: ProcessCluster) -> int:
    """Freeze all managers, at a moment when there is an index that each can be read at: no snapshot is beyond another's log."""
    while True:
        settle(cluster)
        for name in cluster.manager_names:
            cluster.freeze(name)
        reaches = [reach(cluster.folder / name) for name in cluster.manager_names]
        upto = min(last for _, last in reaches)
        if max(snapshot for snapshot, _ in reaches) <= upto:
            return upto
        for name in cluster.manager_names:
            cluster.thaw(name)


def settle(cluster: ProcessCluster) -> None:
    """Wait until every manager has applied what every other has."""
    with cluster.client() as client:

        def level() -> bool:
            managers = client.managers().managers
            return all(each.reachable for each in managers) and len({each.applied_index for each in managers}) == 1

        eventually("managers that are level", level)


def find_violations(cluster: ProcessCluster, acknowledged: dict[str, int]) -> list[str]:
    """Stops all managers where they are, and holds every one's disk against what was acknowledged. They are down after it."""
    upto = stop_level(cluster)
    wrong, digests = [], {}
    for name in cluster.manager_names:
        state = state_at(cluster.folder / name, upto)
        present = [(job.submission_id, job_id) for job_id, job in state.jobs.items()]
        wrong += [f"on {name}: {each}" for each in durability.check(acknowledged, (), present)]
        digests[name] = digest(state)
    if len(set(digests.values())) > 1:
        wrong.append(f"the managers' states differ at entry {upto}: {digests}")
    for name in cluster.manager_names:
        cluster.kill(name)
        cluster.thaw(name)
    return wrong
