"""A handful of what `scripts/prove crash-points` and `scripts/prove power-cuts` do in full."""

from __future__ import annotations

import pytest

from chaos.cluster import loop_disk
from proofs import crash_points, damage, full_disk, power_cuts, stored
from proofs.report import Proof
from proofs.syncs import FIRST_START, LATER_START, RUNNING
from tests.support.cluster import ProcessCluster

pytestmark = pytest.mark.timeout(300)
FRAME, SEGMENT, LOG_DIRECTORY, SNAPSHOT, SNAPSHOT_DIRECTORY = RUNNING
POINTS = ["managers", "fault", "where", "n", "what happened", "acknowledged", "lost"]


@pytest.fixture
def loop_devices() -> None:
    obstacle = loop_disk.find_obstacle()
    if obstacle is not None:
        pytest.skip(obstacle)


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        pytest.param(FIRST_START[0], "kill", id="killed at its first start"),
        pytest.param(LATER_START[1], "kill", id="killed at a later start"),
        pytest.param(FRAME, "kill", id="killed in front of a frame's sync"),
        pytest.param(SEGMENT, "kill", id="killed as it begins a segment"),
        pytest.param(SNAPSHOT_DIRECTORY, "kill", id="killed as it publishes a snapshot"),
        pytest.param(FRAME, "EIO", id="a frame's sync fails"),
        pytest.param(SNAPSHOT, "EIO", id="a snapshot's sync fails"),
    ],
)
def test_a_manager_alone_loses_nothing_when_it_is_stopped_at_a_sync(place, fault):
    proof = Proof("Crash points", POINTS)
    crash_points.visit(proof, 1, place, fault, limit=1)
    assert not proof.violations
    assert len(proof.rows) == 1, "the sync was reached"


def test_a_manager_of_three_that_is_killed_in_front_of_a_sync_comes_back_with_all_that_was_acknowledged():
    proof = Proof("Crash points", POINTS)
    crash_points.visit(proof, 3, FRAME, "kill", limit=1)
    assert not proof.violations
    assert len(proof.rows) == 1


def test_rotten_bytes_are_refused_and_the_disk_is_filled_by_the_others():
    proof = Proof("Crash points", POINTS)
    damage.visit(proof, 3, crash_points.SETTINGS, only=["log: last entry, its data", damage.VOTE_RECORD])
    assert not proof.violations
    assert len(proof.rows) == 2


def test_a_manager_whose_disk_is_full_stands_back_until_there_is_room(loop_devices):
    proof = Proof("Crash points", POINTS)
    full_disk.visit(proof, 3, crash_points.SETTINGS)
    assert not proof.violations


def test_power_cuts_take_nothing_that_was_acknowledged_and_all_that_was_not_synced(loop_devices):
    proof = Proof("Power cuts", ["what", "cuts", "acknowledged", "lost", "waited"])
    power_cuts.control_files(proof, 1)
    power_cuts.control_managers(proof, 1)
    power_cuts.cut_managers(proof, 3, 2, seed=1)
    assert not proof.violations


def test_what_is_not_on_a_disk_is_called_lost(tmp_path):
    """The proofs themselves can fail."""
    with ProcessCluster(tmp_path, 1, 0) as cluster:
        cluster.start()
        cluster.wait_ready()
        assert stored.find_violations(cluster, {"never-sent": 7}) == [
            "on m1: submission never-sent was acknowledged as job 7 and is lost"
        ]


def test_a_proof_with_a_violation_says_so_and_one_without_says_that():
    proof = Proof("Something", ["n", "what"])
    proof.add(1, "a | b")
    assert proof.to_text().splitlines()[2:5] == ["| n | what |", "| --- | --- |", "| 1 | a \\| b |"]
    assert proof.to_text().endswith("No promise was broken.")
    proof.violate("it is gone")
    assert proof.to_text().endswith("**VIOLATION**: it is gone")
    assert '"violations": [\n    "it is gone"' in proof.to_json()
