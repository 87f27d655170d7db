"""The disk, as far as consensus needs one: everything that a replica keeps goes through a `Disk`.

What is written is durable only after a sync: of the file for its bytes, and of its directory for its name. The
simulation brings a disk that remembers which is which, and takes what was not synced with a power cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Protocol


class File(Protocol):
    """An open file. Every method raises OSError when the disk refuses."""

    @property
    def size(self) -> int: ...

    def append(self, data: bytes) -> None:
        """All of it. After an OSError any part of it may be there: `truncate` to what was before."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Over what is there; never past the end."""

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """What was written is durable when this returns. If it fails, nothing is known, and another sync would lie."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Fewer bytes than `count` only where the file ends."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """Files by their paths. Every method raises OSError when the disk refuses, FileNotFoundError if a path isn't there."""

    def make_directory(self, path: Path) -> None:
        """With its parents, for this user alone, durable when it returns. It may be there already."""

    def names(self, directory: Path) -> list[str]:
        """What lies in it, sorted."""
        ...

    def create(self, path: Path) -> File:
        """An empty file to write, in place of what was there."""
        ...

    def open(self, path: Path, *, write: bool = False) -> File: ...
    def read(self, path: Path) -> bytes: ...
    def size(self, path: Path) -> int: ...

    def rename(self, source: Path, target: Path) -> None:
        """In place of what was there. Durable after `sync_directory`, as are `create` and `unlink`."""

    def unlink(self, path: Path) -> None:
        """A file that isn't there is fine."""

    def remove_directory(self, path: Path) -> None:
        """An empty one."""

    def sync_directory(self, path: Path) -> None: ...

    def lock(self, path: Path) -> File:
        """Held until it is closed, or the process ends. Raises BlockingIOError if another holds it."""
        ...


class LocalDisk:
    """This machine's disk."""

    def make_directory(self, path: Path) -> None:
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
            self.sync_directory(directory.parent)

    def names(self, directory: Path) -> list[str]:
        return sorted(entry.name for entry in directory.iterdir())

    def create(self, path: Path) -> LocalFile:
        return LocalFile(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC, 0o600), 0)

    def open(self, path: Path, *, write: bool = False) -> LocalFile:
        descriptor = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
        return LocalFile(descriptor, os.lseek(descriptor, 0, os.SEEK_END))

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def remove_directory(self, path: Path) -> None:
        path.rmdir()

    def sync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: Path) -> LocalFile:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return LocalFile(descriptor, 0)


class LocalFile:
    """A descriptor whose position is always the file's end. `close` may be called again."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size

    def append(self, data: bytes) -> None:
        written = os.write(self._descriptor, data)
        while written < len(data):
            written += os.write(self._descriptor, memoryview(data)[written:])
        self.size += written

    def write_at(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= self.size, "never past the end"
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, memoryview(data)[written:], offset + written)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)
        os.lseek(self._descriptor, size, os.SEEK_SET)
        self.size = size

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def read_at(self, offset: int, count: int) -> bytes:
        return os.pread(self._descriptor, count, offset)

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def write_file(disk: Disk, path: Path, data: bytes) -> None:
    """Whole or not at all, and durable when it returns: beside, then in place of what was there."""
    temporary = path.with_name(f"{path.name}.tmp")
    file = disk.create(temporary)
    try:
        file.append(data)
        file.sync()
    except OSError:
        with contextlib.suppress(OSError):
            disk.unlink(temporary)
        raise
    finally:
        file.close()
    disk.rename(temporary, path)
    disk.sync_directory(path.parent)
