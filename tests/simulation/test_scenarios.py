"""Stories of crashes, power cuts, dead disks and partitions, each in many orders: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import contextlib
import os
from itertools import permutations

import pytest

from hasched.model.errors import HaschedError
from tests.simulation.disturbance import disturb
from tests.simulation.manager import SimulatedManager
from tests.simulation.scene import Scene, simulate  # noqa: F401 (a fixture)

FIRST = int(os.environ.get("HASCHED_SEED", "1"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("HASCHED_SEEDS", "12")))


def all_vote(simulation: Scene) -> bool:
    return all(each.has_vote for each in simulation.nodes.values())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("size", "max_delay"), [(3, 0.005), (3, 0.15), (5, 0.05)])
def test_nothing_acknowledged_is_lost_under_faults(simulate, seed, size, max_delay):  # noqa: F811
    simulation = simulate(seed, size=size, max_delay=max_delay)
    simulation.dies_when_it_gets_a_vote = 0.3
    random = simulation.random
    for _ in range(120):
        if random.random() < 0.25:
            disturb(simulation, all_vote)
        for _ in range(random.randrange(4)):
            simulation.submit(
                random.choice(simulation.names), size=random.choice((0, 0, 900)), count=random.choice((1, 1, 5))
            )
        if random.random() < 0.3:
            simulation.read(random.choice(simulation.names))
        simulation.run(random.choice((0.01, 0.1, 0.3)))
    simulation.settle()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leader_that_is_cut_off_answers_no_read_once_another_has_committed(simulate, seed):  # noqa: F811
    """For a while two managers believe that they lead. Each read is checked against what was acknowledged before it began."""
    simulation = simulate(seed)
    random = simulation.random
    simulation.run(3, simulation.leader)
    for _ in range(10):
        deposed = simulation.leader()
        others = [name for name in simulation.names if name != deposed.name]
        simulation.isolate(deposed.name)
        for _ in range(60):
            simulation.submit(random.choice(others))
            simulation.read(deposed.name)
            simulation.run(0.01)
        simulation.heal()
        simulation.run(3, simulation.agree)
    simulation.settle()
    assert len(simulation.acknowledged) > 50


@pytest.mark.parametrize("seed", SEEDS)
def test_a_power_cut_of_all_managers_loses_nothing_whichever_come_back_first(simulate, seed):  # noqa: F811
    simulation = simulate(seed)
    random = simulation.random
    for _ in range(25):
        simulation.run(2, simulation.leader)
        for _ in range(random.randrange(5, 40)):
            simulation.submit(random.choice(simulation.names))
            simulation.run(random.choice((0.001, 0.005)))
        late = simulation.leader() or simulation.nodes["m1"]
        for node in simulation.nodes.values():
            node.cut_power()
        for node in simulation.nodes.values():
            simulation.after(1.2 if node is late else 0.01, node.start)
        simulation.run(1.3)
    simulation.settle()
    assert len(simulation.acknowledged) > 100


@pytest.mark.parametrize("seed", SEEDS)
def test_a_disk_that_died_is_filled_before_it_has_a_vote_though_the_leader_dies_too(simulate, seed):  # noqa: F811
    """Of three managers one is behind, one is wiped, and the last alone holds what was acknowledged: it must lead."""
    simulation = simulate(seed)
    random = simulation.random
    for _ in range(6):
        simulation.run(3, simulation.agree)
        leader = simulation.leader()
        wiped, behind = random.sample([node for node in simulation.nodes.values() if node is not leader], 2)
        simulation.isolate(behind.name)
        for _ in range(20):
            simulation.submit(leader.name)
            simulation.run(0.01)
        simulation.wipe(wiped)
        leader.cut_power()
        simulation.heal()
        simulation.after(random.uniform(0.01, 1.5), wiped.start)
        simulation.after(random.uniform(0.01, 1.5), leader.start)
        simulation.run(random.uniform(2, 3), lambda wiped=wiped: wiped.has_vote)
        leader.cut_power()
        simulation.run(random.uniform(0.1, 1))
        leader.start()
        simulation.run(3, lambda: all(node.has_vote for node in simulation.nodes.values()))
    simulation.settle()
    assert len(simulation.acknowledged) > 60


@pytest.mark.parametrize("seed", SEEDS)
def test_a_second_cluster_is_never_formed_by_an_empty_disk(simulate, seed):  # noqa: F811
    """Two managers, one of them with an empty disk, don't make up a cluster while the third, which knows better, is down."""
    simulation = simulate(seed)
    simulation.run(3, simulation.agree)
    leader = simulation.leader()
    simulation.submit(leader.name)
    simulation.run(1)
    for node in simulation.nodes.values():
        node.cut_power()
    wiped, behind = (node for node in simulation.nodes.values() if node is not leader)
    simulation.wipe(wiped)
    wiped.start()
    behind.start()
    assert not simulation.run(30, simulation.leader)
    assert not wiped.has_vote
    leader.start()
    assert simulation.run(3, lambda: wiped.has_vote)
    simulation.settle()
    assert list(simulation.acknowledged) == ["submission-0"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_snapshot_that_another_leader_offers_during_an_installation_arrives_after_all(simulate, seed):  # noqa: F811
    """Found by a run of the whole cluster: what the follower could not take then was never sent again."""
    simulation = simulate(seed)
    simulation.run(3, simulation.agree)
    leader = simulation.leader()
    behind, other = simulation.random.sample([node for node in simulation.nodes.values() if node is not leader], 2)
    simulation.isolate(behind.name)
    work(simulation, leader.name, 120)
    behind.slow_disk = 500.0
    simulation.heal()
    assert simulation.run(20, lambda: behind.core.engine.incoming is not None and behind.core.engine.incoming.complete)
    simulation.partition((leader.name, behind.name), (behind.name, leader.name))
    work(simulation, leader.name, 60)
    leader.cut_power()
    behind.slow_disk = 30.0
    assert simulation.run(60, lambda: behind.core.engine.applied_index > 120 and other.core.leading)
    behind.slow_disk = 1.0
    simulation.settle()


def work(simulation: Scene, name: str, count: int) -> None:
    for _ in range(count):
        simulation.submit(name)
        simulation.run(0.02)


def test_a_vote_of_a_disk_that_was_wiped_elects_nobody_who_lacks_what_was_acknowledged_since(simulate):  # noqa: F811
    """The candidate's other request is on its way for longer than the disk takes to be filled and to acknowledge more."""
    simulation = simulate(size=5, give_up_s=(60.0, 60.0))
    nodes = simulation.nodes
    simulation.run(5, lambda: simulation.agree() and all(node.has_vote for node in nodes.values()))
    simulation.run(1)  # the leader knows that they have it all
    leader = simulation.leader().name
    candidate, wiped, late, other = [name for name in simulation.names if name != leader]
    simulation.partition(*((candidate, each) for each in (leader, late, other)))
    nodes[leader].run(lambda asked: _transfer(asked, candidate))
    assert simulation.run(3, lambda: wiped in nodes[candidate].core.engine._votes)
    simulation.partition((leader, candidate), (wiped, candidate), (candidate, wiped))
    simulation.wipe(nodes[wiped])
    nodes[wiped].start()
    assert simulation.run(10, lambda: nodes[wiped].has_vote and nodes[leader].leads)
    simulation.partition((leader, late))
    simulation.submit(leader)
    assert simulation.run(1, lambda: simulation.acknowledged)  # by the leader, the one that was wiped, and the other
    simulation.partition(*permutations((leader, wiped, other), 2))
    for pair in permutations((candidate, late), 2):
        simulation.world.network.heal(*pair)
    assert not simulation.run(5, lambda: nodes[candidate].core.engine.is_leader)
    simulation.settle()


async def _transfer(manager: SimulatedManager, target: str) -> None:
    with contextlib.suppress(HaschedError):
        await manager.replica.transfer(target)
