"""The managers of a cluster change while it works, one by one, and nothing acknowledged is lost by it."""

from __future__ import annotations

import os

import msgspec
import pytest
from raft_cluster import Cluster, submit, until

from hasched.model.errors import NoLeader
from hasched.raft.node import ReplicaNode
from hasched.raft.tuning import Tuning
from hasched.statemachine.commands import AddManager, RemoveManager
from hasched.statemachine.outcomes import JobAccepted
from tests.simulation.disturbance import disturb
from tests.simulation.scene import TUNING, Scene, simulate  # noqa: F401 (a fixture)

SEEDS = range(
    int(os.environ.get("HASCHED_SEED", "1")),
    int(os.environ.get("HASCHED_SEED", "1")) + int(os.environ.get("HASCHED_SEEDS", "8")),
)


def all_who_may_count_vote(simulation: Scene) -> bool:
    """By every membership that somebody knows."""
    if not all(each.running for each in simulation.nodes.values()):
        return False
    known = [each.core.engine.membership.voters for each in simulation.nodes.values()]
    return all(simulation.nodes[voter].has_vote for voters in known for voter in voters)


def disturb_or_change(simulation: Scene) -> None:
    """One random fault, or another wish."""
    random = simulation.random
    match random.randrange(14):
        case 0 | 1:
            simulation.transfer(random.choice(simulation.names), random.choice([*simulation.names, None]))
        case 2:
            for each in simulation.nodes.values():
                if each.alive:
                    each.cut_power()
                    simulation.after(random.uniform(0.01, 1.0), each.start)
        case 3 | 4 | 5:
            simulation.want(*random.sample(simulation.names, random.choice((3, 3, 5))))
        case _:
            disturb(simulation, all_who_may_count_vote)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("max_delay", [0.005, 0.1])
def test_managers_come_and_go_under_faults(simulate, seed, max_delay):  # noqa: F811
    simulation = simulate(seed, size=3, spare=3, max_delay=max_delay)
    random = simulation.random
    simulation.run(3, simulation.leader)
    for _ in range(150):
        if random.random() < 0.25:
            disturb_or_change(simulation)
        for _ in range(random.randrange(4)):
            simulation.submit(random.choice(simulation.names), size=random.choice((0, 0, 900)))
        if random.random() < 0.3:
            simulation.read(random.choice(simulation.names))
        simulation.run(random.choice((0.01, 0.1, 0.3)))
    simulation.settle()
    assert len(simulation.memberships) >= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_from_three_to_five_and_back_to_three_others(simulate, seed):  # noqa: F811
    simulation = simulate(seed, size=3, spare=2)
    for wanted in (("m1", "m2", "m3", "m4", "m5"), ("m3", "m4", "m5"), ("m1", "m2", "m5")):
        simulation.want(*wanted)
        for _ in range(100):
            simulation.submit(simulation.random.choice(simulation.names))
            simulation.run(0.02)
        simulation.run(20, lambda: simulation.voters() == sorted(simulation.wanted))
        assert simulation.voters() == sorted(wanted)
    simulation.settle()
    assert len(simulation.acknowledged) > 200
    gone = [simulation.nodes[name].replica for name in ("m3", "m4")]
    simulation.run(5, lambda: all(replica.status.role == "removed" for replica in gone))
    assert [replica.status.role for replica in gone] == ["removed", "removed"]


# --- real managers ---


async def add(node: ReplicaNode, cluster: Cluster, *names: str) -> None:
    for name in names:
        member = next(member for member in cluster.members if member.manager_id == name)
        await node.propose(AddManager(name, "test", member.api_url, member.raft_address))


def voters(node: ReplicaNode) -> list[str]:
    return [status.member.manager_id for status in node.status.members if status.voter]


