"""The cluster's origin: recorded once, kept by snapshots, part of the digest, absent where an older version never drew one."""

from __future__ import annotations

from hasched.statemachine import queries
from hasched.statemachine.commands import RecordOrigin
from hasched.statemachine.digest import digest
from hasched.statemachine.events import OriginRecorded
from hasched.statemachine.snapshot import records, restore
from tests.statemachine.machine import Machine


def test_the_first_that_is_recorded_stays() -> None:
    machine = Machine()
    assert machine.do(RecordOrigin(origin="first")).events == [OriginRecorded("first")]
    assert machine.do(RecordOrigin(origin="second")).events == []
    assert queries.cluster_view(machine.state, cluster="lab", leader=None, term=1).origin == "first"


def test_one_that_is_none_is_refused() -> None:
    assert Machine().refusal(RecordOrigin(origin="")) == "invalid_origin"


def test_a_snapshot_keeps_it_and_the_digest_knows_it() -> None:
    digests = []
    for origin in ("a", "b"):
        machine = Machine()
        machine.do(RecordOrigin(origin=origin))
        assert restore(records(machine.state)).origin == origin
        digests.append(digest(machine.state))
    assert digests[0] != digests[1]


def test_a_state_without_one_is_written_as_before_there_were_any() -> None:
    assert b"origin" not in b"".join(records(Machine().state))
