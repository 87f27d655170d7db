"""What a manager may rely on: `Replica`, with one member and with three."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess

import msgspec
import pytest
from raft_cluster import FAST, partitioned, running, submissions, submit, until

from hasched.model.errors import BodyTooLarge, NoLeader, OutcomeUnknown, Overloaded, StorageFailed
from hasched.raft.node import open_replica
from hasched.raft.replica import Member
from hasched.statemachine.commands import BATCH_VERSION
from hasched.statemachine.digest import digest


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


async def test_any_manager_takes_proposals_and_has_applied_them_when_it_answers(tmp_path):
    async with running(tmp_path) as cluster:
        for node in await cluster.followers():
            outcomes = await node.propose_many([submit(n) for n in range(5)])
            assert {outcome.job_id for outcome in outcomes} <= set(node.state.jobs)
            assert (await node.propose(submit(3))).duplicate
            await cluster.leader()


async def test_a_read_on_any_manager_shows_what_was_committed_before_it_began(tmp_path):
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        for number in range(30):
            outcome = await leader.propose(submit(number))
            for node in cluster.nodes.values():
                await node.read_barrier()
                assert outcome.job_id in node.state.jobs


async def test_proposals_of_many_commands_are_spread_over_entries_and_come_back_in_order(tmp_path):
    tuning = msgspec.structs.replace(FAST, max_entry_commands=7, max_entry_bytes=4000)
    async with running(tmp_path, tuning=tuning) as cluster:
        for node in [await cluster.leader(), *await cluster.followers()]:
            commands = [submit(n) for n in range(100)]
            outcomes = await node.propose_many(commands)
            ids = [node.state.jobs[outcome.job_id].submission_id for outcome in outcomes]
            assert ids == [command.submission_id for command in commands]


async def test_19_a_command_that_fits_in_no_entry_is_refused(tmp_path):
    tuning = msgspec.structs.replace(FAST, max_entry_bytes=1000)
    async with running(tmp_path, ("m1",), tuning) as cluster:
        node = await cluster.leader()
        with pytest.raises(BodyTooLarge):
            await node.propose(submit(1, size=2000))
        assert submissions(node) == []


async def test_more_proposals_than_the_queue_holds_are_refused(tmp_path):
    tuning = msgspec.structs.replace(FAST, queue_commands=10)
    async with running(tmp_path, ("m1",), tuning) as cluster:
        node = await cluster.leader()
        results = await asyncio.gather(*(node.propose(submit(n)) for n in range(50)), return_exceptions=True)
        refused = [n for n, result in enumerate(results) if isinstance(result, Overloaded)]
        assert len(refused) == 40
        assert len(submissions(node)) == 10


async def test_without_a_majority_proposals_and_reads_say_so(tmp_path):
    tuning = msgspec.structs.replace(FAST, leader_wait_s=0.3)
    async with running(tmp_path, tuning=tuning) as cluster:
        leader = await cluster.leader()
        await cluster.stop(*[node.manager_id for node in await cluster.followers()])
        await until(lambda: not leader.is_leader)
        with pytest.raises(NoLeader):
            await leader.propose(submit(1))
        with pytest.raises(NoLeader):
            await leader.read_barrier()


async def test_what_was_proposed_and_not_committed_in_time_is_unknown(tmp_path):
    tuning = msgspec.structs.replace(FAST, proposal_timeout_s=0.5)
    async with partitioned(tmp_path, tuning) as cluster:
        leader = await cluster.leader()
        cluster.isolate(leader.manager_id)
        with pytest.raises(OutcomeUnknown):
            await leader.propose(submit(1))


async def test_a_deposed_leader_answers_no_read(tmp_path):
    """It is cut off without noticing: to itself it leads, but the round of heartbeats is never answered."""
    tuning = msgspec.structs.replace(FAST, leader_wait_s=0.5)
    async with partitioned(tmp_path, tuning) as cluster:
        deposed = await cluster.leader()
        cluster.isolate(deposed.manager_id)
        assert deposed.is_leader
        with pytest.raises(NoLeader):
            await deposed.read_barrier()
        others = [node for node in cluster.nodes.values() if node is not deposed]
        await until(lambda: any(node.is_leader for node in others))
        outcome = await others[0].propose(submit(1))
        assert outcome.job_id not in deposed.state.jobs
        cluster.heal()
        await until(lambda: outcome.job_id in deposed.state.jobs)


async def test_12_a_manager_that_was_cut_off_deposes_nobody_when_it_comes_back(tmp_path):
    async with partitioned(tmp_path, FAST) as cluster:
        leader = await cluster.leader()
        term = leader.term
        cut_off = (await cluster.followers())[0]
        cluster.isolate(cut_off.manager_id)
        await until(lambda: cut_off.status.role != "leader" and cut_off.leader is None, timeout=10)
        outcome = await leader.propose(submit(1))
        cluster.heal()
        await until(lambda: outcome.job_id in cut_off.state.jobs)
        assert (leader.is_leader, leader.term) == (True, term)


SNAPPY = msgspec.structs.replace(
    FAST, snapshot_entries=20, retained_bytes=0, segment_bytes=4000, chunk_bytes=1000, max_entry_commands=1
)


async def propose_one_by_one(node, first, last):
    for number in range(first, last + 1):
        await node.propose(submit(number))


async def test_a_restart_from_snapshot_and_log_remembers_everything(tmp_path):
    async with running(tmp_path, ("m1",), SNAPPY) as cluster:
        node = await cluster.leader()
        await propose_one_by_one(node, 1, 90)
        await until(lambda: snapshots_of(cluster, "m1") != [])
        before = submissions(node)
        await cluster.stop("m1")
        await cluster.start("m1")
        node = await cluster.leader()
        assert submissions(node) == before
        assert node._journal[0].index > 1
        assert (await node.propose(submit(91))).job_id == 91


def snapshots_of(cluster, name):
    return sorted((cluster.root / name / "snapshots").glob("*.snap"))


async def test_a_follower_with_an_empty_disk_catches_up_by_snapshot(tmp_path):
    async with running(tmp_path, tuning=SNAPPY) as cluster:
        leader = await cluster.leader()
        lost = (await cluster.followers())[0].manager_id
        await cluster.stop(lost)
        shutil.rmtree(tmp_path / lost)
        await propose_one_by_one(leader, 1, 90)
        await until(lambda: leader._journal[0].index > 1)
        await cluster.start(lost)
        node = cluster.nodes[lost]
        await until(lambda: node.applied_index == leader.applied_index)
        assert digest(node.state) == digest(leader.state)
        assert snapshots_of(cluster, lost) != []
        await cluster.stop(lost)
        await cluster.start(lost)
        node = cluster.nodes[lost]
        await until(lambda: node.applied_index == leader.applied_index)
        assert digest(node.state) == digest(leader.state)


async def test_the_role_is_told_only_when_the_term_has_begun_for_good(tmp_path):
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        told = []
        for node in cluster.nodes.values():
            node.on_role_change(lambda leading, node=node: told.append((node.manager_id, leading, node.applied_index)))
        await cluster.stop(leader.manager_id)
        successor = await cluster.leader()
        await until(lambda: (successor.manager_id, True) in [change[:2] for change in told])
        assert (leader.manager_id, False) in [change[:2] for change in told]
        assert all(index >= successor._core.engine.first_own_index for _, leading, index in told if leading)


async def test_subscribers_see_every_entry_once_and_in_order(tmp_path):
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        node = (await cluster.followers())[0]
        seen = []
        unsubscribe = node.subscribe(lambda applied: seen.append(applied.index))
        await asyncio.gather(*(leader.propose(submit(n)) for n in range(50)))
        await node.wait_for(leader.applied_index)
        assert seen == list(range(seen[0], leader.applied_index + 1))
        unsubscribe()
        await leader.propose(submit(99))
        await node.wait_for(leader.applied_index)
        assert len(seen) == len(set(seen)) < leader.applied_index


async def test_a_data_directory_has_one_owner(tmp_path):
    async with running(tmp_path, ("m1",)) as cluster:
        await cluster.leader()
        with pytest.raises(StorageFailed, match="in use"):
            open_replica(cluster.config("m1"))
        await cluster.stop("m1")
        for changes in (
            {"cluster_id": "other"},
            {"manager_id": "m2", "members": [cluster.members[0], other_member("m2")]},
        ):
            with pytest.raises(StorageFailed, match="belongs to"):
                open_replica(cluster.config("m1", **changes))
        (tmp_path / "m1" / "identity.json").unlink()
        with pytest.raises(StorageFailed, match="holds files"):
            open_replica(cluster.config("m1"))


def other_member(name):
    return Member(name, "https://127.0.0.1:1", "127.0.0.1:2")


def later_batch(version, *commands):
    return msgspec.msgpack.encode({"v": version, "now_ms": 1, "commands": commands})


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        pytest.param(b"\x63what is this", "kind 99", id="a kind that isn't known"),
        pytest.param(
            b"\x00" + later_batch(1, {"type": "paint_job_blue"}), "paint_job_blue", id="a command that isn't known"
        ),
        pytest.param(
            b"\x00" + later_batch(BATCH_VERSION + 1), f"version {BATCH_VERSION + 1}", id="a later version of batches"
        ),
    ],
)
async def test_15_an_entry_of_a_later_version_stops_the_manager_and_says_so(tmp_path, entry, says):
    """It also stands for a state machine that fails."""
    async with running(tmp_path, ("m1",)) as cluster:
        node = await cluster.leader()
        node._journal.add(entry, node._journal[-1].index + 1, node.term)
        proposal = asyncio.create_task(node.propose(submit(1)))
        with pytest.raises(StorageFailed, match=says):
            await node.wait_failed()
        for waiting in (proposal, node.propose(submit(2))):
            with pytest.raises(NoLeader):
                await waiting
        assert not node.is_leader


async def test_a_subscriber_that_fails_harms_nobody_else(tmp_path):
    async with running(tmp_path, ("m1",)) as cluster:
        node = await cluster.leader()
        reported, seen = [], []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
        node.subscribe(lambda applied: 1 // 0)
        node.subscribe(lambda applied: seen.append(applied.index))
        await node.propose(submit(1))
        assert seen == [node.applied_index]
        assert [type(error) for error in reported] == [ZeroDivisionError]


async def test_a_manager_whose_disk_is_full_refuses_and_leaves_the_lead_to_others(tmp_path):
    """Its journal is on 256 KiB of tmpfs. What the others accept meanwhile it learns once there is room."""
    disk = tmp_path / "m1"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"can't mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        async with running(tmp_path) as cluster:
            leader = await cluster.leader()
            ballast = disk / "journal" / "ballast"
            ballast.write_bytes(bytes(200_000))
            others = [cluster.nodes[name] for name in ("m2", "m3")]
            accepted = []
            for number in range(20):
                for node in others:
                    with contextlib.suppress(NoLeader, OutcomeUnknown):
                        accepted.append((await node.propose(submit(number, size=10_000))).job_id)
            with pytest.raises(StorageFailed):
                await cluster.nodes["m1"].propose(submit(99))
            leader = await cluster.leader()
            assert leader.manager_id != "m1"
            ballast.unlink()
            subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
            await until(lambda: set(accepted) <= set(cluster.nodes["m1"].state.jobs))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
