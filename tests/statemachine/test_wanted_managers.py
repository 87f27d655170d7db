"""The managers that are wanted: kept by snapshots, part of the digest, absent where an older version has never heard of them."""

from __future__ import annotations

from hasched.statemachine.commands import AddManager, RecordManagers
from hasched.statemachine.digest import digest
from hasched.statemachine.events import view
from hasched.statemachine.manager import ManagerAddress
from hasched.statemachine.snapshot import records, restore
from tests.statemachine.machine import Machine

MEMBERS = tuple(ManagerAddress(name, f"https://{name}:7411", f"{name}:7412") for name in ("m1", "m2", "m3"))
ADD = AddManager(manager_id="m4", actor="ada", api_url="https://m4:7411", raft_address="m4:7412")


def test_a_snapshot_keeps_them_with_when_they_came() -> None:
    machine = Machine()
    machine.do(RecordManagers(members=MEMBERS))
    machine.wait(1000)
    machine.do(ADD)
    restored = restore(list(records(machine.state)))
    assert restored.managers == machine.state.managers
    assert list(restored.managers) == ["m1", "m2", "m3", "m4"]
    assert [manager.log_index for manager in restored.managers.values()] == [1, 1, 1, 3]


def test_the_digest_knows_them_and_not_the_order_in_which_they_came() -> None:
    digests = []
    for members in (MEMBERS, MEMBERS[::-1], MEMBERS[:2]):
        machine = Machine()
        machine.do(RecordManagers(members=members))
        digests.append(digest(machine.state))
    assert digests[0] == digests[1] != digests[2]


def test_a_state_that_names_none_is_written_as_before_there_were_any() -> None:
    assert b"managers" not in b"".join(records(Machine().state))


def test_events_say_who_was_added_by_whom() -> None:
    machine = Machine()
    machine.do(RecordManagers(members=MEMBERS), ADD)
    recorded, added = (view(event, 1, number, 0) for number, event in enumerate(machine.events))
    assert recorded.data == {"managers": ["m1", "m2", "m3"]}
    assert added.data["actor"] == "ada"
    assert added.data["manager_id"] == "m4"
