"""Membership: which managers take part in consensus, which of them vote, and how the cluster gets to the one wanted.

A membership stands in a log entry and is in force as soon as the entry stands in a log, committed or not; where its
entry is cut, the one before is in force again (Raft thesis, section 4.1). Each differs from the one before in one
manager, so a majority of either has a manager in common with a majority of the other. A manager joins as a *learner*: it
gets everything and counts for nothing until its disk is filled and it has caught up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec

from hasched.model.errors import StorageFailed
from hasched.model.ids import ManagerId
from hasched.raft.journal import LogEntry

MEMBERS = 2  # the first byte of an entry that holds a membership
FORMAT = 1


class Member(msgspec.Struct, frozen=True):
    """A manager of the cluster, as the others reach it. `raft_address` is `HOST:PORT`. A learner isn't a `voter`."""

    manager_id: ManagerId
    api_url: str
    raft_address: str
    voter: bool = True


class Membership(msgspec.Struct, frozen=True):
    """`members` in the order of their names. `term`, `index`: of the entry that holds it; 0 where that is a file."""

    members: tuple[Member, ...]
    term: int = 0
    index: int = 0

    @property
    def stamp(self) -> tuple[int, int]:
        """Of two committed memberships the later has the greater stamp."""
        return self.term, self.index

    @property
    def voters(self) -> list[ManagerId]:
        return [member.manager_id for member in self.members if member.voter]

    def get(self, name: ManagerId) -> Member | None:
        return next((member for member in self.members if member.manager_id == name), None)

    def has_voter(self, name: ManagerId) -> bool:
        member = self.get(name)
        return member is not None and member.voter

    def with_member(self, member: Member) -> tuple[Member, ...]:
        return sort_members([*self.without(member.manager_id), member])

    def without(self, name: ManagerId) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.manager_id != name)


class _Body(msgspec.Struct, frozen=True):
    format: int
    members: tuple[Member, ...]