async def test_three_real_managers_become_five_and_three_others(tmp_path):
    """The new ones know nobody but themselves: they are found."""
    unhurried = Tuning(heartbeat_s=0.1, election_min_s=0.6, election_max_s=1.2)  # five of them, in one thread
    cluster = Cluster(tmp_path, ("m1", "m2", "m3", "m4", "m5"), unhurried)
    everybody, cluster.members = cluster.members, cluster.members[:3]
    await cluster.start()
    try:
        leader = await cluster.leader()
        proposed = [await leader.propose(submit(number)) for number in range(20)]
        assert all(isinstance(outcome, JobAccepted) for outcome in proposed)
        cluster.members = everybody
        for name in ("m4", "m5"):
            alone = [member for member in everybody if member.manager_id == name]
            await cluster.start(name, members=alone, join=True)
            assert cluster.nodes[name].status.role == "learner"
        follower = next(node for node in cluster.nodes.values() if not node.is_leader and node.leader is not None)
        await add(follower, cluster, "m4", "m5")
        await until(lambda: voters(leader) == ["m1", "m2", "m3", "m4", "m5"])
        for name in ("m1", "m2"):
            await follower.propose(RemoveManager(name, "test"))
        stayed = [cluster.nodes[name] for name in ("m3", "m4", "m5")]
        await until(lambda: all(voters(node) == ["m3", "m4", "m5"] for node in stayed))
        gone = [cluster.nodes[name] for name in ("m1", "m2")]
        await until(lambda: [node.status.role for node in gone] == ["removed", "removed"])
        assert isinstance(await stayed[2].propose(submit(20)), JobAccepted)
        await until(lambda: all(len(node.state.jobs) == 21 for node in stayed))
        for node in gone:
            with pytest.raises(NoLeader):
                await node.propose(submit(99))
        await add(stayed[0], cluster, "m1")  # with its old disk
        await until(lambda: voters(stayed[0]) == ["m1", "m3", "m4", "m5"])
        await until(lambda: len(gone[0].state.jobs) == 21)
    finally:
        await cluster.stop()


async def test_one_manager_grows_and_lets_go_of_its_first(tmp_path):
    """It didn't even listen before; in the end it hands over and is removed."""
    cluster = Cluster(tmp_path, ("m1", "m2", "m3"))
    everybody, cluster.members = cluster.members, cluster.members[:1]
    await cluster.start()
    try:
        first = await cluster.leader()
        await first.propose(submit(0))
        cluster.members = everybody
        await cluster.start("m2", "m3", join=True)
        await add(first, cluster, "m2", "m3")
        await until(lambda: voters(first) == ["m1", "m2", "m3"])
        await first.propose(RemoveManager("m1", "test"))
        others = [cluster.nodes["m2"], cluster.nodes["m3"]]
        await until(lambda: all(voters(node) == ["m2", "m3"] for node in others))
        await until(lambda: first.status.role == "removed")
        assert isinstance(await others[0].propose(submit(1)), JobAccepted)
        await cluster.stop("m2", "m3")
        await cluster.start("m2", "m3")  # who is a member stands in their logs, not in their files
        await until(lambda: all(len(node.state.jobs) == 2 for node in (cluster.nodes["m2"], cluster.nodes["m3"])))
        assert isinstance(await (cluster.nodes["m2"]).propose(submit(2)), JobAccepted)
    finally:
        await cluster.stop()


def test_a_leader_that_has_not_applied_all_yet_changes_no_members(simulate):  # noqa: F811
    """It begins with the state of its snapshot, in which the manager that was added since is not wanted yet."""
    tuning = msgspec.structs.replace(TUNING, apply_slice_s=-1.0)  # an entry a turn
    simulation = simulate(1, size=3, spare=1, tuning=tuning)
    simulation.run(3, simulation.leader)
    for _ in range(tuning.snapshot_entries + 10):
        simulation.submit("m1")
        simulation.run(0.05)
    assert all(simulation.nodes[name].core.snapshot_index for name in ("m1", "m2", "m3"))
    everybody = ["m1", "m2", "m3", "m4"]
    simulation.want(*everybody)
    assert simulation.run(20, lambda: simulation.voters() == everybody)
    changes = simulation.world.logged["members_change"]
    for node in simulation.nodes.values():
        node.cut_power()
    for node in simulation.nodes.values():
        node.start()
    simulation.settle()
    assert simulation.voters() == everybody
    assert simulation.world.logged["members_change"] == changes
