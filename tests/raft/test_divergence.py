"""Divergence: a manager whose state went wrong is found, goes out of service, and comes back with the right one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import Random

import msgspec
import pytest
from raft_cluster import CLUSTER, FAST, running, submissions, submit, until

from hasched.model.errors import NoLeader
from hasched.raft.divergence import Check, Digests, Divergence, Report, StateDiverged, judge
from hasched.raft.identity import DataDirectory
from hasched.raft.node import ReplicaNode
from hasched.raft.tuning import Tuning
from hasched.statemachine import snapshot
from hasched.statemachine.digest import digest
from tests.simulation.scene import TUNING, Scene, simulate  # noqa: F401 (a fixture)
from tests.statemachine.life import live
from tests.statemachine.machine import Machine

RIGHT, WRONG, OTHER = Report("s", "right", True), Report("s", "wrong", True), Report("newer", "right in its way", True)
BLANK = msgspec.structs.replace(RIGHT, voter=False)
THREE = ["m1", "m2", "m3"]
EAGER = msgspec.structs.replace(FAST, check_entries=20, check_timeout_s=3.0)


# --- the verdict ---


@pytest.mark.parametrize(
    ("reports", "agreed", "differing", "silent"),
    [
        pytest.param({"m1": RIGHT, "m2": RIGHT, "m3": RIGHT}, RIGHT, [], [], id="all the same"),
        pytest.param({"m1": RIGHT, "m2": WRONG, "m3": RIGHT}, RIGHT, ["m2"], [], id="one is outvoted"),
        pytest.param({"m1": RIGHT, "m3": RIGHT}, RIGHT, [], ["m2"], id="a majority of those that there are"),
        pytest.param({"m1": RIGHT, "m2": WRONG}, None, ["m1", "m2"], ["m3"], id="two of three that differ"),
        pytest.param({"m1": RIGHT}, None, [], ["m2", "m3"], id="one alone says nothing"),
        pytest.param({"m1": RIGHT, "m2": OTHER, "m3": RIGHT}, RIGHT, [], [], id="another release can't be compared"),
        pytest.param({"m1": RIGHT, "m2": OTHER}, None, [], ["m3"], id="nor does it differ"),
        pytest.param({"m1": RIGHT, "m2": RIGHT, "l1": WRONG}, RIGHT, ["l1"], ["m3"], id="a learner may be wrong"),
        pytest.param({"m1": BLANK, "m2": BLANK, "m3": WRONG}, None, THREE, [], id="nor are those without a vote"),
        pytest.param({"m1": RIGHT, "l1": RIGHT, "l2": RIGHT}, None, [], ["m2", "m3"], id="learners are no majority"),
    ],
)
def test_a_majority_of_the_voters_is_right(reports, agreed, differing, silent):
    verdict = judge(Digests(7, 0, THREE, reports))
    assert (verdict.agreed, verdict.differing, verdict.silent) == (agreed, differing, silent)


# --- the bookkeeping ---


def books(last_index: int = 100, **changes: object) -> Divergence:
    return Divergence("m1", Tuning(check_entries=50, check_timeout_s=5.0, **changes), last_index)


def test_a_check_is_due_after_so_many_entries_and_never_for_none():
    checks = books(last_index=100)
    assert not checks.due(149)
    assert checks.due(150)
    checks.begin(151, now=0)
    assert not checks.due(1000)
    assert checks.finish(THREE, [], 0, now=0) is not None
    assert not checks.due(200)
    assert checks.due(201)


def test_one_that_another_leader_left_unfinished_is_made_anew_at_once():
    checks = books()
    checks.reached(110)
    assert checks.due(111)
    checks.heard(Digests(110, 0, THREE, {}))
    assert not checks.due(112)


def test_the_leader_waits_for_all_that_it_can_reach_but_not_for_ever():
    checks = books()
    checks.begin(110, now=10)
    checks.take("m1", 110, RIGHT)
    checks.take("m2", 109, RIGHT)
    assert checks.finish(THREE, ["m1", "m2"], 0, now=14.9) is None
    assert checks.finish(THREE, ["m1", "m2"], 8, now=15) == Digests(110, 8, THREE, {"m1": RIGHT})
    checks.begin(120, now=20)
    checks.take("m1", 120, RIGHT)
    checks.take("m2", 120, WRONG)
    assert checks.finish(THREE, ["m1", "m2"], 9, now=20) == Digests(120, 9, THREE, {"m1": RIGHT, "m2": WRONG})


def test_who_was_wrong_is_looked_at_again_once_it_can_be_and_is_a_suspect_until_then():
    checks = books()
    checks.reached(110)
    checks.heard(Digests(110, 0, THREE, {"m1": RIGHT, "m2": RIGHT, "m3": WRONG, "m4": WRONG}))
    assert checks.outstanding == list(checks.suspects) == ["m3", "m4"]
    checks.begin(120, now=2.0)
    assert (checks.outstanding, list(checks.suspects)) == ([], ["m3", "m4"])
    checks.heard(Digests(120, 0, THREE, {"m1": RIGHT, "m2": RIGHT, "m3": RIGHT}))
    assert checks.outstanding == list(checks.suspects) == ["m4"], "its silence says nothing"
    checks.heard(Digests(130, 0, THREE, {"m1": RIGHT, "m2": RIGHT, "m3": RIGHT, "m4": RIGHT}))
    assert checks.outstanding == list(checks.suspects) == []


def test_a_leader_that_is_deposed_forgets_its_check():
    checks = books()
    checks.begin(110, now=0)
    checks.leave_office()
    assert checks.finish(THREE, [], 0, now=100) is None


@pytest.mark.parametrize("late", [False, True], ids=["the digest is first", "the verdict is first"])
def test_who_is_outvoted_goes_whether_its_digest_was_in_time_or_not(late):
    checks = books()
    verdict = Digests(110, 0, THREE, {"m2": RIGHT, "m3": RIGHT})
    steps = [lambda: checks.computed(110, WRONG), lambda: checks.heard(verdict)]
    first, last = reversed(steps) if late else steps
    first()
    with pytest.raises(StateDiverged) as stopped:
        last()
    assert (stopped.value.code, stopped.value.index) == ("state_diverged", 110)
    assert "diverged-110" in stopped.value.hint


def test_what_other_checks_or_releases_say_is_no_reason_to_go():
    checks = books()
    checks.computed(120, WRONG)
    checks.heard(Digests(110, 0, THREE, {"m2": RIGHT, "m3": RIGHT}))
    checks.computed(110, OTHER)


def test_a_difference_without_a_majority_is_looked_at_again_with_those_who_were_silent():
    checks = books()
    checks.begin(110, now=1.0)
    checks.reached(110)
    checks.heard(Digests(110, 0, THREE, {"m1": RIGHT, "m2": WRONG}))
    assert checks.outstanding == ["m3"]
    checks.begin(120, now=2.0)
    assert checks.outstanding == []
    checks.heard(Digests(120, 0, THREE, {"m1": RIGHT, "m3": RIGHT}))
    assert checks.outstanding == []


def test_what_was_in_the_log_at_the_start_is_not_checked_again():
    checks = books(last_index=100)
    assert not checks.reached(100)
    assert checks.reached(101)


def test_who_asks_is_told_the_next_check_or_that_there_is_none():
    checks, told = books(), []
    checks.ask(0, told.append)
    assert checks.request_to("m2", 1)
    assert not checks.request_to("m2", 1)
    checks.lost_link("m2")
    assert checks.request_to("m2", 1)
    assert checks.request_to("m3", 2)
    checks.reached(110)
    assert told == [110]
    assert not checks.request_to("m3", 3)
    checks.ask(0, told.append)
    checks.expire(1000)
    assert isinstance(told[1], NoLeader)


# --- the data directory ---


def fill(path, index: int) -> None:
    for name in ("journal", "snapshots"):
        (path / name).mkdir(exist_ok=True)
        for number in (1, 2):
            (path / name / f"{index}-{number}").write_text("content")


def test_a_fenced_directory_sets_its_log_aside_and_has_no_vote(tmp_path):
    for number, index in enumerate((300, 500, 500)):
        directory = open_directory(tmp_path)
        directory.become_voter()
        fill(tmp_path, number)
        directory.fence(index)
        directory.release()
        identity = reopen(tmp_path).identity
        assert (identity.voter, identity.fenced, identity.rebuilding) == (False, 0, True)
        assert not list((tmp_path / "journal").iterdir())
        assert not list((tmp_path / "snapshots").iterdir())
    assert [path.name for path in tmp_path.glob("diverged-*")] == ["diverged-500"]
    kept = [str(path.relative_to(tmp_path / "diverged-500")) for path in (tmp_path / "diverged-500").rglob("*-*")]
    assert sorted(kept) == ["journal/2-1", "journal/2-2", "snapshots/2-1", "snapshots/2-2"]


def test_a_start_that_was_cut_short_is_repeated(tmp_path):
    directory = open_directory(tmp_path)
    fill(tmp_path, 1)
    directory.fence(300)
    directory.release()
    (tmp_path / "diverged-300" / "journal").mkdir(parents=True)
    (tmp_path / "journal" / "1-1").rename(tmp_path / "diverged-300" / "journal" / "1-1")
    assert reopen(tmp_path).identity.rebuilding
    assert len(list((tmp_path / "diverged-300").rglob("1-*"))) == 4


def open_directory(path) -> DataDirectory:
    return DataDirectory(path, CLUSTER, "m1", alone=False)


def reopen(path) -> DataDirectory:
    directory = open_directory(path)
    directory.release()
    return directory


# --- managers ---


async def test_managers_that_agree_say_so_whoever_is_asked(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.leader()
        for node in list(cluster.nodes.values()):
            await node.propose(submit(1))
            index = await node.check()
            await until_judged(list(cluster.nodes.values()), index)
            for each in cluster.nodes.values():
                verdict = each.status.verdict
                assert (verdict.index, verdict.differing, verdict.silent) == (index, [], [])
                assert verdict.agreed is not None


async def test_checks_come_with_the_entries_and_an_idle_cluster_writes_none(tmp_path):
    async with running(tmp_path, tuning=EAGER) as cluster:
        leader = await cluster.leader()
        for number in range(EAGER.check_entries + 1):
            await leader.propose(submit(number))
        await until_judged(list(cluster.nodes.values()), 1)
        rounds = leader._core.engine.round
        last = leader.status.last_index
        await until(lambda: leader._core.engine.round > rounds + 10)
        assert leader.status.last_index == last


def flip_a_name(node: ReplicaNode) -> None:
    node.state.jobs[1].name = "joc-1"


def flip_a_phase(node: ReplicaNode) -> None:
    node.state.jobs[2].phases[0] ^= 1


def flip_a_counter(node: ReplicaNode) -> None:
    """What a snapshot leaves out, since it can be computed."""
    node.state.task_counts[0] += 64


@pytest.mark.parametrize("flip", [flip_a_name, flip_a_phase, flip_a_counter])
@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
async def test_a_manager_with_a_flipped_bit_is_stopped_and_filled_again(tmp_path, leads, flip):
    async with running(tmp_path, tuning=EAGER) as cluster:
        leader = await cluster.leader()
        await until_all_vote(cluster.nodes.values())
        for number in range(5):
            await leader.propose(submit(number))
        broken = leader if leads else (await cluster.followers())[0]
        name = broken.manager_id
        others = [node for node in cluster.nodes.values() if node is not broken]
        await asyncio.gather(*(node.wait_for(leader.applied_index) for node in cluster.nodes.values()))
        flip(broken)
        index = await others[0].check()
        with pytest.raises(StateDiverged, match=f"{name} at entry {index} "):
            await broken.wait_failed()
        await until_judged(others, index)
        assert all(node.status.verdict.differing == [name] for node in others)

        await cluster.stop(name)
        await cluster.start(name)
        rebuilt = cluster.nodes[name]
        assert (tmp_path / name / f"diverged-{index}" / "journal").is_dir()
        await until_all_vote([rebuilt])
        await (await cluster.leader()).propose(submit(99))
        again = await rebuilt.check()
        await until_judged(list(cluster.nodes.values()), again)
        assert rebuilt.status.verdict.differing == rebuilt.status.verdict.silent == []
        assert len({digest(node.state) for node in cluster.nodes.values()}) == 1
        assert submissions(rebuilt) == [f"submission-{number}" for number in (0, 1, 2, 3, 4, 99)]


async def test_two_of_three_that_differ_raise_the_alarm_and_go_on(tmp_path):
    async with running(tmp_path, tuning=EAGER) as cluster:
        leader = await cluster.leader()
        await until_all_vote(cluster.nodes.values())
        await leader.propose(submit(1))
        down, broken = await cluster.followers()
        await broken.wait_for(leader.applied_index)
        await cluster.stop(down.manager_id)
        flip_a_name(broken)
        index = await leader.check()
        await until_judged([leader, broken], index)
        for node in (leader, broken):
            verdict = node.status.verdict
            assert verdict.agreed is None
            assert verdict.differing == sorted([leader.manager_id, broken.manager_id])
            assert verdict.silent == [down.manager_id]
            assert (await node.propose(submit(2))).job_id == 2


async def until_all_vote(nodes: Iterable[ReplicaNode]) -> None:
    await until(lambda: all(node._core.engine.voter for node in nodes))


async def until_judged(nodes: list[ReplicaNode], index: int) -> None:
    await until(lambda: all((v := node.status.verdict) is not None and v.index >= index for node in nodes))


# --- under faults ---


@pytest.mark.parametrize("seed", range(2, 10))
def test_a_flipped_bit_is_found_and_mended_under_faults(simulate, seed):  # noqa: F811
    """Enough log is retained that only the broken one is ever sent a snapshot: a leader's wrong state must not spread by it."""
    simulation = simulate(seed, tuning=msgspec.structs.replace(TUNING, retained_bytes=50_000))
    random = simulation.random
    for _ in range(5):
        assert work(simulation, 60, lambda: whole(simulation)), "the managers are never whole"
        broken = random.choice(list(simulation.nodes.values()))
        fenced = broken.fenced
        broken.flip_state()

        def disturbed(broken=broken, fenced=fenced) -> bool:
            """Others may die and come back meanwhile; a restart of the broken one might mend it from its own disk."""
            node = random.choice(list(simulation.nodes.values()))
            if node is not broken and node.alive and random.random() < 0.05:
                node.cut_power()
                simulation.after(random.uniform(0.01, 0.5), node.start)
            return broken.fenced > fenced

        assert work(simulation, 60, disturbed), "it was never found"
    simulation.settle()
    assert len(simulation.verdicts) > 10
    assert simulation.installed >= 1
    assert sum(node.fenced for node in simulation.nodes.values()) == 5


