"""Frames: large messages travel in pieces, and small ones pass them."""

from __future__ import annotations

import pytest
from raft_cluster import partitioned, submit

from hasched.raft.frames import MAX_FRAME_BYTES, PIECE_BYTES, FrameInvalid, FrameReader, Outlet
from hasched.raft.messages import Append, Beat, Entry, Vote
from hasched.raft.tuning import Tuning

BUSY = 2 * PIECE_BYTES


class FullingWire:
    """Takes `room` bytes, then says that it is full."""

    def __init__(self) -> None:
        self.taken = bytearray()
        self.room = 10**9

    def set_write_buffer_limits(self, high: int) -> None:
        self.outlet: Outlet

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.taken += data
        if len(self.taken) >= self.room:
            self.outlet.pause()

    def take(self, room: int) -> None:
        self.room = len(self.taken) + room
        self.outlet.resume()


@pytest.fixture
def wire():
    wire = FullingWire()
    wire.outlet = Outlet(wire)
    return wire


def append(number: int, size: int) -> Append:
    return Append(1, 1, number, 1, [Entry(1, bytes([number]) * size)], 1)


def test_small_messages_pass_large_ones_and_each_kind_keeps_its_order(wire):
    wire.room = 1
    large = [
        append(number, size) for number, size in enumerate((5 * PIECE_BYTES, 10, PIECE_BYTES - 40, 3 * PIECE_BYTES))
    ]
    small = [Beat(1, number) for number in range(3)]
    reader = FrameReader()
    heard: list[object] = []
    for place, message in enumerate(large):
        wire.outlet.send([message, *small[place : place + 1]])
        heard += reader.feed(bytes(wire.taken))
        wire.taken.clear()
    assert heard == small, "the wire is full, and none of them waits"
    for _ in range(20):
        wire.take(1)
        heard += reader.feed(bytes(wire.taken))
        wire.taken.clear()
    assert heard == [*small, *large]
    assert wire.outlet.unsent_bytes == 0


def test_what_fits_goes_out_in_order_at_once(wire):
    messages = [Beat(1, 1), append(1, 100), Vote(3)]
    wire.outlet.send(messages)
    assert list(FrameReader().feed(bytes(wire.taken))) == messages


@pytest.mark.parametrize("step", [1, 1000, 10**9])
def test_pieces_are_put_together_however_they_arrive(wire, step):
    wire.outlet.send([append(1, BUSY), append(2, BUSY)])
    data, reader = bytes(wire.taken), FrameReader()
    heard = [message for start in range(0, len(data), step) for message in reader.feed(data[start : start + step])]
    assert heard == [append(1, BUSY), append(2, BUSY)]


def test_pieces_without_end_are_refused():
    reader = FrameReader()
    piece = (1 << 31 | PIECE_BYTES).to_bytes(4, "big") + bytes(PIECE_BYTES)
    with pytest.raises(FrameInvalid, match="at most"):
        for _ in range(MAX_FRAME_BYTES // PIECE_BYTES + 1):
            list(reader.feed(piece))


async def test_a_huge_entry_on_a_slow_link_deposes_nobody(tmp_path):
    """It takes several election timeouts to arrive, and heartbeats and their answers pass it."""
    tuning = Tuning(heartbeat_s=0.1, election_min_s=1.5, election_max_s=2.5)
    async with partitioned(tmp_path, tuning) as cluster:
        leader = await cluster.leader()
        await leader.propose(submit(0))
        term = leader.term
        for wire in cluster.wires.values():
            wire.rate = 150_000
        await leader.propose(submit(1, size=1_000_000))
        assert leader.is_leader
        assert {node.term for node in cluster.nodes.values()} == {term}
