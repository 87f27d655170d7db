"""Random faults, for scenarios that are told by a test and not drawn from a seed as a whole."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

from tests.simulation.scene import Scene


def disturb(simulation: Scene, may_lose_a_disk: Callable[[Scene], bool]) -> None:
    """One random fault. One disk at a time: the next one dies when the last is filled again, by `may_lose_a_disk`."""
    random = simulation.random
    node = simulation.nodes[random.choice(simulation.names)]
    match random.randrange(9):
        case 0 | 1:
            if node.alive:
                node.cut_power()
                simulation.after(random.uniform(0.01, 1.5), node.start)
        case 2:
            pairs = list(permutations(simulation.names, 2))
            simulation.partition(*random.sample(pairs, random.randint(1, len(pairs) - 1)))
        case 3:
            leader = simulation.leader()
            if leader is not None:
                simulation.isolate(leader.name)
        case 4:
            simulation.heal()
        case 5 | 6:
            node.cut_power_at(random.randint(1, 6), random.uniform(0.01, 0.3))
        case 7:
            node.pause()
            simulation.after(random.uniform(0.05, 1.5), node.go_on)
        case 8:
            if may_lose_a_disk(simulation):
                simulation.wipe(node)
                simulation.after(random.uniform(0.01, 1.0), node.start)
