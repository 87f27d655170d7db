"""Partial meshes: managers of which each reaches only some. Whoever reaches a majority comes to lead, and then stays."""

from __future__ import annotations

import pytest

from chaos.cluster.base import Pair
from chaos.cluster.topology import chain, star
from tests.simulation.scene import Scene, simulate  # noqa: F401 (a fixture)


def settled(simulation: Scene) -> str:
    simulation.run(10, simulation.leader)
    simulation.run(3)
    leader = simulation.leader()
    assert leader is not None
    return leader.name


def cut_for_a_while(simulation: Scene, pairs: list[Pair]) -> tuple[str | None, int]:
    """Who leads when the cuts have lasted for some seconds, and how many terms have begun in the rest of a minute."""
    simulation.partition(*pairs)
    simulation.run(6)
    first = max(node.core.engine.term for node in simulation.nodes.values())
    leader = simulation.leader()
    for _ in range(108):
        for name in simulation.names:
            simulation.submit(name)
        simulation.run(0.5)
        if leader is not None:
            assert simulation.leader() is leader, "a leader that reaches a majority is deposed"
    last = max(node.core.engine.term for node in simulation.nodes.values())
    return None if leader is None else leader.name, last - first


@pytest.mark.parametrize("seed", range(4))
def test_a_star_is_led_by_its_centre(simulate, seed):  # noqa: F811
    """Those at the tips reach too few, and that they keep asking keeps nobody who reaches enough from standing."""
    simulation = simulate(seed, size=5)
    former = settled(simulation)
    centre = next(name for name in simulation.names if name != former)
    assert cut_for_a_while(simulation, star(centre, simulation.names)) == (centre, 0)
    simulation.settle()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_chain_has_a_leader_that_stays(simulate, place):  # noqa: F811
    """Wherever in it the former leader stands; at an end it reaches no majority."""
    simulation = simulate(place, size=5)
    former = settled(simulation)
    others = [name for name in simulation.names if name != former]
    row = [*others[:place], former, *others[place:]]
    leader, terms = cut_for_a_while(simulation, chain(row))
    assert leader in (row[1:4] if place == 0 else [former])
    assert terms == 0
    simulation.settle()


def test_a_manager_that_the_leader_does_not_reach_disturbs_nobody(simulate):  # noqa: F811
    simulation = simulate(1, size=5)
    former = settled(simulation)
    deaf = next(name for name in simulation.names if name != former)
    assert cut_for_a_while(simulation, [(former, deaf)]) == (former, 0)
    simulation.settle()
