"""A cluster's origin: drawn by its first leader, the same on every manager, and never another one."""

from __future__ import annotations

from raft_cluster import running, submissions, submit, until

from hasched.raft.core import Core


async def test_the_first_leader_draws_it_and_every_manager_has_it(tmp_path):
    origins = []
    for place in ("one", "another"):
        (tmp_path / place).mkdir()
        async with running(tmp_path / place) as cluster:
            leader = await cluster.leader()
            for node in cluster.nodes.values():
                await node.wait_for(leader.applied_index)
                assert node.state.origin == leader.state.origin
            origins.append(leader.state.origin)
    assert all(len(origin) == 32 for origin in origins)
    assert origins[0] != origins[1]


async def test_no_later_leader_changes_it(tmp_path):
    async with running(tmp_path) as cluster:
        origin = (await cluster.leader()).state.origin
        leader = await cluster.leader()
        other = (await cluster.followers())[0].manager_id
        await leader.transfer(other)
        await until(lambda: cluster.nodes[other].is_leader)
        await cluster.nodes[other].propose(submit(1))
        names = list(cluster.nodes)
        for name in names:
            await cluster.stop(name)
        for name in names:
            await cluster.start(name)
        leader = await cluster.leader()
        assert submissions(leader) == ["submission-1"]
        assert leader.state.origin == origin


async def test_a_cluster_of_a_version_that_drew_none_gets_one(tmp_path, monkeypatch):
    async with running(tmp_path, ("m1",)) as cluster:
        with monkeypatch.context() as before:
            before.setattr(Core, "_record_origin", lambda _: None)
            await cluster.stop("m1")
            (tmp_path / "m1").rename(tmp_path / "unused")
            await cluster.start("m1")
            node = await cluster.leader()
            await node.propose(submit(1))
            assert node.state.origin == ""
            await cluster.stop("m1")
        await cluster.start("m1")
        node = await cluster.leader()
        await until(lambda: node.state.origin)
        assert submissions(node) == ["submission-1"]
