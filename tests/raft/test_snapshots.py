"""The snapshot store: whole or not at all, and never an older one over a newer."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasched.model.errors import StorageFailed
from hasched.raft.snapshots import Snapshot, SnapshotStore

CHUNKS = [b"first chunk", b"x" * 3000, b"last"]


def open_store(path: Path, cluster_id: str = "c1") -> SnapshotStore:
    return SnapshotStore(path / "snapshots", cluster_id)


def take(store: SnapshotStore, index: int, term: int = 1, chunks: list[bytes] = CHUNKS) -> Snapshot | None:
    writer = store.write(index, term)
    for chunk in chunks:
        writer.add(chunk)
    writer.finish()
    published = store.publish(writer.path)
    if published is not None:
        older = store.adopt(published)
        if older is not None:
            store.remove(older)
    return published


def test_a_snapshot_is_there_after_a_restart(tmp_path):
    take(open_store(tmp_path), 70, 3)
    store = open_store(tmp_path)
    assert store.latest is not None
    assert (store.latest.index, store.latest.term) == (70, 3)
    assert list(store.chunks(store.latest.path)) == CHUNKS


def test_a_snapshot_that_was_not_finished_leaves_no_trace(tmp_path):
    store = open_store(tmp_path)
    take(store, 70)
    store.write(90, 1).add(b"half")
    reopened = open_store(tmp_path)
    assert reopened.latest is not None
    assert reopened.latest.index == 70
    assert len(list((tmp_path / "snapshots").iterdir())) == 1


def test_10_an_older_snapshot_never_replaces_a_newer(tmp_path):
    store = open_store(tmp_path)
    take(store, 70)
    assert take(store, 60) is None
    assert take(store, 70) is None
    assert store.latest is not None
    assert store.latest.index == 70
    assert take(store, 71) is not None


def test_6_a_flipped_byte_anywhere_is_refused(tmp_path):
    snapshot = take(open_store(tmp_path), 70)
    assert snapshot is not None
    data = snapshot.path.read_bytes()
    for offset in range(len(data)):
        snapshot.path.write_bytes(data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :])
        with pytest.raises(StorageFailed) as refused:
            store = open_store(tmp_path)
            assert store.latest is not None
            list(store.chunks(store.latest.path))
        assert refused.value.hint


def test_6_a_snapshot_that_is_cut_anywhere_is_refused(tmp_path):
    snapshot = take(open_store(tmp_path), 70)
    assert snapshot is not None
    data = snapshot.path.read_bytes()
    for size in range(len(data)):
        snapshot.path.write_bytes(data[:size])
        with pytest.raises(StorageFailed):
            list(open_store(tmp_path).chunks(snapshot.path))


def test_a_snapshot_of_another_cluster_is_refused(tmp_path):
    take(open_store(tmp_path), 70)
    with pytest.raises(StorageFailed, match="cluster"):
        open_store(tmp_path, "c2")


def test_it_travels_in_pieces_and_arrives_whole(tmp_path):
    sender, receiver = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    snapshot = take(sender, 70, 3)
    assert snapshot is not None
    outgoing = sender.send(snapshot)
    incoming = receiver.receive(70, 3, snapshot.size)
    while not incoming.complete:
        offset = outgoing.sent
        incoming.add(offset, outgoing.read(100))
    incoming.finish()
    published = receiver.publish(incoming.path)
    assert published is not None
    assert list(receiver.chunks(published.path)) == CHUNKS


def test_pieces_that_repeat_or_leave_a_gap_change_nothing(tmp_path):
    incoming = open_store(tmp_path).receive(70, 3, 10)
    incoming.add(0, b"01234")
    incoming.add(0, b"01234")
    incoming.add(7, b"789")
    incoming.add(5, b"5678901234")
    assert incoming.received == 5
    incoming.add(5, b"56789")
    assert incoming.complete
    incoming.finish()
    incoming.add(10, b"")
    assert incoming.path.read_bytes() == b"0123456789"


def test_a_snapshot_on_its_way_stays_readable_when_a_newer_takes_its_place(tmp_path):
    store = open_store(tmp_path)
    snapshot = take(store, 70)
    assert snapshot is not None
    outgoing = store.send(snapshot)
    take(store, 90)
    assert not snapshot.path.exists()
    assert len(outgoing.read(10_000)) == snapshot.size


def test_a_receiver_that_began_anew_is_sent_everything_again(tmp_path):
    store = open_store(tmp_path)
    snapshot = take(store, 70)
    assert snapshot is not None
    outgoing = store.send(snapshot)
    outgoing.read(200)
    outgoing.progress_to(100, 1)
    outgoing.progress_to(0, 1)
    assert (outgoing.sent, outgoing.acknowledged) == (0, 0)


def test_what_a_full_disk_dropped_is_sent_again_once_the_follower_was_asked(tmp_path):
    """What it holds now, before it is asked, is only how far it is with what is still on its way."""
    store = open_store(tmp_path)
    snapshot = take(store, 70)
    assert snapshot is not None
    outgoing = store.send(snapshot)
    outgoing.read(100)
    outgoing.progress_to(0, 1)
    assert outgoing.sent == 100
    outgoing.asks(2)
    outgoing.progress_to(0, 1)
    assert outgoing.sent == 100, "an answer to what was sent before"
    outgoing.progress_to(0, 2)
    assert outgoing.sent == 0
    outgoing.read(100)
    outgoing.progress_to(0, 2)
    assert outgoing.sent == 100, "it was asked once"
    outgoing.close()
