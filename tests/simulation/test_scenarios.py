"""Stories of crashes, power cuts, dead disks and partitions, each in many orders: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import os
from itertools import permutations

import pytest

from tests.simulation.scene import Scene, scene

FIRST = int(os.environ.get("HASCHED_SEED", "1"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("HASCHED_SEEDS", "12")))


def disturb(played: Scene) -> None:
    """One random fault."""
    random, network = played.random, played.world.network
    manager = random.choice(played.managers)
    pairs = list(permutations(played.world.managers, 2))
    match random.randrange(9):
        case 0 | 1:
            manager.cut_power()
            played.later(random.uniform(0.01, 1.5), manager.start)
        case 2:
            for source, target in random.sample(pairs, random.randint(1, len(pairs) - 1)):
                network.cut(source, target)
        case 3:
            leader = played.world.leader()
            if leader is not None:
                played.isolate(leader)
        case 4:
            network.heal_all()
        case 5 | 6:
            manager.cut_power_at(1)
            played.later(random.uniform(0.01, 0.3), manager.start)
        case 7:
            manager.pause()
            played.later(random.uniform(0.05, 1.5), manager.go_on)
        case 8:
            # One disk at a time: the next one dies when the last is filled again.
            if all(each.has_vote for each in played.managers):
                played.wipe(manager)
                played.later(random.uniform(0.01, 1.0), manager.start)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("managers", "longest_s"), [(3, 0.005), (3, 0.15), (5, 0.05)])
def test_nothing_acknowledged_is_lost_under_faults(seed: int, managers: int, longest_s: float) -> None:
    with scene(seed, managers=managers, longest_s=longest_s) as played:
        random = played.random
        played.dies_when_it_gets_a_vote = 0.3
        for _ in range(120):
            if random.random() < 0.25:
                disturb(played)
            for _ in range(random.randrange(4)):
                played.submit(
                    random.choice(played.managers), size=random.choice((0, 0, 900)), count=random.choice((1, 1, 5))
                )
            if random.random() < 0.3:
                played.read(random.choice(played.managers))
            played.run(random.choice((0.01, 0.1, 0.3)))
        played.settle()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leader_that_is_cut_off_answers_no_read_once_another_has_committed(seed: int) -> None:
    """For a while two managers believe that they lead. Each read is checked against what was acknowledged before it began."""
    with scene(seed) as played:
        played.run(3, played.world.leader)
        for _ in range(10):
            deposed = played.world.leader()
            assert deposed is not None
            others = [manager for manager in played.managers if manager is not deposed]
            played.isolate(deposed)
            for _ in range(60):
                played.submit(played.random.choice(others))
                played.read(deposed)
                played.run(0.01)
            played.world.network.heal_all()
            played.run(3, played.settled)
        played.settle()
        assert len(played.acknowledged) > 50


@pytest.mark.parametrize("seed", SEEDS)
def test_a_power_cut_of_all_managers_loses_nothing_whichever_come_back_first(seed: int) -> None:
    with scene(seed) as played:
        random = played.random
        for _ in range(25):
            played.run(2, played.world.leader)
            for _ in range(random.randrange(5, 40)):
                played.submit(random.choice(played.managers))
                played.run(random.choice((0.001, 0.005)))
            late = played.world.leader() or played.managers[0]
            for manager in played.managers:
                manager.cut_power()
            for manager in played.managers:
                played.later(1.2 if manager is late else 0.01, manager.start)
            played.run(1.3)
        played.settle()
        assert len(played.acknowledged) > 100


@pytest.mark.parametrize("seed", SEEDS)
def test_a_disk_that_died_is_filled_before_it_has_a_vote_though_the_leader_dies_too(seed: int) -> None:
    """Of three managers one is behind, one is wiped, and the last alone holds what was acknowledged: it must lead."""
    with scene(seed) as played:
        random = played.random
        for _ in range(6):
            played.run(3, played.settled)
            leader = played.world.leader()
            assert leader is not None
            wiped, behind = random.sample([manager for manager in played.managers if manager is not leader], 2)
            played.isolate(behind)
            for _ in range(20):
                played.submit(leader)
                played.run(0.01)
            played.wipe(wiped)
            leader.cut_power()
            played.world.network.heal_all()
            played.later(random.uniform(0.01, 1.5), wiped.start)
            played.later(random.uniform(0.01, 1.5), leader.start)
            played.run(random.uniform(2, 3), lambda wiped=wiped: wiped.has_vote)
            leader.cut_power()
            played.run(random.uniform(0.1, 1))
            leader.start()
            played.run(3, lambda: all(manager.has_vote for manager in played.managers))
        played.settle()
        assert len(played.acknowledged) > 60


@pytest.mark.parametrize("seed", SEEDS)
def test_a_second_cluster_is_never_formed_by_an_empty_disk(seed: int) -> None:
    """Two managers, one of them with an empty disk, don't make up a cluster while the third, which knows better, is down."""
    with scene(seed) as played:
        played.run(3, played.settled)
        leader = played.world.leader()
        assert leader is not None
        played.submit(leader)
        played.run(1)
        for manager in played.managers:
            manager.cut_power()
        wiped, behind = (manager for manager in played.managers if manager is not leader)
        played.wipe(wiped)
        wiped.start()
        behind.start()
        assert not played.run(30, played.world.leader)
        assert not wiped.has_vote
        leader.start()
        assert played.run(3, lambda: wiped.has_vote)
        played.settle()
        assert list(played.acknowledged) == ["submission-1"]