def work(simulation: Scene, seconds: float, done) -> bool:
    end = simulation.now + seconds
    while simulation.now < end:
        simulation.submit(simulation.random.choice(simulation.names))
        simulation.run(0.02)
        if done():
            return True
    return False


def whole(simulation: Scene) -> bool:
    return simulation.leader() is not None and all(
        node.alive and node.has_vote and node.core.state.jobs for node in simulation.nodes.values()
    )


def test_managers_that_were_all_fenced_never_form_a_cluster_without_memory(simulate):  # noqa: F811
    simulation = simulate(1)
    assert work(simulation, 30, lambda: whole(simulation))
    for node in simulation.nodes.values():
        node.replica._directory.fence(50)
        node.cut_power()
    for node in simulation.nodes.values():
        node.start()
    simulation.run(60)
    assert simulation.leader() is None
    assert all(node.core.engine.last_index == 1 for node in simulation.nodes.values())


def test_one_that_was_fenced_founds_no_cluster_with_two_whose_disks_were_lost(simulate):  # noqa: F811
    simulation = simulate(2)
    assert work(simulation, 30, lambda: whole(simulation))
    fenced, *lost = simulation.nodes.values()
    fenced.replica._directory.fence(50)
    fenced.cut_power()
    for node in lost:
        simulation.wipe(node)
    for node in simulation.nodes.values():
        node.start()
    simulation.run(60)
    assert simulation.leader() is None
    assert not any(node.has_vote for node in simulation.nodes.values())


