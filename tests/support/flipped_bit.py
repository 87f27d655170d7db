"""A bit flips in the state of one manager of a real cluster, and what becomes of it.

Nothing in the product can do that, so it is done to the snapshot of a manager that is stopped: one bit of one job's name,
with every checksum computed anew, as if it had been wrong in memory when the snapshot was taken.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import msgspec

from hasched.raft.disk import LocalDisk
from hasched.raft.engine import COMMANDS
from hasched.raft.journal import Journal
from hasched.raft.snapshots import SnapshotStore
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import decode_batch
from hasched.statemachine.digest import digest
from hasched.statemachine.snapshot import capture, restore
from hasched.statemachine.state import State
from tests.support.cluster import ProcessCluster, eventually

EVERY = 100  # entries between two snapshots, and between two checks: the least that the configuration takes
CLUSTER = "test"
NEVER_RUNS = {"command": ["/bin/true"], "resources": {"countables": {"never": 1}}}
FOUND = r"(?:states_differ index=|the state of m[0-9]+ at entry )(\d+)"  # by a verdict on all, or by the manager itself
SETTINGS = {"raft": {"snapshot_every": EVERY, "check_every": EVERY}}


class Outcome(msgspec.Struct, frozen=True):
    """What happened to the manager whose bit was flipped. Times in seconds."""

    manager: str
    what: str  # was changed
    index: int  # of the check that found it
    exit_status: int
    found_after_s: float  # from its start with the wrong state to its end
    rebuilt_after_s: float  # from its next start until a check says that all agree
    accepted: int
    equal_at: int  # the index at which all managers' states, computed from their disks, have one digest


def flip_a_bit(data_dir: Path) -> str:
    """Of the state of a manager that is stopped. Returns what was changed."""
    store = open_store(data_dir)
    latest = store.latest
    assert latest is not None, "it has taken no snapshot yet"
    state = restore(store.chunks(latest.path))
    job = state.jobs[next(iter(state.jobs))]
    before = job.submission_id
    job.submission_id = chr(ord(before[0]) ^ 1) + before[1:]
    writer = store.write(latest.index, latest.term)
    captured = capture(state)
    while (chunk := captured.next_chunk()) is not None:
        writer.add(chunk)
    writer.finish()
    LocalDisk().rename(writer.path, latest.path)
    return f"the submission id of job {job.id}, {before} to {job.submission_id}"


def open_store(data_dir: Path) -> SnapshotStore:
    return SnapshotStore(data_dir / "snapshots", CLUSTER)


def state_on_disk(data_dir: Path, index: int) -> State:
    """What a manager that is stopped had applied up to the entry at `index`."""
    store = open_store(data_dir)
    state = restore(store.chunks(store.latest.path)) if store.latest is not None else State()
    journal = Journal(data_dir / "journal", 2**20)
    for entry in journal[1:]:
        if state.index < entry.index <= index and entry.data[0] == COMMANDS:
            apply(state, entry.index, decode_batch(entry.data[1:]))
    journal.close()
    return state


def last_index(data_dir: Path) -> int:
    journal = Journal(data_dir / "journal", 2**20)
    journal.close()
    return journal[-1].index


def tell(folder: Path) -> Outcome:
    """The whole story, on three managers under `folder`. Fails where it goes otherwise."""
    with ProcessCluster(folder, agents=0, settings=SETTINGS) as cluster:
        cluster.start()
        cluster.wait_ready()
        with cluster.client() as client:
            accepted: dict[str, int] = {}

            def submit(count: int) -> bool:
                for _ in range(count):
                    submitted = client.submit(NEVER_RUNS)
                    accepted[submitted.submission_id] = submitted.id
                return True

            submit(2 * EVERY)
            leader = cluster.leader()
            victim = next(name for name in cluster.manager_names if name != leader)
            eventually("a snapshot", lambda: submit(1) and list((folder / victim / "snapshots").glob("*.snap")))
            assert cluster.terminate(victim) == 0
            what = flip_a_bit(folder / victim)

            begun = time.monotonic()
            cluster.start(victim)
            eventually("its end", lambda: submit(1) and cluster.processes[victim].poll() is not None)
            found_after_s = time.monotonic() - begun
            exit_status = cluster.processes[victim].wait()
            logs = "".join(log_of(cluster, name) for name in cluster.manager_names)  # whoever led by then
            index = max(int(number) for number in re.findall(FOUND, logs))

            begun = time.monotonic()
            cluster.start(victim)
            eventually("a check by which all agree", lambda: submit(1) and all_agree(cluster, index))
            rebuilt_after_s = time.monotonic() - begun
            listed = {job.submission_id: job.id for job in client.jobs()}
            assert listed == accepted, "what was accepted is not what is there"
        for name in cluster.manager_names:
            assert cluster.terminate(name) == 0
        folders = [folder / name for name in cluster.manager_names]
        equal_at = min(map(last_index, folders))
        states = [state_on_disk(each, equal_at) for each in folders]
        assert len({digest(state) for state in states}) == 1, "the managers' disks hold different states"
        assert all(accepted[job.submission_id] == job.id for job in states[0].jobs.values())
        assert list((folder / victim).glob("diverged-*")) == [folder / victim / f"diverged-{index}"]
    return Outcome(victim, what, index, exit_status, found_after_s, rebuilt_after_s, len(accepted), equal_at)


def log_of(cluster: ProcessCluster, name: str) -> str:
    return (cluster.folder / f"{name}.log").read_text()


def all_agree(cluster: ProcessCluster, after: int) -> bool:
    """Whether every manager has applied a verdict on a later check in which nobody differs and nobody is silent."""
    for name in cluster.manager_names:
        checked = re.findall(r"states_checked index=(\d+) differing=\[\] silent=\[\]", log_of(cluster, name))
        if not any(int(index) > after for index in checked):
            return False
    return True
