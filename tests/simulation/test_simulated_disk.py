"""The simulated disk loses what a disk may lose, and nothing that was synced."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.simulation.disk import Crash, Killed, PowerCut, SimulatedDisk

HOME = Path("/data")
SEEDS = range(200)


def prepared(seed: int) -> SimulatedDisk:
    """A directory with a synced file of 2,000 bytes."""
    disk = SimulatedDisk(Random(seed))
    disk.make_directory(HOME)
    file = disk.create(HOME / "file")
    file.append(b"a" * 2000)
    file.sync()
    file.close()
    disk.sync_directory(HOME)
    return disk


def after_power_cut(disk: SimulatedDisk) -> SimulatedDisk:
    disk.cut_power()
    disk.start()
    return disk


def test_what_was_synced_outlives_a_power_cut_and_what_was_not_may_be_whole_missing_torn_or_with_holes():
    outcomes: dict[str, int] = {}
    for seed in SEEDS:
        disk = prepared(seed)
        disk.open(HOME / "file", write=True).append(b"b" * 3000)
        data = after_power_cut(disk).read(HOME / "file")
        assert data[:2000] == b"a" * 2000
        tail = data[2000:]
        kind = "missing" if not tail else "whole" if tail == b"b" * 3000 else "holes" if b"\0" in tail else "torn"
        outcomes[kind] = outcomes.get(kind, 0) + 1
    assert sorted(outcomes) == ["holes", "missing", "torn", "whole"]


def test_a_hole_is_a_whole_sector():
    for seed in SEEDS:
        disk = prepared(seed)
        disk.open(HOME / "file", write=True).append(b"b" * 3000)
        data = after_power_cut(disk).read(HOME / "file")
        for start in range(2048, len(data), 512):
            assert len(set(data[start : start + 512])) == 1


def test_a_killed_process_leaves_what_it_wrote_and_a_later_power_cut_may_take_it():
    kept = 0
    for seed in SEEDS:
        disk = prepared(seed)
        disk.open(HOME / "file", write=True).append(b"b")
        disk.kill()
        disk.start()
        assert disk.size(HOME / "file") == 2001
        kept += after_power_cut(disk).size(HOME / "file") == 2001
    assert 0 < kept < len(SEEDS)


@pytest.mark.parametrize("synced", [True, False])
def test_names_are_durable_once_their_directory_was_synced(synced):
    found: dict[str, None] = {}
    for seed in SEEDS:
        disk = prepared(seed)
        disk.rename(HOME / "file", HOME / "renamed")
        disk.create(HOME / "new").close()
        if synced:
            disk.sync_directory(HOME)
        found[" ".join(after_power_cut(disk).names(HOME))] = None
    assert sorted(found) == (["new renamed"] if synced else ["file", "file new", "new renamed", "renamed"])


def test_a_sync_that_failed_has_lost_the_data_and_the_next_one_lies():
    lost = 0
    for seed in SEEDS:
        disk = prepared(seed)
        file = disk.open(HOME / "file", write=True)
        file.append(b"b")
        disk.fail_sync()
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
        file.sync()
        assert disk.size(HOME / "file") == 2001
        lost += after_power_cut(disk).size(HOME / "file") == 2000
    assert lost > 0


def test_a_full_disk_takes_what_fits():
    disk = prepared(1)
    disk.capacity = 2100
    file = disk.open(HOME / "file", write=True)
    with pytest.raises(OSError, match="No space"):
        file.append(b"b" * 101)
    assert file.size == 2100
    file.truncate(2000)
    file.append(b"b" * 100)


def test_a_read_only_disk_can_be_read():
    disk = prepared(1)
    disk.read_only = True
    assert disk.open(HOME / "file").read_at(1999, 10) == b"a"
    for change in (lambda: disk.create(HOME / "new"), lambda: disk.open(HOME / "file", write=True)):
        with pytest.raises(OSError, match="Read-only"):
            change()


@pytest.mark.parametrize("crash", [PowerCut, Killed])
def test_every_operation_can_be_the_last_and_none_follows_before_the_next_start(crash):
    def work(disk: SimulatedDisk) -> None:
        file = disk.create(HOME / "other")
        file.append(b"x")
        file.sync()
        disk.rename(HOME / "other", HOME / "file")
        disk.sync_directory(HOME)

    for number in range(1, 6):
        disk = prepared(number)
        disk.crash_at(number, crash)
        with pytest.raises(crash):
            work(disk)
        with pytest.raises(Crash):
            disk.names(HOME)
        disk.start()
        assert disk.read(HOME / "file") in (b"a" * 2000, b"x")
    disk = prepared(6)
    disk.crash_at(6, crash)
    work(disk)


def test_a_lock_is_free_once_its_holder_is_gone():
    disk = prepared(1)
    held = disk.lock(HOME / "lock")
    with pytest.raises(BlockingIOError):
        disk.lock(HOME / "lock")
    disk.kill()
    disk.start()
    again = disk.lock(HOME / "lock")
    held.close()
    with pytest.raises(BlockingIOError):
        disk.lock(HOME / "lock")
    again.close()
    disk.lock(HOME / "lock")


def test_bits_rot_in_what_is_durable():
    disk = prepared(1)
    where = disk.flip_any(HOME)
    assert where is not None
    path, offset = where
    assert disk.read(path)[offset] != ord("a")
    assert after_power_cut(disk).read(path)[offset] != ord("a")
