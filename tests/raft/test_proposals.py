"""Proposals on their way into entries."""

from __future__ import annotations

import msgspec
import pytest
from raft_cluster import submit

from hasched.raft.messages import Forward, Forwarded
from hasched.raft.proposals import Proposal, Proposals
from hasched.raft.tuning import Tuning
from hasched.statemachine.commands import encode_command
from tests.simulation.scene import TUNING, simulate  # noqa: F401 (a fixture)


def test_what_another_manager_forwarded_becomes_part_of_one_entry():
    """Its reply must not come later than the entry that it speaks of."""
    proposals = Proposals(Tuning(max_entry_commands=7), 1)
    commands = [encode_command(submit(number)) for number in range(10)]
    proposals.propose(Proposal(commands[:5], 0.0, lambda result: None))
    assert proposals.take_forward("m2", Forward(9, commands[5:])) is None
    for index, taken, replies in (
        (2, commands[:5], []),
        (3, commands[5:], [("m2", Forwarded(9, 3, 1, 0))]),
    ):
        entry, pieces = proposals.next_entry()
        assert entry == taken
        assert proposals.placed(index, 1, pieces) == replies
    assert not proposals.waiting


def test_a_forward_that_is_no_entry_is_refused():
    proposals = Proposals(Tuning(max_entry_commands=7), 1)
    command = encode_command(submit(1))
    for commands in ([], [command] * 8, [b"what is this"]):
        assert proposals.take_forward("m2", Forward(9, commands)) == Forwarded(9, refused="malformed")
    assert not proposals.waiting


def test_without_faults_everything_is_answered_however_much_is_under_way(simulate):  # noqa: F811
    """Entries and windows are small here, so that what is forwarded has to wait for room, and is of many entries."""
    simulation = simulate(tuning=msgspec.structs.replace(TUNING, snapshot_entries=10_000))
    simulation.run(3, simulation.agree)
    for _ in range(40):
        for name in simulation.names:
            simulation.submit(name, size=simulation.random.choice((0, 300, 900)), count=5)
        simulation.run(0.005)
    simulation.run(3)
    assert simulation.unknown == simulation.refused == {}
    assert len(simulation.acknowledged) == simulation.submitted == 600
    assert all(not node.core.proposals._placed for node in simulation.nodes.values())
    simulation.settle()


@pytest.mark.parametrize("seed", range(1, 6))
def test_what_was_forwarded_to_a_leader_that_fell_silent_is_unknown_as_soon_as_it_is_given_up(simulate, seed):  # noqa: F811
    """No connection breaks: silence is all that the follower has to go by."""
    simulation = simulate(seed, give_up_s=(60, 60))
    simulation.run(3, simulation.agree)
    silent = simulation.leader()
    follower = next(name for name in simulation.names if name != silent.name)
    simulation.isolate(silent.name)
    simulation.submit(follower)
    began = simulation.now
    simulation.run(3, lambda: bool(simulation.unknown))
    assert simulation.now - began <= 2 * TUNING.election_max_s < TUNING.proposal_timeout_s
    simulation.submit(follower)
    simulation.run(3, lambda: bool(simulation.acknowledged))
    assert list(simulation.unknown) == ["submission-0"]
    assert list(simulation.acknowledged) == ["submission-1"]
    simulation.settle()
