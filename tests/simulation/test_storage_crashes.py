"""The real journal, snapshot store and data directory on a disk that fails at any operation: what they promised is there.

A promise is what `flush`, `publish` or `become_voter` returned from, and what was read at a start: a manager acts on it, and
so it may not vanish with the next power cut.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hasched.model.errors import StorageFailed
from hasched.raft.identity import DataDirectory
from hasched.raft.journal import DiskFull, Journal
from hasched.raft.snapshots import SnapshotStore
from tests.simulation.disk import Crash, Killed, PowerCut, SimulatedDisk

HOME = Path("/data")
SEGMENT_BYTES = 700


class View:
    """What a journal held at one moment."""

    def __init__(self, journal: Journal) -> None:
        self.vote = (journal.getCurrentTerm(), journal.getVotedForNodeId())
        self.base = journal[0].index
        self.entries = {entry.index: entry for entry in journal[1:]}
        self.last = (journal[-1].index, journal[-1].term)

    def could_be(self, promised: View) -> bool:
        """Compaction may lag behind."""
        common = [index for index in self.entries if index in promised.entries]
        return (
            self.vote == promised.vote
            and self.last == promised.last
            and self.base <= promised.base
            and all(self.entries[index] == promised.entries[index] for index in common)
            and len(common) == len(promised.entries)
        )


class JournalLives:
    """One journal through many lives. `may_be`: what it may hold after a crash now; the first is what was promised."""

    def __init__(self, seed: int) -> None:
        self.disk = SimulatedDisk(Random(seed))
        self.number = 0
        self.journal = self.open()
        self.may_be = [View(self.journal)]

    def open(self) -> Journal:
        return Journal(HOME / "journal", SEGMENT_BYTES, disk=self.disk, random=Random(self.disk.life))

    def do(self, step: tuple[str, int]) -> None:
        kind, amount = step
        journal = self.journal
        if kind == "flush":
            self.flush()
            return
        term = max(1, journal.getCurrentTerm(), journal[-1].term)
        if kind == "add":
            for _ in range(amount % 4 + 1):
                self.number += 1
                size = amount * 37 % 900
                journal.add(b"%d " % self.number + bytes([amount % 256]) * size, journal[-1].index + 1, term)
        elif kind == "vote":
            journal.setCurrentTerm(journal.getCurrentTerm() + amount % 2, (None, "m1", "m2")[amount % 3])
        elif kind == "cut":
            journal.deleteEntriesFrom(max(1, len(journal) - amount % 5))
        elif kind == "compact":
            journal.deleteEntriesTo(amount % len(journal))
        elif kind == "reset":
            journal.reset(journal[-1].index + amount, term)
        self.may_be.append(View(journal))

    def flush(self) -> None:
        try:
            self.journal.flush()
        except DiskFull:
            self.disk.capacity = None
            self.journal.flush()
        self.may_be = [View(self.journal)]

    def reopen(self) -> None:
        self.disk.start()
        self.disk.capacity = None
        self.journal = self.open()
        found = View(self.journal)
        assert any(found.could_be(each) for each in self.may_be), (found.vote, found.last, self.may_be[0].last)
        assert found.vote[0] >= self.may_be[0].vote[0], "terms never go back"
        self.may_be = [found]


STEPS = st.tuples(
    st.sampled_from(["add", "add", "add", "flush", "flush", "vote", "cut", "compact", "reset"]),
    st.integers(1, 40),
)
LIVES = st.tuples(
    st.lists(STEPS, max_size=25),
    st.sampled_from(["power cut", "kill", "sync fails", "full", "nothing"]),
    st.integers(1, 40),
)


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 10**6), lives=st.lists(LIVES, min_size=1, max_size=6))
@example(  # a compaction that was killed left a segment which begins after the one that cut it
    seed=0,
    lives=[
        ([("add", 1), ("cut", 1), ("cut", 1), ("flush", 1)], "nothing", 1),
        ([("add", 1), ("compact", 1), ("flush", 1)], "kill", 3),
    ],
)
def test_a_journal_holds_what_it_promised_whatever_befalls_its_disk(seed, lives):
    story = JournalLives(seed)
    for steps, fault, number in lives:
        if fault in ("power cut", "kill"):
            story.disk.crash_at(number, PowerCut if fault == "power cut" else Killed)
        elif fault == "sync fails":
            story.disk.fail_sync(number)
        elif fault == "full":
            story.disk.capacity = story.disk.used + number * 50
        try:
            for step in steps:
                story.do(step)
        except Crash:
            pass
        except StorageFailed:
            assert fault == "sync fails", "only a disk that fails ends the manager"
            story.disk.kill()
        else:
            story.disk.kill() if number % 2 else story.disk.cut_power()
        story.disk.fail_sync(10**9)
        story.reopen()


@pytest.mark.parametrize("fault", ["the sync fails", "killed before the sync"])
def test_a_frame_that_was_read_at_a_start_is_durable_though_its_sync_failed_or_never_was(fault):
    seen = 0
    for seed in range(50):
        story = JournalLives(seed)
        story.do(("add", 1))
        if fault == "the sync fails":
            story.disk.fail_sync()
        else:
            story.disk.crash_at(2, Killed)
        with pytest.raises((StorageFailed, Killed)):
            story.flush()
        story.disk.kill()
        story.reopen()
        seen += story.journal[-1].index > 1
        story.disk.cut_power()
        story.reopen()
    assert seen > 0


def test_a_segment_whose_name_was_not_durable_when_its_maker_was_killed_is_durable_when_it_is_written_to():
    for seed in range(50):
        story = JournalLives(seed)
        for step in (("add", 3), ("flush", 1), ("cut", 2)):
            story.do(step)
        story.disk.crash_at(5, Killed)  # create, append, sync, rename, and then the directory's sync
        with pytest.raises(Killed):
            story.flush()
        story.reopen()
        for step in (("add", 1), ("flush", 1)):
            story.do(step)
        story.disk.cut_power()
        story.reopen()


def snapshot_bytes(index: int) -> list[bytes]:
    return [b"state at %d" % index, bytes([index]) * 1500, b"end"]


class Manager:
    """The storage of a manager, and its promises."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self.voter = False
        self.snapshot = 1
        self.last = 1

    def start(self) -> None:
        """What the engine does, and refuses, with what it finds. Everything found is a promise from here on."""
        self.directory = DataDirectory(HOME, "c", "m1", alone=False, disk=self.disk)
        assert self.directory.identity.voter >= self.voter, "a vote was forgotten"
        self.voter = self.directory.identity.voter
        self.store = SnapshotStore(HOME / "snapshots", "c", disk=self.disk)
        self.journal = Journal(HOME / "journal", SEGMENT_BYTES, disk=self.disk, random=Random(self.disk.life))
        latest = self.store.latest
        index = latest.index if latest is not None else 1
        assert index >= self.snapshot, "a published snapshot is gone"
        assert self.journal[0].index <= index, "the journal begins after the snapshot"
        assert self.journal[-1].index >= self.last, "flushed entries are gone"
        if latest is not None:
            assert list(self.store.chunks(latest.path)) == snapshot_bytes(index)
        self.snapshot, self.last = index, self.journal[-1].index

    def work(self) -> None:
        """Some of everything that a manager writes."""
        if not self.voter:
            self.directory.become_voter()
            self.voter = True
        for _ in range(3):
            self.flush(6)
            self.take_snapshot()
            self.journal.deleteEntriesTo(max(0, len(self.journal) - 3))
            self.flush(1)

    def flush(self, count: int) -> None:
        for _ in range(count):
            self.journal.add(b"x" * 150, self.journal[-1].index + 1, 1)
        self.journal.flush()
        self.last = self.journal[-1].index

    def take_snapshot(self) -> None:
        writer = self.store.write(self.last, 1)
        for chunk in snapshot_bytes(self.last):
            writer.add(chunk)
        writer.finish()
        published = self.store.publish(writer.path)
        assert published is not None
        self.snapshot = published.index
        older = self.store.adopt(published)
        if older is not None:
            self.store.remove(older)


