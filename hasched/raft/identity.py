"""Whose data directory this is. A directory of another cluster or manager, or one that is in use, is refused.

`voter` is the memory of having taken part: a manager whose directory lacks it may have lost its disk, and with it its
votes and what it acknowledged, so it doesn't count until a leader has brought it up to date.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from hasched.model.errors import StorageFailed
from hasched.model.ids import ManagerId
from hasched.raft.disk import Disk, File, LocalDisk, write_file

FORMAT = 1
FILE = "identity.json"
LOCK = "lock"


class Identity(msgspec.Struct, frozen=True):
    format: int
    cluster_id: str
    manager_id: ManagerId
    voter: bool


class DataDirectory:
    """The directory at `path`, made if need be, and held by this process until `release`."""

    def __init__(
        self, path: Path, cluster_id: str, manager_id: ManagerId, *, alone: bool, disk: Disk | None = None
    ) -> None:
        self.path = path
        self._disk = disk or LocalDisk()
        try:
            self._disk.make_directory(path)
            self._lock = self._hold()
        except OSError as error:
            raise self._unusable(error) from error
        try:
            self._disk.sync_directory(
                path
            )  # what a process that was killed has written is durable before it is believed
            self.identity = self._read(cluster_id, manager_id) or self._found(cluster_id, manager_id, alone)
        except OSError as error:
            self.release()
            raise self._unusable(error) from error
        except BaseException:
            self.release()
            raise

    def become_voter(self) -> None:
        """Durable when it returns."""
        try:
            self._write(msgspec.structs.replace(self.identity, voter=True))
        except OSError as error:
            raise self._unusable(error) from error

    def release(self) -> None:
        self._lock.close()

    def _hold(self) -> File:
        try:
            return self._disk.lock(self.path / LOCK)
        except BlockingIOError:
            raise StorageFailed(
                f"{self.path} is in use by another manager process", "stop that process first"
            ) from None

    def _unusable(self, error: OSError) -> StorageFailed:
        return StorageFailed(f"{self.path} can't be used: {error}", "check the disk, then start the manager again")

    def _read(self, cluster_id: str, manager_id: ManagerId) -> Identity | None:
        path = self.path / FILE
        if FILE not in self._disk.names(self.path):
            return None
        try:
            identity = msgspec.json.decode(self._disk.read(path), type=Identity)
        except msgspec.DecodeError as error:
            raise StorageFailed(
                f"{path} is damaged: {error}", "restore it from another manager's, with its own name"
            ) from None
        found, wanted = (identity.cluster_id, identity.manager_id), (cluster_id, manager_id)
        if found != wanted:
            raise StorageFailed(
                f"{self.path} belongs to manager {found[1]!r} of cluster {found[0]!r}, not to {wanted[1]!r} of {wanted[0]!r}",
                "give every manager its own data directory, and a new cluster new ones",
            )
        return identity

    def _found(self, cluster_id: str, manager_id: ManagerId, alone: bool) -> Identity:
        if any(name not in (LOCK, f"{FILE}.tmp") for name in self._disk.names(self.path)):
            raise StorageFailed(
                f"{self.path} holds files, but no {FILE}", "point data_dir at an empty directory, or restore the file"
            )
        return self._write(Identity(FORMAT, cluster_id, manager_id, voter=alone))

    def _write(self, identity: Identity) -> Identity:
        write_file(self._disk, self.path / FILE, msgspec.json.encode(identity))
        self.identity = identity
        return identity
