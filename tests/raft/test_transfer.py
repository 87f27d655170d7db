"""Leadership is handed over: at once, to whom it was meant for, and without a proposal lost or wrongly reported."""

from __future__ import annotations

import asyncio
import os
from itertools import permutations

import pytest
from raft_bench import Bench
from raft_cluster import running, submissions, submit, until

from hasched.model.errors import NoLeader, OutcomeUnknown, TransferFailed
from hasched.raft.messages import Append, PreVote, RequestVote, StandNow
from hasched.statemachine.outcomes import JobAccepted
from tests.simulation.scene import simulate  # noqa: F401 (a fixture)

SEEDS = range(
    int(os.environ.get("HASCHED_SEED", "1")),
    int(os.environ.get("HASCHED_SEED", "1")) + int(os.environ.get("HASCHED_SEEDS", "6")),
)


@pytest.mark.parametrize("asked", ["the leader", "the target", "the third"])
async def test_the_target_leads_whoever_was_asked(tmp_path, asked):
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        target, third = await cluster.followers()
        term = leader.term
        await until(lambda: third.leader is not None and target.leader is not None)
        via = {"the leader": leader, "the target": target, "the third": third}[asked]
        assert await via.transfer(target.manager_id) == target.manager_id
        await until(lambda: target.is_leader)
        assert target.term == term + 1  # one election, won at once


async def test_without_a_target_the_best_takes_over(tmp_path):
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        await leader.propose(submit(1))
        successor = await leader.transfer(None)
        assert successor != leader.manager_id
        assert await cluster.nodes[successor].read_barrier() > 0


async def test_proposals_that_are_under_way_all_succeed(tmp_path):
    """What the old leader has taken is committed by the new one; what waited is forwarded."""
    async with running(tmp_path) as cluster:
        for round_ in range(5):
            leader = await cluster.leader()
            target = (await cluster.followers())[0]
            numbers = [range(1000 * round_ + 100 * part, 1000 * round_ + 100 * part + 100) for part in range(5)]
            proposing = [
                asyncio.create_task(leader.propose_many([submit(number) for number in part])) for part in numbers
            ]
            await asyncio.sleep(0)
            assert await leader.transfer(target.manager_id) == target.manager_id
            for outcomes in await asyncio.gather(*proposing):
                assert all(isinstance(outcome, JobAccepted) and not outcome.duplicate for outcome in outcomes)
        assert len(set(submissions(leader))) == len(submissions(leader)) == 2500


async def test_a_manager_that_is_down_is_no_target_and_the_leader_goes_on(tmp_path):
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        target, other = await cluster.followers()
        await cluster.stop(target.manager_id)
        with pytest.raises(TransferFailed, match="did not take over"):
            await leader.transfer(target.manager_id)
        with pytest.raises(TransferFailed, match="did not take over"):
            await other.transfer(target.manager_id)
        assert leader.is_leader
        assert isinstance(await leader.propose(submit(1)), JobAccepted)


async def test_a_stranger_is_no_target(tmp_path):
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        with pytest.raises(TransferFailed, match="'m9' is not a manager"):
            await leader.transfer("m9")
        assert await leader.transfer(leader.manager_id) == leader.manager_id


async def test_a_leader_that_is_stopped_hands_over_first(tmp_path):
    """Nobody has to notice that it is gone: the next one leads before it has closed its connections."""
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        others = await cluster.followers()
        term = leader.term
        await cluster.stop(leader.manager_id)
        successors = [node for node in others if node.is_leader]
        assert [node.term for node in successors] == [term + 1]


async def test_the_last_manager_stops_without_an_heir(tmp_path):
    async with running(tmp_path, ("m1",)) as cluster:
        await cluster.leader()
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        for node in await cluster.followers():
            await cluster.stop(node.manager_id)
        proposing = asyncio.create_task(leader.propose(submit(1)))
        await cluster.stop(leader.manager_id)
        with pytest.raises((OutcomeUnknown, NoLeader)):  # whether it stood in the log before the leader stepped down
            await proposing
        with pytest.raises(NoLeader):
            await leader.transfer(None)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return Bench(tmp_path, monkeypatch)


def test_who_is_told_to_stand_asks_for_votes_without_a_pre_vote(bench):
    bench.follow(term=3)
    sent = [message for _, message in bench.hear("m2", StandNow(3))]
    assert [message for message in sent if isinstance(message, RequestVote)] == [RequestVote(4, 6, 3)] * 2
    assert not [message for message in sent if isinstance(message, PreVote)]


@pytest.mark.parametrize(
    ("sender", "term"),
    [
        pytest.param("m3", 3, id="by one who doesn't lead"),
        pytest.param("m2", 2, id="by the leader of an older term"),
    ],
)
def test_nobody_stands_when_told(bench, sender, term):
    bench.follow(term=3)
    bench.hear(sender, StandNow(term))
    assert bench.engine.term == 3


def test_a_heartbeat_that_follows_doesn_t_stop_the_election(bench):
    bench.follow(term=3)
    bench.engine.receive("m2", StandNow(3))
    bench.hear("m2", Append(3, 1, 6, 3, [], 9))
    assert (bench.engine.role, bench.engine.term) == ("candidate", 4)


def test_a_disk_that_was_wiped_doesn_t_stand_when_told(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, voter=False)
    bench.follow(term=3)
    bench.hear("m2", StandNow(3))
    assert bench.engine.term == 3


@pytest.mark.parametrize("seed", SEEDS)
def test_leadership_goes_round_under_faults_and_nothing_is_lost(simulate, seed):  # noqa: F811
    simulation = simulate(seed, size=3, max_delay=0.02)
    random = simulation.random
    for _ in range(150):
        name = random.choice(simulation.names)
        if random.random() < 0.3:
            simulation.transfer(name, random.choice([*simulation.names, None]))
        if random.random() < 0.1:
            node = simulation.nodes[random.choice(simulation.names)]
            if node.alive:
                node.cut_power()
                simulation.after(random.uniform(0.01, 1.0), node.start)
        if random.random() < 0.05:
            pairs = list(permutations(simulation.names, 2))
            simulation.partition(*random.sample(pairs, 2))
            simulation.after(random.uniform(0.1, 1.0), simulation.heal)
        for _ in range(random.randrange(5)):
            simulation.submit(random.choice(simulation.names))
        simulation.run(random.choice((0.01, 0.1, 0.3)))
    simulation.settle()
    assert simulation.transferred > 5