@pytest.mark.parametrize("crash", [PowerCut, Killed, OSError])
def test_a_manager_starts_again_after_a_crash_at_any_operation(crash):
    """Or after any sync that failed; and after a power cut at any operation of that start, and another one after it."""
    for seed in range(6):
        total = _work_until_crash(Manager(SimulatedDisk(Random(seed))), 10**6, crash)
        for number in range(1, total + 1):
            manager = Manager(SimulatedDisk(Random(seed * 1000 + number)))
            _work_until_crash(manager, number, crash)
            manager.disk.kill()
            manager.disk.start()
            manager.disk.crash_at(number % 7 + 1)
            try:
                manager.start()
            except PowerCut:
                pass
            else:
                manager.disk.cut_power()
            manager.disk.start()
            manager.start()
            manager.flush(1)
            manager.disk.cut_power()
            manager.disk.start()
            manager.start()
            manager.work()


def _work_until_crash(manager: Manager, number: int, crash: type[BaseException]) -> int:
    """How many operations there were."""
    if issubclass(crash, Crash):
        manager.disk.crash_at(number, crash)
    else:
        manager.disk.fail_sync(number)
    try:
        manager.start()
        manager.work()
    except (Crash, OSError, StorageFailed):
        assert number < 10**6
    manager.disk.fail_sync(10**9)
    return manager.disk.operations


def test_a_state_that_went_wrong_is_set_aside_whole_though_power_fails_at_any_operation():
    """What is kept of it is evidence; that nothing of it is used again is the promise."""
    number = 0
    ended = False
    while not ended:
        number += 1
        for seed in range(4):
            manager = Manager(SimulatedDisk(Random(seed)))
            manager.start()
            manager.work()
            before = manager.disk.operations
            manager.disk.crash_at(number)
            try:
                manager.directory.fence(7)
                manager.disk.kill()
                manager.disk.start()
                manager.disk.crash_at(number - (manager.disk.operations - before))
                DataDirectory(HOME, "c", "m1", alone=False, disk=manager.disk)
                ended = True
                manager.disk.cut_power()
            except PowerCut:
                pass
            manager.disk.start()
            found = DataDirectory(HOME, "c", "m1", alone=False, disk=manager.disk).identity
            manager.disk.cut_power()
            manager.disk.start()
            if found.voter:
                manager.start()  # the fence was never there: all is as it was
                continue
            assert (found.fenced, found.rebuilding) == (0, True)
            again = Manager(manager.disk)
            again.start()
            assert (again.voter, again.snapshot, again.last) == (False, 1, 1)
