"""The managers of a cluster change while it works, one by one, and nothing acknowledged is lost by it."""

from __future__ import annotations

import os
from itertools import permutations

import pytest
from raft_simulation import Simulation, simulate  # noqa: F401 (a fixture)

SEEDS = range(
    int(os.environ.get("HASCHED_SEED", "1")),
    int(os.environ.get("HASCHED_SEED", "1")) + int(os.environ.get("HASCHED_SEEDS", "8")),
)


def disturb(simulation: Simulation) -> None:
    """One random fault, or another wish."""
    random = simulation.random
    name = random.choice(simulation.names)
    node = simulation.nodes[name]
    match random.randrange(10):
        case 0 | 1:
            if node.up:
                node.crash()
                simulation.after(random.uniform(0.01, 1.5), node.start_again)
        case 2:
            pairs = list(permutations(simulation.names, 2))
            simulation.partition(*random.sample(pairs, random.randint(1, len(pairs) - 1)))
        case 3:
            leader = simulation.leader()
            if leader is not None:
                simulation.partition(*[pair for pair in permutations(simulation.names, 2) if leader.name in pair])
        case 4:
            simulation.heal()
        case 5:
            node.dies_at_sync = True
        case 6:
            node.paused_until = simulation.now + random.uniform(0.05, 1.5)
        case _:
            simulation.want(*random.sample(simulation.names, random.choice((3, 3, 5))))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("max_delay", [0.005, 0.1])
def test_managers_come_and_go_under_faults(simulate, seed, max_delay):  # noqa: F811
    simulation = simulate(seed, size=3, spare=3, max_delay=max_delay)
    random = simulation.random
    simulation.run(3, lambda: simulation.leader() is not None)
    for _ in range(150):
        if random.random() < 0.25:
            disturb(simulation)
        for _ in range(random.randrange(4)):
            simulation.submit(random.choice(simulation.names), size=random.choice((0, 0, 900)))
        if random.random() < 0.3:
            simulation.read(random.choice(simulation.names))
        simulation.run(random.choice((0.01, 0.1, 0.3)))
    simulation.settle()
    assert len(simulation.memberships) > 5


@pytest.mark.parametrize("seed", SEEDS)
def test_from_three_to_five_and_back_to_three_others(simulate, seed):  # noqa: F811
    simulation = simulate(seed, size=3, spare=2)
    for wanted in (("n1", "n2", "n3", "n4", "n5"), ("n3", "n4", "n5"), ("n1", "n2", "n5")):
        simulation.want(*wanted)
        for _ in range(100):
            simulation.submit(simulation.random.choice(simulation.names))
            simulation.run(0.02)
        simulation.run(20, lambda: simulation.voters() == sorted(simulation.wanted))
        assert simulation.voters() == sorted(wanted)
    simulation.settle()
    assert len(simulation.acknowledged) > 200
    gone = [simulation.nodes[name].admission for name in ("n3", "n4")]
    simulation.run(5, lambda: all(admission.removed for admission in gone))
    assert [admission.role for admission in gone] == ["removed", "removed"]
