"""Whose data directory this is. A directory of another cluster or manager, or one that is in use, is refused.

`voter` is the memory of having taken part: a manager whose directory lacks it may have lost its disk, and with it its
votes and what it acknowledged, so it doesn't count until a leader has brought it up to date.

`fenced` is the memory of a state that went wrong (docs/adr/0011-divergence.md): the next start sets journal and snapshots
aside and begins without a vote, `rebuilding`, which tells it from a manager of a cluster that starts for the first time.

`incarnation` is the life of the cluster that the directory belongs to: a recovery after the loss of a majority begins a new
one, and directories of two lives never mix (docs/adr/0010-membership.md).
"""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path

import msgspec
import structlog

from hasched.model.errors import StorageFailed
from hasched.model.ids import ManagerId
from hasched.raft.disk import Disk, File, LocalDisk, write_file

FORMAT = 1
FILE = "identity.json"
LOCK = "lock"
CHECKSUM = "checksum"  # CRC-32 of the other fields, as they stand there
ASIDE = "diverged-"  # and the index of the entry by which the state had gone wrong
KEPT = ("journal", "snapshots")

log = structlog.get_logger(__name__)


class Identity(msgspec.Struct, frozen=True):
    format: int
    cluster_id: str
    manager_id: ManagerId
    voter: bool
    fenced: int = 0
    rebuilding: bool = False
    incarnation: str = ""


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
            self._disk.sync_directory(path)  # a process that was killed may have left names that aren't durable
            self.identity = self._read(cluster_id, manager_id) or self._found(cluster_id, manager_id, alone)
            if self.identity.fenced:
                self._set_aside(self.identity.fenced)
        except OSError as error:
            self.release()
            raise self._unusable(error) from error
        except BaseException:
            self.release()
            raise

    def become_voter(self) -> None:
        """Durable when it returns."""
        self._change(voter=True, rebuilding=False)

    def fence(self, index: int) -> None:
        """The state was wrong by the entry at `index`: never go on from what lies here. Durable when it returns."""
        aside = f"{ASIDE}{index}"
        if aside in self._disk.names(self.path):
            self._remove(aside)
        self._change(fenced=index)

    def begin_life(self, incarnation: str) -> None:
        """This directory is what the cluster is from now on. Durable when it returns."""
        self._change(voter=True, rebuilding=False, incarnation=incarnation)

    def adopt_incarnation(self, incarnation: str) -> None:
        """Durable when it returns."""
        self._change(incarnation=incarnation)

    def release(self) -> None:
        self._lock.close()

    def _set_aside(self, index: int) -> None:
        """Keep what went wrong for whoever wants to know why, the latest only. A start that is cut short here is repeated."""
        disk, aside = self._disk, f"{ASIDE}{index}"
        for name in KEPT:
            if name not in disk.names(self.path):
                continue
            source, target = self.path / name, self.path / aside / name
            disk.make_directory(target)
            for file in disk.names(source):
                disk.rename(source / file, target / file)
            disk.sync_directory(target)
            disk.sync_directory(source)
        for older in disk.names(self.path):
            if older.startswith(ASIDE) and older != aside:
                self._remove(older)
        self._change(voter=False, fenced=0, rebuilding=True)
        log.warning(
            "state_set_aside", index=index, path=str(self.path / aside), hint="the other managers fill it again"
        )

    def _remove(self, aside: str) -> None:
        """Whatever somebody else has put there stays."""
        for name in self._disk.names(self.path / aside):
            if name in KEPT:
                for file in self._disk.names(self.path / aside / name):
                    self._disk.unlink(self.path / aside / name / file)
                self._disk.remove_directory(self.path / aside / name)
        with contextlib.suppress(OSError):
            self._disk.remove_directory(self.path / aside)

    def _hold(self) -> File:
        try:
            return self._disk.lock(self.path / LOCK)
        except BlockingIOError:
            raise StorageFailed(
                f"{self.path} is in use by another manager process", "stop that process first"
            ) from None

    def _unusable(self, error: OSError) -> StorageFailed:
        return StorageFailed(f"{self.path} can't be used: {error}", "check the disk, then start the manager again")

    def _change(self, **fields: bool | int | str) -> None:
        try:
            self._write(msgspec.structs.replace(self.identity, **fields))
        except OSError as error:
            raise self._unusable(error) from error

    def _read(self, cluster_id: str, manager_id: ManagerId) -> Identity | None:
        identity = read_identity(self.path, self._disk)
        if identity is None:
            return None
        found, wanted = (identity.cluster_id, identity.manager_id), (cluster_id, manager_id)
        if found != wanted:
            raise StorageFailed(
                f"{self.path} belongs to manager {found[1]!r} of cluster {found[0]!r}, not to {wanted[1]!r} of {wanted[0]!r}",
                "give every manager its own data directory, and a new cluster new ones",
            )
        return identity

    def _found(self, cluster_id: str, manager_id: ManagerId, alone: bool) -> Identity:
        if any(name not in (LOCK, f"{FILE}.tmp", "lost+found") for name in self._disk.names(self.path)):
            raise StorageFailed(
                f"{self.path} holds files, but no {FILE}", "point data_dir at an empty directory, or restore the file"
            )
        return self._write(Identity(FORMAT, cluster_id, manager_id, voter=alone))

    def _write(self, identity: Identity) -> Identity:
        write_file(self._disk, self.path / FILE, _encode(identity))
        self.identity = identity
        return identity


def read_identity(directory: Path, disk: Disk) -> Identity | None:
    """None: there is none. Raises StorageFailed if it is damaged, OSError if the directory can't be read."""
    path = directory / FILE
    if FILE not in disk.names(directory):
        return None
    try:
        identity = _decode(disk.read(path))
    except (msgspec.DecodeError, ValueError) as error:
        raise StorageFailed(
            f"{path} is damaged: {error}", 'restore it, by hand if need be: without "checksum" it is taken as it is'
        ) from None
    if identity.format != FORMAT:
        raise StorageFailed(f"{path} is of format {identity.format}; this version reads {FORMAT}", "upgrade hasched")
    return identity


def _encode(identity: Identity) -> bytes:
    fields = msgspec.to_builtins(identity)
    return msgspec.json.encode(fields | {CHECKSUM: zlib.crc32(msgspec.json.encode(fields))})


def _decode(data: bytes) -> Identity:
    """Raises DecodeError or ValueError. Files of 0.1.0, and those that people wrote, have no checksum."""
    fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    stated = fields.pop(CHECKSUM, None)
    if stated is not None and msgspec.json.decode(stated) != zlib.crc32(msgspec.json.encode(fields)):
        raise ValueError("it doesn't match its checksum")
    return msgspec.json.decode(msgspec.json.encode(fields), type=Identity)
