"""Managers are added and removed while clients submit and managers die: real processes, and the real command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hasched.client.sync import Client
from tests.support.cluster import ProcessCluster, eventually
from tests.support.submitters import Submitters, find_violations

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path, agents=0) as cluster:
        cluster.start()
        cluster.wait_ready()
        eventually("every manager votes", lambda: all(map(cluster.has_vote, cluster.manager_names)))
        yield cluster


def add(cluster: ProcessCluster, name: str, *options: str) -> None:
    member = cluster.member(name)
    done = cluster.hasched("manager", "add", name, "--api", member["api"], "--raft", member["raft"], *options)
    assert done.returncode == 0, done.stderr


def remove(cluster: ProcessCluster, name: str) -> None:
    done = cluster.hasched("manager", "remove", name)
    assert done.returncode == 0, done.stderr


def crash(cluster: ProcessCluster, name: str) -> None:
    """SIGKILL, and a start with what is on its disk."""
    cluster.kill(name)
    cluster.start(name)


def says_it_was_removed(client: Client) -> bool:
    return any(manager.role == "removed" for manager in client.managers().managers)


def test_three_become_five_and_three_again_while_clients_submit_and_leaders_die(cluster: ProcessCluster) -> None:
    with Submitters(cluster) as submitters:
        submitters.more()
        cluster.add_manager("m4")
        cluster.start("m4")
        add(cluster, "m4")
        cluster.add_manager("m5")
        add(cluster, "m5", "--no-wait")  # wanted before it is started, and across the death of the leader
        crash(cluster, cluster.leader())
        cluster.start("m5")
        add(cluster, "m5")
        submitters.more()
        with cluster.client() as client:
            page = client.managers()
            assert [(manager.id, manager.membership) for manager in page.managers] == [
                (name, "voter") for name in ("m1", "m2", "m3", "m4", "m5")
            ]
        first, second = "m1", "m2"
        done = cluster.hasched("manager", "transfer", first)  # so that a leader is removed
        assert done.returncode == 0, done.stderr
        remove(cluster, first)
        crash(cluster, cluster.leader())
        remove(cluster, second)
        submitters.more()

        with cluster.client("m3", "m4", "m5") as client:
            before = client.managers()
            submitters.more(300)  # while those who were removed are still there
            after = client.managers()
        assert [manager.id for manager in after.managers] == ["m3", "m4", "m5"]
        grown = max(manager.term for manager in after.managers) - max(manager.term for manager in before.managers)
        assert grown <= 1, "managers that were removed disturb the others"
        for name in (first, second):
            with cluster.client(name) as client:
                eventually(f"{name} says that it was removed", partial(says_it_was_removed, client))
            cluster.terminate(name)
            cluster.forget_manager(name)
        submitters.more()
        submitters.stop()
        with cluster.client() as client:
            assert find_violations(client, submitters.acknowledged) == []


def test_leadership_goes_where_it_is_asked_to_go_and_a_leader_that_stops_hands_over(cluster: ProcessCluster) -> None:
    with Submitters(cluster) as submitters:
        for name in ("m1", "m2", "m3"):
            done = cluster.hasched("manager", "transfer", name, "--json")
            assert (done.returncode, json.loads(done.stdout)) == (0, {"leader": name})
            submitters.more(20)
        assert cluster.terminate("m3") == 0
        assert "transfer_begins" in (cluster.folder / "m3.log").read_text()
        with cluster.client("m1", "m2") as client:
            assert eventually("another leads", lambda: client.managers().leader) in ("m1", "m2")
        submitters.more(20)
        submitters.stop()
        cluster.start("m3")
        cluster.wait_ready()
        with cluster.client() as client:
            assert find_violations(client, submitters.acknowledged) == []


def test_two_of_three_disks_are_lost_and_the_third_goes_on(cluster: ProcessCluster) -> None:
    """All that the survivor held is there; managers that start empty are taken in again and get their votes."""
    with Submitters(cluster) as submitters:
        submitters.more(200)
        submitters.stop()
    survivor, lost = "m2", ("m1", "m3")
    with cluster.client() as client:
        index = client.managers().managers[0].commit_index
    with cluster.client(survivor) as client:
        eventually("the survivor holds what was acknowledged", lambda: has_applied(client, survivor, index))
    for name in cluster.manager_names:
        cluster.kill(name)
    for name in lost:
        shutil.rmtree(cluster.folder / name)

    config = str(cluster.folder / f"{survivor}.yaml")
    shown = cluster.hasched("manager", "recover", "--config", config, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "WHATEVER WAS ACKNOWLEDGED AFTER THAT ENTRY WILL BE LOST" in shown.stderr
    refused = cluster.hasched("manager", "recover", "--config", config, "--cluster", "tset")
    assert (refused.returncode, "nothing was changed" in refused.stderr) == (76, True)
    recovered = cluster.hasched("manager", "recover", "--config", config, "--cluster", "test", "--json")
    assert recovered.returncode == 0, recovered.stderr
    assert json.loads(recovered.stdout)["lost"] == list(lost)

    cluster.start(survivor)
    with Submitters(cluster) as more:
        more.more(20)  # alone
        again = cluster.hasched("manager", "recover", "--config", config, "--cluster", "test")
        assert (again.returncode, "is in use" in again.stderr) == (75, True)
        cluster.start(*lost)
        with cluster.client() as client:
            eventually(
                "three managers vote",
                lambda: (
                    [(each.membership, each.filled) for each in client.managers().managers] == [("voter", True)] * 3
                ),
            )
        cluster.kill(survivor)
        more.more(20)  # without the one that was left
        cluster.start(survivor)
        more.stop()
    cluster.wait_ready()
    with cluster.client() as client:
        assert find_violations(client, submitters.acknowledged | more.acknowledged) == []


def has_applied(client: Client, name: str, index: int) -> bool:
    return any(each.id == name and each.applied_index >= index for each in client.managers().managers)