@pytest.mark.parametrize("seed", range(3))
def test_a_digest_is_of_the_state_at_its_entry_whatever_is_applied_meanwhile(seed, monkeypatch):
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 1500)
    machine = Machine()
    live(machine, Random(seed), 300)
    at_once, later = Check(machine.state.index, machine.state), Check(machine.state.index, machine.state)
    right = compute(at_once, lambda: None)
    assert compute(later, lambda: live(machine, Random(seed), 12)) == right
    assert compute(Check(machine.state.index, machine.state), lambda: None) != right
    assert machine.state.savers == []


@pytest.mark.parametrize("seed", range(3))
def test_a_manager_that_was_filled_from_a_snapshot_has_the_same_digest(seed):
    """Whatever way a state was reached leaves no trace, also in the sums that a snapshot doesn't hold."""
    machine = Machine()
    live(machine, Random(seed), 300)
    captured = snapshot.capture(machine.state)
    filled = snapshot.restore(iter(captured.next_chunk, None))
    assert compute(Check(1, filled), lambda: None) == compute(Check(1, machine.state), lambda: None)


def compute(check: Check, meanwhile) -> str:
    while (chunk := check.captured.next_chunk()) is not None:
        check.digester.add(chunk)
        meanwhile()
    return check.digester.finish()
