"""A cluster whose majority is lost goes on from one manager that is left, and the lost ones never mix with it."""

from __future__ import annotations

import shutil

import pytest
from raft_cluster import CLUSTER, Cluster, submissions, submit, until

from hasched.model.errors import RecoveryRefused, StorageFailed
from hasched.raft.identity import DataDirectory
from hasched.raft.journal import Journal
from hasched.raft.recovery import examine, recover
from hasched.statemachine.outcomes import JobAccepted


@pytest.fixture
async def stopped(tmp_path):
    """Three managers that have taken ten jobs, and are down."""
    cluster = Cluster(tmp_path)
    await cluster.start()
    leader = await cluster.leader()
    for number in range(10):
        await leader.propose(submit(number))
    await until(lambda: all(len(node.state.jobs) == 10 for node in cluster.nodes.values()))
    await cluster.stop()
    yield cluster
    await cluster.stop()


def data(cluster: Cluster, name: str):
    return cluster.root / name


def member(cluster: Cluster, name: str):
    return next(member for member in cluster.members if member.manager_id == name)


async def test_one_manager_goes_on_and_the_others_are_filled_again(stopped):
    recovered = recover(data(stopped, "m1"), CLUSTER, member(stopped, "m1"))
    assert recovered.lost == ("m2", "m3")
    await stopped.start("m1")
    alone = await stopped.leader()
    assert len(submissions(alone)) == 10
    assert isinstance(await alone.propose(submit(10)), JobAccepted)
    for name in ("m2", "m3"):
        shutil.rmtree(data(stopped, name))
    await stopped.start("m2", "m3")
    await until(
        lambda: all(each.voter and each.filled for each in alone.status.members) and len(alone.status.members) == 3
    )
    await until(lambda: all(len(node.state.jobs) == 11 for node in stopped.nodes.values()))
    await stopped.stop("m1")
    assert isinstance(await (await stopped.leader()).propose(submit(11)), JobAccepted)


async def test_a_manager_of_the_life_before_is_refused(stopped):
    recover(data(stopped, "m1"), CLUSTER, member(stopped, "m1"))
    shutil.rmtree(data(stopped, "m3"))
    await stopped.start()  # m2 with its old disk, m3 with an empty one
    await until(lambda: "m1" in stopped.nodes and stopped.nodes["m1"].is_leader)
    m1, m2, m3 = (stopped.nodes[name] for name in ("m1", "m2", "m3"))
    await until(lambda: [each.member.manager_id for each in m1.status.members if each.voter] == ["m1", "m3"])
    assert isinstance(await m1.propose(submit(10)), JobAccepted)
    await until(lambda: len(m3.state.jobs) == 11)
    assert len(m2.state.jobs) < 11
    assert not m1._transport.is_connected("m2")
    assert not m3._transport.is_connected("m2")
    assert m2.leader is None


async def test_a_recovery_that_was_cut_short_is_repeated(stopped):
    """The new life was written, and the new membership wasn't: nothing can elect itself in between."""
    directory = DataDirectory(data(stopped, "m1"), CLUSTER, "m1", alone=False)
    directory.begin_life("half-done")
    directory.release()
    await stopped.start()
    others = [stopped.nodes["m2"], stopped.nodes["m3"]]
    await until(lambda: any(node.is_leader for node in others))
    assert not stopped.nodes["m1"].is_leader
    await stopped.stop()
    again = recover(data(stopped, "m1"), CLUSTER, member(stopped, "m1"))
    assert again.incarnation != "half-done"
    await stopped.start("m1")
    assert len((await stopped.leader()).state.jobs) == 10


async def test_what_a_disk_holds_is_told_and_not_changed(stopped):
    before = examine(data(stopped, "m1"), CLUSTER, "m1")
    assert (before.complete, before.incarnation) == (True, "")
    assert [each.manager_id for each in before.members] == ["m1", "m2", "m3"]
    assert examine(data(stopped, "m1"), CLUSTER, "m1") == before
    recover(data(stopped, "m1"), CLUSTER, member(stopped, "m1"))
    after = examine(data(stopped, "m1"), CLUSTER, "m1")
    assert (after.last_index, after.last_term) == (before.last_index + 1, before.term + 1)
    assert [each.manager_id for each in after.members] == ["m1"]


async def test_a_disk_that_may_lack_something_needs_a_word_more(stopped):
    directory = DataDirectory(data(stopped, "m1"), CLUSTER, "m1", alone=False)
    directory._change(voter=False)
    directory.release()
    with pytest.raises(RecoveryRefused, match="wiped"):
        recover(data(stopped, "m1"), CLUSTER, member(stopped, "m1"))
    recover(data(stopped, "m1"), CLUSTER, member(stopped, "m1"), accept_incomplete=True)
    await stopped.start("m1")
    assert len((await stopped.leader()).state.jobs) == 10


async def test_what_is_no_ground_to_recover_from_is_left_as_it_is(stopped, tmp_path):
    with pytest.raises(RecoveryRefused, match="not the data directory"):
        recover(tmp_path / "nowhere", CLUSTER, member(stopped, "m1"))
    with pytest.raises(StorageFailed, match="belongs to"):
        recover(data(stopped, "m1"), "another", member(stopped, "m1"))
    directory = DataDirectory(data(stopped, "m2"), CLUSTER, "m2", alone=False)
    with pytest.raises(StorageFailed, match="in use"):
        recover(data(stopped, "m2"), CLUSTER, member(stopped, "m2"))
    directory.fence(5)
    directory.release()
    with pytest.raises(RecoveryRefused, match="gone wrong by entry 5"):
        recover(data(stopped, "m2"), CLUSTER, member(stopped, "m2"))
    blank = DataDirectory(tmp_path / "blank", CLUSTER, "m1", alone=False)
    Journal(blank.path / "journal", 1 << 20).close()
    blank.release()
    with pytest.raises(RecoveryRefused, match="holds nothing"):
        recover(blank.path, CLUSTER, member(stopped, "m1"))
    assert not (tmp_path / "nowhere").exists()
