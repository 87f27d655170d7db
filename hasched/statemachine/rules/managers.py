"""Managers: the leader records those of its configuration once, people add and remove them from then on.

This is the wish only. The leader compares it with Raft's membership and makes one change at a time, so a wish outlives
any leader, and asking for it twice does nothing twice. The address of a manager doesn't change: to move it to another
machine, remove it and add it again.
"""

from __future__ import annotations

from hasched.model.addresses import MAX_ADDRESS_LENGTH
from hasched.model.ids import is_name
from hasched.statemachine.commands import AddManager, RecordManagers, RemoveManager
from hasched.statemachine.events import ManagerAdded, ManagerRemoved, ManagersRecorded
from hasched.statemachine.manager import MAX_MANAGERS, ManagerAddress, ManagerRecord
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules import Decision
from hasched.statemachine.state import State


def decide_record(state: State, command: RecordManagers) -> Decision | Rejected:
    """A second record, of a leader that didn't know of the first, comes too late and changes nothing.

    Addresses are taken as the configuration has them: consensus works with them already.
    """
    if state.managers:
        return Decision([])
    names = dict.fromkeys(member.manager_id for member in command.members)
    if not names or len(names) != len(command.members) or not all(map(_is_sound, command.members)):
        return Rejected("invalid_manager", "a record of managers names each of them once")
    return Decision([ManagersRecorded(command.members)])


def evolve_recorded(state: State, event: ManagersRecorded) -> None:
    for member in event.managers:
        _put(state, member)


def decide_add(state: State, command: AddManager) -> Decision | Rejected:
    asked = ManagerAddress(command.manager_id, command.api_url, command.raft_address)
    if not _is_sound(asked):
        return Rejected("invalid_manager", f"{command.manager_id[:100]!r} with these addresses can't be a manager")
    if not state.managers:
        return _not_recorded()
    there = state.managers.get(asked.manager_id)
    if there is not None:
        if (there.api_url, there.raft_address) == (asked.api_url, asked.raft_address):
            return Decision([])
        return Rejected(
            "manager_exists",
            f"manager {there.manager_id} is there already, at {there.api_url} and {there.raft_address}",
            "to move it to other addresses, remove it and add it again",
        )
    for _, other in sorted(state.managers.items()):
        pairs = ((asked.api_url, other.api_url), (asked.raft_address, other.raft_address))
        taken = next((address for address, others in pairs if address == others), None)
        if taken is not None:
            return Rejected(
                "manager_address_taken",
                f"{taken} is the address of manager {other.manager_id}",
                "give the new manager addresses of its own",
            )
    if len(state.managers) >= MAX_MANAGERS:
        return Rejected(
            "too_many_managers",
            f"a cluster has at most {MAX_MANAGERS} managers",
            "remove one first; more of them make nothing safer, only slower",
        )
    return Decision([ManagerAdded(asked.manager_id, command.actor, asked.api_url, asked.raft_address)])


def evolve_added(state: State, event: ManagerAdded) -> None:
    _put(state, ManagerAddress(event.manager_id, event.api_url, event.raft_address))


def decide_remove(state: State, command: RemoveManager) -> Decision | Rejected:
    if not state.managers:
        return _not_recorded()
    if command.manager_id not in state.managers:
        return Rejected(
            "no_such_manager", f"there is no manager {command.manager_id[:100]!r}", "see the list of managers"
        )
    if len(state.managers) == 1:
        return Rejected(
            "last_manager", f"{command.manager_id} is the only manager", "a cluster without managers holds nothing"
        )
    return Decision([ManagerRemoved(command.manager_id, command.actor)])


def evolve_removed(state: State, event: ManagerRemoved) -> None:
    del state.managers[event.manager_id]


def _put(state: State, member: ManagerAddress) -> None:
    state.managers[member.manager_id] = ManagerRecord(
        member.manager_id, member.api_url, member.raft_address, state.now_ms, state.index
    )


def _is_sound(member: ManagerAddress) -> bool:
    addresses = (member.api_url, member.raft_address)
    return is_name(member.manager_id) and all(0 < len(address) <= MAX_ADDRESS_LENGTH for address in addresses)


def _not_recorded() -> Rejected:
    return Rejected(
        "managers_not_recorded",
        "the leader hasn't yet recorded which managers the cluster has",
        "try again in a moment; if it stays so, not all managers run this version",
    )
