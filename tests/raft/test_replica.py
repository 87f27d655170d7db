"""What a manager may rely on: `Replica`, with one member and with three."""

from __future__ import annotations

import asyncio

from raft_cluster import running, submissions, submit


async def test_a_single_manager_commits_and_remembers(tmp_path):
    async with running(tmp_path, ("m1",)) as cluster:
        node = await cluster.leader()
        outcome = await node.propose(submit(1))
        assert outcome.job_id == 1
        await cluster.stop("m1")
        await cluster.start("m1")
        node = await cluster.leader()
        assert submissions(node) == ["submission-1"]


async def test_three_managers_elect_a_leader_and_agree(tmp_path):
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        outcomes = await asyncio.gather(*(leader.propose(submit(n)) for n in range(100)))
        assert sorted(outcome.job_id for outcome in outcomes) == list(range(1, 101))
        for node in cluster.nodes.values():
            await node.wait_for(leader.applied_index)
            assert submissions(node) == submissions(leader)
