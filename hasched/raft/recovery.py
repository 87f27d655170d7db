"""Recovery: what to do when a majority of the managers is lost for good. Offline, explicit, and the last resort.

One manager that is left becomes the whole cluster: its log, to the last entry, is what the cluster is from then on.
Whatever the lost ones had committed and it never got is lost, so take the one with the longest log (`examine` tells). The
cluster begins a new life, its *incarnation*: managers of the old one are refused, whichever comes back, so data of the
two never mix. A majority of the old one that comes back with its disks is still the old cluster, beside the new: that it
can't is for people to make sure of. The lost ones are taken in again by themselves, since they are still wanted, once they
are started with empty data directories.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from hasched.model.errors import RecoveryRefused, StorageFailed
from hasched.model.ids import ManagerId
from hasched.raft.disk import Disk, LocalDisk
from hasched.raft.engine import COMMANDS
from hasched.raft.identity import DataDirectory, Identity, read_identity
from hasched.raft.journal import FIRST_INDEX, DiskFull, Journal
from hasched.raft.membership import MEMBERS, Member, Membership, encode_body, read_membership
from hasched.raft.snapshots import SnapshotStore
from hasched.raft.tuning import Tuning
from hasched.statemachine.commands import decode_batch


class DiskState(msgspec.Struct, frozen=True):
    """What a manager's disk holds. Of several managers, take the one whose (`last_term`, `last_index`) is the greatest.

    `complete`: it has never been wiped, or was filled again since; else it may lack what it once acknowledged. `last_ms`:
    the leader's clock in the latest entry of commands, 0 where only a snapshot is left.
    """

    manager_id: ManagerId
    term: int
    last_term: int
    last_index: int
    complete: bool
    members: tuple[Member, ...]  # none: those of the configuration file
    incarnation: str
    last_ms: int


class Recovered(msgspec.Struct, frozen=True):
    """`lost` are the managers that don't take part any more, until they come back with empty disks."""

    manager_id: ManagerId
    term: int
    index: int
    incarnation: str
    lost: tuple[ManagerId, ...]


def examine(data_dir: Path, cluster_id: str, manager_id: ManagerId, *, disk: Disk | None = None) -> DiskState:
    """Read the data directory of a manager that is stopped, and change nothing but what each start changes.

    Raises RecoveryRefused if there is nothing to recover from; StorageFailed if it is damaged, in use or somebody else's.
    """
    with _Opened(data_dir, cluster_id, manager_id, disk or LocalDisk()) as opened:
        return opened.state()


def recover(
    data_dir: Path, cluster_id: str, member: Member, *, accept_incomplete: bool = False, disk: Disk | None = None
) -> Recovered:
    """Make the manager that is stopped, `member`, the only one of its cluster. It can be repeated if it is cut short.

    Raises as `examine`; RecoveryRefused for a disk that isn't complete, unless `accept_incomplete`.
    """
    name = member.manager_id
    with _Opened(data_dir, cluster_id, name, disk or LocalDisk()) as opened:
        state = opened.state()
        if not state.complete and not accept_incomplete:
            raise RecoveryRefused(
                f"the disk of {name!r} was wiped and not yet filled again, so it may lack what was acknowledged",
                "recover another manager if there is one; else say that an incomplete disk will do",
            )
        incarnation = secrets.token_hex(8)
        # First: with this alone, and the members of before, the manager waits for a majority that can't come about.
        opened.directory.begin_life(incarnation)
        alone = (msgspec.structs.replace(member, voter=True),)
        journal = opened.journal
        journal.setCurrentTerm(state.term + 1, name)
        journal.add(bytes((MEMBERS,)) + encode_body(alone), state.last_index + 1, state.term + 1)
        try:
            journal.flush()
        except DiskFull as error:
            raise StorageFailed(f"the disk is full: {error}", "make room on it, then recover again") from None
        lost = tuple(each.manager_id for each in state.members if each.manager_id != name)
        return Recovered(name, state.term + 1, state.last_index + 1, incarnation, lost)


class _Opened:
    """A data directory, while nobody else uses it."""

    def __init__(self, data_dir: Path, cluster_id: str, manager_id: ManagerId, disk: Disk) -> None:
        identity = _require_identity(data_dir, manager_id, disk)
        if identity.fenced:
            raise RecoveryRefused(
                f"the state of {manager_id!r} has gone wrong by entry {identity.fenced}",
                "recover another manager; this one is to be filled from it",
            )
        self.directory = DataDirectory(data_dir, cluster_id, manager_id, alone=False, disk=disk)
        try:
            self._store = SnapshotStore(data_dir / "snapshots", cluster_id, disk=disk)
            self.journal = Journal(data_dir / "journal", Tuning().segment_bytes, disk=disk)
            self._adopt_snapshot()
        except BaseException:
            self.directory.release()
            raise

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()
        self.directory.release()

    def _adopt_snapshot(self) -> None:
        """As the engine does it (fault 5)."""
        snapshot, base, last = self._store.latest, self.journal[0], self.journal[-1]
        if snapshot is None or snapshot.index < base.index:
            return
        if snapshot.index > last.index or self.journal[snapshot.index - base.index].term != snapshot.term:
            self.journal.reset(snapshot.index, snapshot.term)

    def state(self) -> DiskState:
        last, identity = self.journal[-1], self.directory.identity
        if last.index == FIRST_INDEX:
            raise RecoveryRefused(
                f"the disk of {identity.manager_id!r} holds nothing", "recover a manager that has taken part"
            )
        return DiskState(
            manager_id=identity.manager_id,
            term=max(self.journal.getCurrentTerm(), last.term),
            last_term=last.term,
            last_index=last.index,
            complete=identity.voter,
            members=self._membership().members,
            incarnation=identity.incarnation,
            last_ms=self._last_ms(),
        )

    def _last_ms(self) -> int:
        latest = next((entry for entry in reversed(self.journal[1:]) if entry.data[0] == COMMANDS), None)
        return 0 if latest is None else decode_batch(latest.data[1:]).now_ms

    def _membership(self) -> Membership:
        latest = (self._store.latest and self._store.latest.membership) or Membership(())
        for entry in self.journal[1:]:
            found = read_membership(entry)
            if found is not None and found.index > latest.index:
                latest = found
        return latest


def _require_identity(data_dir: Path, manager_id: ManagerId, disk: Disk) -> Identity:
    try:
        identity = read_identity(data_dir, disk)
    except OSError:
        identity = None
    if identity is None:
        raise RecoveryRefused(
            f"{data_dir} is not the data directory of a manager", f"give the configuration file of {manager_id!r}"
        )
    return identity
