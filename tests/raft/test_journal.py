"""The journal: what was flushed is there after any crash, and what can't be trusted is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hasched.model.errors import StorageFailed
from hasched.raft.disk import LocalDisk
from hasched.raft.journal import NO_COMMAND, DiskFull, Journal, LogEntry
from hasched.raft.segments import list_segments

SEGMENT_BYTES = 1 << 20


def open_journal(path: Path, segment_bytes: int = SEGMENT_BYTES) -> Journal:
    return Journal(path / "journal", segment_bytes)


def last_file(path: Path) -> Path:
    return list_segments(LocalDisk(), path / "journal")[-1]


def fill(journal: Journal, first: int, last: int, term: int = 1) -> None:
    """Entries that are flushed one by one, as in so many turns."""
    for index in range(first, last + 1):
        journal.add(b"entry %d" % index, index, term)
        journal.flush()


def contents(journal: Journal) -> list[tuple[int, int, bytes]]:
    return [(entry.index, entry.term, entry.data) for entry in journal[1:]]


def test_1_what_was_flushed_is_there_after_a_crash_and_what_was_not_is_not(tmp_path):
    journal = open_journal(tmp_path)
    fill(journal, 2, 5)
    journal.add(b"never flushed", 6, 1)
    journal.close()
    assert [index for index, _, _ in contents(open_journal(tmp_path))] == [2, 3, 4, 5]


def test_1_flush_syncs_before_it_returns(tmp_path):
    """Seen from outside: one fdatasync for each turn, after its write."""
    script = (
        "import sys, pathlib; from hasched.raft.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]), 1 << 20)\n"
        "for turn in range(3):\n"
        "    for n in range(10): journal.add(b'x', 2 + turn * 10 + n, 1)\n"
        "    journal.flush()\n"
    )
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=fdatasync", "-o", str(trace)]
    subprocess.run([*command, sys.executable, "-c", script, str(tmp_path / "journal")], check=True, timeout=60)
    assert trace.read_text().count("fdatasync(") == 1 + 3  # the first is the new segment's


def test_2_term_and_vote_are_under_the_same_sync(tmp_path):
    journal = open_journal(tmp_path)
    journal.setCurrentTerm(7, "m2")
    journal.flush()
    journal.setCurrentTerm(8, None)
    journal.close()
    reopened = open_journal(tmp_path)
    assert (reopened.getCurrentTerm(), reopened.getVotedForNodeId()) == (7, "m2")


def test_2_the_vote_outlives_the_segment_that_it_was_written_to(tmp_path):
    journal = open_journal(tmp_path, segment_bytes=200)
    journal.setCurrentTerm(3, "m3")
    fill(journal, 2, 40, term=3)
    journal.deleteEntriesTo(30)
    journal.flush()
    journal.close()
    reopened = open_journal(tmp_path)
    assert (reopened.getCurrentTerm(), reopened.getVotedForNodeId()) == (3, "m3")


def test_3_a_torn_tail_is_cut_wherever_it_was_torn(tmp_path):
    journal = open_journal(tmp_path)
    fill(journal, 2, 4)
    file = last_file(tmp_path)
    whole_before = file.stat().st_size
    fill(journal, 5, 5)
    journal.close()
    data = file.read_bytes()
    for size in range(whole_before, len(data)):
        file.write_bytes(data[:size])
        reopened = open_journal(tmp_path)
        assert [index for index, _, _ in contents(reopened)] == [2, 3, 4], f"torn at byte {size}"
        fill(reopened, 5, 5)
        reopened.close()
        again = open_journal(tmp_path)
        assert contents(again)[-1] == (5, 1, b"entry 5")
        again.close()


def test_3_a_tail_of_which_a_sector_was_never_written_is_cut(tmp_path):
    """The file had grown already, but a sector in the middle of the last write never reached the disk."""
    journal = open_journal(tmp_path)
    fill(journal, 2, 3)
    size = last_file(tmp_path).stat().st_size
    journal.add(os.urandom(5000), 4, 1)
    journal.flush()
    journal.close()
    data = bytearray(last_file(tmp_path).read_bytes())
    sector = (size // 512 + 3) * 512
    data[sector : sector + 512] = bytes(512)
    last_file(tmp_path).write_bytes(data)
    assert [index for index, _, _ in contents(open_journal(tmp_path))] == [2, 3]


def test_3_a_flipped_byte_anywhere_before_the_tail_refuses_to_start(tmp_path):
    journal = open_journal(tmp_path)
    journal.setCurrentTerm(1, "m1")
    journal.flush()
    fill(journal, 2, 3)
    guarded = last_file(tmp_path).stat().st_size
    fill(journal, 4, 4)
    journal.close()
    file = last_file(tmp_path)
    data = file.read_bytes()
    for offset in range(guarded):
        file.write_bytes(data[:offset] + bytes([data[offset] ^ 0x40]) + data[offset + 1 :])
        with pytest.raises(StorageFailed) as refused:
            open_journal(tmp_path)
        assert "damaged" in refused.value.cause or "format" in refused.value.cause
        assert refused.value.hint


def test_3_a_flipped_byte_in_a_whole_last_record_refuses_to_start(tmp_path):
    """It was written whole, so it may have been acknowledged: to cut it would lose it in silence."""
    journal = open_journal(tmp_path)
    fill(journal, 2, 3)
    start = last_file(tmp_path).stat().st_size
    fill(journal, 4, 4)
    journal.close()
    file = last_file(tmp_path)
    data = file.read_bytes()
    for offset in range(start, len(data)):
        file.write_bytes(data[:offset] + bytes([data[offset] ^ 0x01]) + data[offset + 1 :])
        with pytest.raises(StorageFailed):
            open_journal(tmp_path)


def test_3_a_flipped_bit_in_the_header_of_a_fresh_segment_refuses_to_start(tmp_path):
    """With nothing behind it, a length that has grown would take in the same bytes, under the same checksum."""
    open_journal(tmp_path).close()
    path = last_file(tmp_path)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(StorageFailed):
            open_journal(tmp_path)


def test_3_a_missing_segment_refuses_to_start(tmp_path):
    journal = open_journal(tmp_path, segment_bytes=200)
    fill(journal, 2, 30)
    journal.close()
    list_segments(LocalDisk(), tmp_path / "journal")[1].unlink()
    with pytest.raises(StorageFailed, match="missing"):
        open_journal(tmp_path)


def test_4_compaction_unlinks_whole_segments_and_keeps_the_rest(tmp_path):
    journal = open_journal(tmp_path, segment_bytes=300)
    fill(journal, 2, 60)
    before = len(list_segments(LocalDisk(), tmp_path / "journal"))
    journal.deleteEntriesTo(40 - 1)
    journal.flush()
    assert journal[0] == LogEntry(NO_COMMAND, 40, 1)
    assert 1 < len(list_segments(LocalDisk(), tmp_path / "journal")) < before
    journal.close()
    reopened = open_journal(tmp_path, segment_bytes=300)
    assert reopened[0].index <= 40
    assert contents(reopened)[-20:] == [(index, 1, b"entry %d" % index) for index in range(41, 61)]


def test_4_a_crash_after_any_unlink_of_a_compaction_is_harmless(tmp_path):
    journal = open_journal(tmp_path, segment_bytes=300)
    fill(journal, 2, 60)
    journal.close()
    files = list_segments(LocalDisk(), tmp_path / "journal")
    for file in files[:-1]:
        file.unlink()
        reopened = open_journal(tmp_path, segment_bytes=300)
        assert reopened[-1].index == 60
        reopened.close()


def test_7_a_conflict_is_cut_for_good(tmp_path):
    journal = open_journal(tmp_path)
    fill(journal, 2, 9)
    journal.deleteEntriesFrom(5 - 1)
    journal.add(b"other 5", 5, 2)
    journal.flush()
    journal.close()
    assert contents(open_journal(tmp_path))[-2:] == [(4, 1, b"entry 4"), (5, 2, b"other 5")]


def test_7_a_cut_reaches_back_across_segments(tmp_path):
    journal = open_journal(tmp_path, segment_bytes=200)
    fill(journal, 2, 30)
    journal.deleteEntriesFrom(8 - 1)
    journal.flush()
    fill(journal, 8, 12, term=2)
    journal.deleteEntriesTo(10 - 1)
    journal.flush()
    journal.close()
    reopened = open_journal(tmp_path, segment_bytes=200)
    assert contents(reopened)[-2:] == [(11, 2, b"entry 11"), (12, 2, b"entry 12")]


def test_a_reset_outlives_a_restart(tmp_path):
    journal = open_journal(tmp_path)
    fill(journal, 2, 9)
    journal.reset(500, 4)
    journal.flush()
    fill(journal, 501, 502, term=4)
    journal.close()
    reopened = open_journal(tmp_path)
    assert reopened[0] == LogEntry(NO_COMMAND, 500, 4)
    assert [index for index, _, _ in contents(reopened)] == [501, 502]
    assert len(list_segments(LocalDisk(), tmp_path / "journal")) == 1


@pytest.fixture
def tiny_disk(tmp_path):
    """256 KiB of tmpfs."""
    disk = tmp_path / "tiny"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"can't mount a tmpfs here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_refuses_and_goes_on_once_there_is_room(tiny_disk):
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(150_000))
    journal = open_journal(tiny_disk)
    fill(journal, 2, 3)
    journal.add(os.urandom(120_000), 4, 1)
    for _ in range(3):
        with pytest.raises(DiskFull):
            journal.flush()
    crashed = Journal(tiny_disk / "journal", SEGMENT_BYTES)
    assert [index for index, _, _ in contents(crashed)] == [2, 3]
    crashed.close()
    ballast.unlink()
    journal.flush()
    fill(journal, 5, 5)
    journal.close()
    assert [index for index, _, _ in contents(open_journal(tiny_disk))] == [2, 3, 4, 5]


def test_a_failed_sync_is_fatal_and_never_tried_again(tmp_path):
    """The second turn's fdatasync, the third in all, is made to fail as a dying disk would; another is never asked for."""
    script = (
        "import sys, pathlib; from hasched.raft.journal import Journal; from hasched.model.errors import StorageFailed\n"
        "journal = Journal(pathlib.Path(sys.argv[1]), 1 << 20)\n"
        "for turn in range(3):\n"
        "    journal.add(b'x', 2 + turn, 1)\n"
        "    try: journal.flush()\n"
        "    except StorageFailed as error: print('StorageFailed', error.hint)\n"
        "    except AssertionError: print('refused')\n"
    )
    inject = "inject=fdatasync:error=EIO:when=3"
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=fdatasync", "-e", inject, "-o", str(trace), sys.executable, "-c", script]
    run = subprocess.run([*command, str(tmp_path / "journal")], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split()[0] == "StorageFailed"
    assert run.stdout.split()[-1] == "refused"
    assert trace.read_text().count("fdatasync(") == 3
