"""Linearizable reads on a manager that doesn't lead, when its ways to the leader fail."""

from __future__ import annotations

import pytest
from raft_bench import TUNING, Bench

from hasched.model.errors import NoLeader
from hasched.raft.messages import ReadIndex, ReadIndexReply
from hasched.raft.reads import Reads
from tests.simulation.scene import simulate  # noqa: F401 (a fixture)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    bench.follow()
    return bench


def test_reads_go_on_after_the_way_to_the_leader_was_broken_in_one_direction(simulate):  # noqa: F811
    """The follower hears the leader all the time, so it never looks for another."""
    simulation = simulate(give_up_s=(60, 60))
    simulation.run(3, simulation.agree)
    leader = simulation.leader()
    follower = next(node for node in simulation.nodes.values() if node is not leader)
    simulation.partition((follower.name, leader.name))
    simulation.world.network.break_dialled(follower.name, leader.name)
    simulation.read(follower.name)
    simulation.run(3)
    assert (simulation.reads_done, follower.core.engine.leader_id) == (0, leader.name)
    simulation.heal()
    simulation.run(1)
    for _ in range(5):
        simulation.read(follower.name)
        simulation.run(0.5)
    assert simulation.reads_done == 5


def test_nothing_is_asked_of_a_leader_that_cant_be_reached(bench):
    reads, answers = Reads(bench.engine, TUNING, 1), []
    bench.engine.disconnected("m2")
    reads.read(bench.now, answers.append)
    assert reads.advance(bench.now) == []
    bench.engine.connected("m2")
    assert reads.advance(bench.now) == [("m2", ReadIndex(1))]


def test_a_question_that_is_never_answered_is_given_up_with_its_readers(bench):
    reads, answers = Reads(bench.engine, TUNING, 1), []
    reads.read(bench.now, answers.append)
    assert reads.advance(bench.now) == [("m2", ReadIndex(1))]
    late = bench.now + TUNING.leader_wait_s + 1
    assert reads.advance(late) == []
    assert [type(answer) for answer in answers] == [NoLeader]
    reads.read(late, answers.append)
    assert reads.advance(late) == [("m2", ReadIndex(2))]


def test_readers_of_a_manager_that_cant_catch_up_are_told_so_and_forgotten(bench):
    reads, answers = Reads(bench.engine, TUNING, 1), []
    reads.read(bench.now, answers.append)
    reads.advance(bench.now)
    reads.answered("m2", ReadIndexReply(1, 99))
    reads.advance(bench.now + TUNING.leader_wait_s + 1)
    assert answers == []
    reads.advance(bench.now + TUNING.proposal_timeout_s + 1)
    assert [type(answer) for answer in answers] == [NoLeader]
    reads.abandon("it stops")
    assert len(answers) == 1
