"""Whose data directory this is. A directory of another cluster or manager, or one that is in use, is refused.

`voter` is the memory of having taken part: a manager whose directory lacks it may have lost its disk, and with it its
votes and what it acknowledged, so it doesn't count until a leader has brought it up to date.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from hasched.model.errors import StorageFailed
from hasched.model.ids import ManagerId
from hasched.raft.segments import sync_directory, write_all

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

    def __init__(self, path: Path, cluster_id: str, manager_id: ManagerId, *, alone: bool) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = self._hold()
        try:
            self.identity = self._read(cluster_id, manager_id) or self._found(cluster_id, manager_id, alone)
        except BaseException:
            self.release()
            raise

    def become_voter(self) -> None:
        """Durable when it returns."""
        self._write(msgspec.structs.replace(self.identity, voter=True))

    def release(self) -> None:
        os.close(self._lock)

    def _hold(self) -> int:
        descriptor = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise StorageFailed(
                f"{self.path} is in use by another manager process", "stop that process first"
            ) from None
        return descriptor

    def _read(self, cluster_id: str, manager_id: ManagerId) -> Identity | None:
        path = self.path / FILE
        if not path.exists():
            return None
        try:
            identity = msgspec.json.decode(path.read_bytes(), type=Identity)
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
        if any(path.name not in (LOCK, f"{FILE}.tmp") for path in self.path.iterdir()):
            raise StorageFailed(
                f"{self.path} holds files, but no {FILE}", "point data_dir at an empty directory, or restore the file"
            )
        return self._write(Identity(FORMAT, cluster_id, manager_id, voter=alone))

    def _write(self, identity: Identity) -> Identity:
        temporary = self.path / f"{FILE}.tmp"
        descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, msgspec.json.encode(identity))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(self.path / FILE)
        sync_directory(self.path)
        self.identity = identity
        return identity
