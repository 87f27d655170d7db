"""Small versions of the proofs: real managers killed, frozen and cut apart while submissions go on. See `scripts/prove`."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.cluster.network import HostNetwork, find_obstacle
from chaos.cluster.topology import both_ways, chain, star
from proofs import failover, partial_mesh, rolling_restart
from proofs.report import Proof
from tests.support.cluster import ProcessCluster

pytestmark = pytest.mark.timeout(180)
needs_network = pytest.mark.skipif(find_obstacle() is not None, reason=str(find_obstacle()))


def test_nothing_is_lost_when_leaders_are_killed_and_frozen(tmp_path: Path) -> None:
    proof = Proof("fail-over", ())
    with ProcessCluster(tmp_path, agents=0) as cluster:
        cluster.start()
        cluster.wait_ready()
        found = failover.measure(cluster, 3, 2, proof)
    assert [len(times) for pair in found.values() for times in pair] == [3, 3, 2, 2]
    assert proof.violations == []


def test_nothing_is_lost_in_a_rolling_restart(tmp_path: Path) -> None:
    proof = Proof("rolling restart", ["", "", "", "", "", ""])
    with ProcessCluster(tmp_path, agents=0) as cluster:
        cluster.start()
        cluster.wait_ready()
        rolling_restart.measure(cluster, 1, proof)
    assert len(proof.rows) == 3
    assert proof.violations == []


@needs_network
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(2, id="a chain with the leader at an end"),
        pytest.param(4, id="a star with the leader at a tip"),
    ],
)
def test_a_partial_mesh_finds_a_leader_and_loses_nothing(tmp_path: Path, case: int) -> None:
    proof = Proof("partial mesh", ())
    found = partial_mesh.measure(partial_mesh.CASES[case], tmp_path, 8, proof)
    assert proof.violations == []
    assert found.accepted > 0, "somebody came to lead"
    assert found.terms <= 5


@needs_network
def test_cuts_are_one_way_and_heal_by_themselves_or_at_once() -> None:
    with HostNetwork(["a", "b", "c"]) as network:
        network.cut([("a", "b")], 600)
        assert network.cuts() == [("a", "b")]
        network.cut(both_ways([("a", "c")]), 600)
        network.mend([("a", "c"), ("b", "c")])
        assert sorted(network.cuts()) == [("a", "b"), ("c", "a")]
        network.heal()
        assert network.cuts() == []
        network.cut([("a", "b")], 600)
        network.cut([("a", "b")], 0.001)
        while network.cuts():
            pass


def test_a_chain_and_a_star_leave_the_links_that_they_are_named_for() -> None:
    hosts = ("a", "b", "c", "d")
    pairs = {(one, other) for one in hosts for other in hosts if one != other}
    assert pairs - set(chain(hosts)) == set(both_ways([("a", "b"), ("b", "c"), ("c", "d")]))
    assert pairs - set(star("b", hosts)) == set(both_ways([("a", "b"), ("b", "c"), ("b", "d")]))
