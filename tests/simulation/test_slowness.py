"""Slow links and slow disks: what takes its time is not taken for the silence of whoever does it."""

from __future__ import annotations

from itertools import permutations

import pytest

from hasched.raft.tuning import Tuning
from tests.simulation.manager import SimulatedManager
from tests.simulation.scene import TUNING, simulate  # noqa: F401 (a fixture)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("through", ["the leader", "a follower"])
def test_huge_commands_on_slow_links_depose_nobody(simulate, seed, through):  # noqa: F811
    """Each takes ten election timeouts to arrive. Heartbeats and what answers them pass it, in either direction."""
    simulation = simulate(seed, tuning=Tuning(proposal_timeout_s=60.0))
    simulation.run(3, simulation.leader)
    simulation.run(3)
    leader = simulation.leader()
    name = leader.name if through == "the leader" else next(each for each in simulation.names if each != leader.name)
    term = leader.replica.term
    for pair in permutations(simulation.names, 2):
        simulation.world.network.weather.rate[pair] = 150_000.0
    for _ in range(4):
        simulation.submit(name, size=45_000, count=20)
    for _ in range(60):
        simulation.submit(name)
        simulation.run(1)
        assert simulation.leader() is leader
        assert leader.replica.term == term
    assert len(simulation.acknowledged) == 4 * 20 + 60
    simulation.settle()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("disk_s", [((0.9, 0.001), (0.1, 0.55)), ((1.0, 0.45),)], ids=["at times", "always"])
def test_disks_that_take_longer_than_an_election_timeout_depose_nobody(simulate, seed, disk_s):  # noqa: F811
    simulation = simulate(seed, tuning=Tuning(), disk_s=disk_s)
    simulation.run(20, simulation.leader)
    simulation.run(5)
    leader = simulation.leader()
    term = leader.replica.term
    for number in range(100):
        simulation.submit(simulation.names[number % 3])
        simulation.run(0.2)
        assert simulation.leader() is leader
        assert leader.replica.term == term
    simulation.run(5)
    assert len(simulation.acknowledged) == 100
    simulation.settle()


def let_hang(leader: SimulatedManager) -> None:
    leader.slow_disk = 1e9


def let_fill(leader: SimulatedManager) -> None:
    leader.disk.capacity = leader.disk.used


@pytest.mark.parametrize(("fail", "asked"), [(let_hang, 2), (let_fill, 1)])
def test_who_asked_a_leader_whose_disk_hangs_or_is_full_is_told_in_time_that_nothing_is_known(simulate, fail, asked):  # noqa: F811
    simulation = simulate(1)
    simulation.run(3, simulation.leader)
    leader = simulation.leader()
    fail(leader)
    simulation.submit(leader.name)  # this one is being written
    simulation.run(0.1)
    if asked > 1:
        simulation.submit(leader.name)
    assert simulation.run(5, simulation.leader)
    simulation.run(2 * TUNING.proposal_timeout_s, lambda: len(simulation.unknown) == asked)
    assert len(simulation.unknown) == asked
    assert simulation.leader() is not leader
    leader.kill()
    simulation.settle()
