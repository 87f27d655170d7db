"""Slow links: what is large takes its time, and is not taken for the silence of whoever sends it."""

from __future__ import annotations

from itertools import permutations

import pytest

from hasched.raft.tuning import Tuning
from tests.simulation.scene import simulate  # noqa: F401 (a fixture)


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
