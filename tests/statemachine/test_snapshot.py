"""Snapshots: the state as it was when captured, whatever happens meanwhile; and nothing but a whole one is restored."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasched.statemachine import snapshot
from hasched.statemachine.commands import DeleteJob
from hasched.statemachine.digest import digest
from hasched.statemachine.invariants import check
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.snapshot import capture, restore
from hasched.statemachine.state import SUBMISSION_MEMORY_MS, State
from hasched.statemachine.streams import SnapshotInvalid
from tests.statemachine.life import live
from tests.statemachine.machine import Machine


def chunks_of(state: State) -> list[bytes]:
    captured = capture(state)
    return list(iter(captured.next_chunk, None))


def lived(seed: int = 1, steps: int = 300) -> Machine:
    machine = Machine()
    live(machine, random.Random(seed), steps)
    return machine


def test_an_empty_state_comes_back() -> None:
    assert digest(restore(chunks_of(State()))) == digest(State())


@pytest.mark.parametrize("seed", range(4))
def test_what_was_captured_is_what_is_restored(seed: int) -> None:
    machine = lived(seed)
    restored = restore(chunks_of(machine.state))
    assert check(restored) == []
    assert digest(restored) == digest(machine.state)
    assert next_deadline(restored) is not None


def test_a_restored_state_goes_on_like_the_one_it_came_from() -> None:
    machine = lived(5)
    other = Machine()
    other.state, other.now_ms, other.shrunk = restore(chunks_of(machine.state)), machine.now_ms, machine.shrunk
    live(machine, random.Random(6), 200)
    live(other, random.Random(6), 200)
    assert digest(other.state) == digest(machine.state)
    assert other.events == machine.events[-len(other.events) :]


@pytest.mark.parametrize("seed", range(4))
def test_a_capture_is_not_moved_by_what_happens_between_its_chunks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 1500)
    machine = lived(seed)
    before = digest(machine.state)
    dice = random.Random(seed)
    captured = capture(machine.state)
    index = machine.state.index
    chunks = []
    while (chunk := captured.next_chunk()) is not None:
        chunks.append(chunk)
        live(machine, dice, 12)
    assert len(chunks) > 3
    assert digest(machine.state) != before
    assert digest(restore(chunks)) == before
    assert captured.index == index
    assert machine.state.savers == []


def test_a_job_deleted_during_a_capture_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 10)
    machine = Machine()
    jobs = [machine.submit() for _ in range(3)]
    machine.cancel(jobs[2])
    captured = capture(machine.state)
    first = captured.next_chunk()
    assert first is not None
    machine.do(DeleteJob(job_id=jobs[2].id, actor="ada"))
    machine.submit()
    assert list(restore([first, *iter(captured.next_chunk, None)]).jobs) == [1, 2, 3]


def test_submissions_forgotten_during_a_capture_are_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 10)
    machine = Machine()
    for name in ("b", "a"):
        job = machine.submit(name)
        machine.cancel(job)
        machine.do(DeleteJob(job_id=job.id, actor="ada"))
    before = digest(machine.state)
    captured = capture(machine.state)
    machine.wait(SUBMISSION_MEMORY_MS)
    assert not machine.state.tombstones
    assert digest(restore(iter(captured.next_chunk, None))) == before


def test_a_closed_capture_lets_go_of_the_state() -> None:
    machine = lived(steps=20)
    captured = capture(machine.state)
    captured.close()
    captured.close()
    assert machine.state.savers == []
    capture(machine.state).close()


def test_chunks_are_bounded() -> None:
    machine = Machine()
    for _ in range(40):
        machine.submit(input=b"x" * 20_000)
    assert max(map(len, chunks_of(machine.state))) <= snapshot.CHUNK_BYTES


def test_how_the_stream_is_cut_has_no_meaning() -> None:
    machine = lived()
    stream = b"".join(chunks_of(machine.state))
    cut = [stream[place : place + 7] for place in range(0, len(stream), 7)]
    assert digest(restore(cut)) == digest(restore([b"", stream, b""])) == digest(machine.state)


def test_a_snapshot_cut_off_anywhere_is_refused() -> None:
    stream = b"".join(chunks_of(lived(steps=30).state))
    for end in range(len(stream)):
        with pytest.raises(SnapshotInvalid):
            restore([stream[:end]])


def test_nothing_may_follow_the_end() -> None:
    with pytest.raises(SnapshotInvalid):
        restore([*chunks_of(lived(steps=30).state), b"x"])


def test_another_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = chunks_of(State())
    monkeypatch.setattr(snapshot, "VERSION", 2)
    with pytest.raises(SnapshotInvalid, match="version 1; hasched-state version 2 is known"):
        restore(chunks)


_STREAM = b"".join(chunks_of(lived(steps=60).state))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(_STREAM) - 1), st.integers(1, 255))
def test_a_damaged_snapshot_is_refused_or_holds_together(place: int, flip: int) -> None:
    """The store's checksums find damage; should they ever be passed by, it ends in this error, not in another."""
    damaged = bytearray(_STREAM)
    damaged[place] ^= flip
    with contextlib.suppress(SnapshotInvalid):
        restore([bytes(damaged)])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(SnapshotInvalid):
        restore([noise])