def split_address(address: str) -> tuple[str, int]:
    """`HOST:PORT` or `[V6]:PORT`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def sort_members(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda member: member.manager_id))


def encode_body(members: tuple[Member, ...]) -> bytes:
    """What follows the first byte of the entry that puts `members` in force."""
    return msgspec.msgpack.encode(_Body(FORMAT, members))


def read_membership(entry: LogEntry) -> Membership | None:
    """What `entry` puts in force, if it does. Raises StorageFailed where it is of a later version."""
    if entry.data[:1] != bytes((MEMBERS,)):
        return None
    try:
        body = msgspec.msgpack.decode(entry.data[1:], type=_Body)
    except msgspec.DecodeError as error:
        raise StorageFailed(f"entry {entry.index} holds no membership: {error}", "upgrade hasched") from None
    if body.format != FORMAT:
        raise StorageFailed(
            f"entry {entry.index} is a membership of format {body.format}; this version reads {FORMAT}",
            "upgrade hasched",
        )
    return Membership(body.members, entry.term, entry.index)


class MembershipLog:
    """The memberships that a log holds, from one that is committed to the one in force."""

    def __init__(self, base: Membership) -> None:
        self._known = [base]

    @property
    def in_force(self) -> Membership:
        return self._known[-1]

    def at(self, index: int) -> Membership:
        """What the log up to `index` puts in force."""
        return next((known for known in reversed(self._known) if known.index <= index), self._known[0])

    def take(self, entry: LogEntry) -> bool:
        """`entry` was added to the log. Whether that changed the membership."""
        membership = read_membership(entry)
        if membership is not None:
            self._known.append(membership)
        return membership is not None

    def cut_after(self, index: int) -> bool:
        """Entries after `index` are gone. Whether that changed the membership."""
        before = len(self._known)
        while len(self._known) > 1 and self._known[-1].index > index:
            self._known.pop()
        return len(self._known) != before

    def forget_before(self, index: int) -> None:
        """The entry at `index` is committed: no membership before the one of that entry can come back."""
        while len(self._known) > 1 and self._known[1].index <= index:
            del self._known[0]


class Standing(msgspec.Struct, frozen=True):
    """What the leader knows of a member: whether it answered within an election timeout, whether its disk is filled, and
    whether it holds what was committed a heartbeat ago.
    """

    answers: bool
    filled: bool
    caught_up: bool
    match_index: int = 0


class Change(msgspec.Struct, frozen=True):
    """Put these members in force."""

    members: tuple[Member, ...]
    reason: str


class HandOver(msgspec.Struct, frozen=True):
    """The leader is to go: it makes this voter the leader first, and that one will remove it."""

    target: ManagerId


Step: TypeAlias = Change | HandOver
ABSENT = Standing(answers=False, filled=False, caught_up=False)


def next_step(
    wanted: Mapping[ManagerId, Member], actual: Membership, leader: ManagerId, standings: Mapping[ManagerId, Standing]
) -> Step | None:
    """The next of the single changes that lead from `actual` to the managers in `wanted`; None: nothing to do, or not yet.

    No change leaves a cluster that couldn't go on: of the voters after it, a majority must be answering now. A voter stays
    until there are as many without it as are wanted; one that doesn't answer also goes where that makes a majority
    smaller, and before the others.
    """
    if actual.stamp == (0, 0):
        return Change(actual.members, "the members of the configuration file")
    if not wanted:
        return None
    for step in (
        _drop(wanted, actual, leader, standings, answering=False),
        _take_in(wanted, actual),
        _promote(wanted, actual, leader, standings),
        _move(wanted, actual),
        _drop(wanted, actual, leader, standings, answering=True),
        _hand_over(wanted, actual, leader, standings),
    ):
        if step is not None:
            return step
    return None


def _can_go_on(members: tuple[Member, ...], leader: ManagerId, standings: Mapping[ManagerId, Standing]) -> bool:
    voters = [member.manager_id for member in members if member.voter]
    healthy = [name for name in voters if name == leader or _is_healthy(standings.get(name, ABSENT))]
    return 2 * len(healthy) > len(voters)


def _is_healthy(standing: Standing) -> bool:
    return standing.answers and standing.filled


def _drop(
    wanted: Mapping[ManagerId, Member],
    actual: Membership,
    leader: ManagerId,
    standings: Mapping[ManagerId, Standing],
    answering: bool,
) -> Change | None:
    for member in actual.members:
        name = member.manager_id
        if name in wanted or name == leader:
            continue
        smaller_majority = not answering and len(actual.voters) % 2 == 0
        due = _is_healthy(standings.get(name, ABSENT)) == answering and (
            len(actual.voters) > len(wanted) or smaller_majority
        )
        if (due or not member.voter) and _can_go_on(actual.without(name), leader, standings):
            return Change(actual.without(name), f"{name} is to go")
    return None


def _take_in(wanted: Mapping[ManagerId, Member], actual: Membership) -> Change | None:
    for name, member in sorted(wanted.items()):
        if actual.get(name) is None:
            learner = msgspec.structs.replace(member, voter=False)
            return Change(actual.with_member(learner), f"{name} is to be filled")
    return None


def _promote(
    wanted: Mapping[ManagerId, Member], actual: Membership, leader: ManagerId, standings: Mapping[ManagerId, Standing]
) -> Change | None:
    for member in actual.members:
        name, standing = member.manager_id, standings.get(member.manager_id, ABSENT)
        if member.voter or name not in wanted or not (_is_healthy(standing) and standing.caught_up):
            continue
        members = actual.with_member(msgspec.structs.replace(member, voter=True))
        if _can_go_on(members, leader, standings):
            return Change(members, f"{name} is filled and votes")
    return None


def _move(wanted: Mapping[ManagerId, Member], actual: Membership) -> Change | None:
    """A manager that was added again at another address."""
    for member in actual.members:
        there = wanted.get(member.manager_id)
        if there is not None and (there.api_url, there.raft_address) != (member.api_url, member.raft_address):
            moved = msgspec.structs.replace(there, voter=member.voter)
            return Change(actual.with_member(moved), f"{member.manager_id} has moved")
    return None


def _hand_over(
    wanted: Mapping[ManagerId, Member], actual: Membership, leader: ManagerId, standings: Mapping[ManagerId, Standing]
) -> HandOver | None:
    if leader in wanted:
        return None
    heirs = [name for name in actual.voters if name in wanted and _is_healthy(standings.get(name, ABSENT))]
    if not heirs:
        return None
    return HandOver(max(heirs, key=lambda name: standings[name].match_index))
