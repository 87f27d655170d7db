"""The disk of a simulated host: what was written, what of it is durable, and every way in which a disk fails.

A process that is killed leaves behind what it wrote. A power cut takes what was not synced, as far as the random likes: of a
file's last writes any one may be whole, missing, torn, or lack some sectors, and of a directory's changes any may be
missing. That is as much as POSIX allows and more than ext4 does.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from random import Random
from typing import NamedTuple, NoReturn

SECTOR = 512


class Crash(BaseException):
    """The process that asked for the operation is gone; whoever catches this sees to its host's end."""


class Killed(Crash):
    """Only the process."""


class PowerCut(Crash):
    """The whole machine: call `cut_power` too."""


class Write(NamedTuple):
    offset: int
    data: bytes


class Truncate(NamedTuple):
    size: int


@dataclass(eq=False)
class Inode:
    """`content` is what a process reads; `durable` is on the platter; `pending` lies between them, in order."""

    content: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Write | Truncate] = field(default_factory=list)
    locked: bool = False

    def change(self, change: Write | Truncate) -> None:
        _apply(self.content, change)
        self.pending.append(change)

    def persist(self) -> None:
        for change in self.pending:
            _apply(self.durable, change)
        self.pending.clear()

    def persist_some(self, random: Random) -> None:
        """Sizes change in order, as far as they get; the sectors within are written or not, each for itself."""
        kept = random.randint(0, len(self.pending))
        for change in self.pending[:kept]:
            if isinstance(change, Write):
                self._persist_sectors(change, random)
            else:
                _apply(self.durable, change)
        torn = self.pending[kept] if kept < len(self.pending) else None
        if isinstance(torn, Write) and random.random() < 0.5:
            self._persist_sectors(Write(torn.offset, torn.data[: random.randint(0, len(torn.data))]), random)
        self.pending.clear()

    def _persist_sectors(self, write: Write, random: Random) -> None:
        chance = random.choice((1.0, 1.0, 0.5, 0.0))
        end = write.offset + len(write.data)
        _extend(self.durable, end)
        start = write.offset
        while start < end:
            edge = min(end, start - start % SECTOR + SECTOR)
            if random.random() < chance:
                self.durable[start:edge] = write.data[start - write.offset : edge - write.offset]
            start = edge


def _apply(data: bytearray, change: Write | Truncate) -> None:
    if isinstance(change, Truncate):
        del data[change.size :]
        _extend(data, change.size)
    else:
        _extend(data, change.offset)
        data[change.offset : change.offset + len(change.data)] = change.data


def _extend(data: bytearray, size: int) -> None:
    data.extend(bytes(max(0, size - len(data))))


@dataclass(eq=False)
class Directory:
    entries: dict[str, Inode | Directory] = field(default_factory=dict)
    durable: dict[str, Inode | Directory] = field(default_factory=dict)


Node = Inode | Directory


class Change(NamedTuple):
    """One atomic change of names: each now means that node, or nothing."""

    names: list[tuple[Directory, str, Node | None]]

    def apply(self, *, durably: bool) -> None:
        for directory, name, node in self.names:
            entries = directory.durable if durably else directory.entries
            if node is None:
                entries.pop(name, None)
            else:
                entries[name] = node

    def touches(self, others: list[Change], directory: Directory) -> bool:
        mine = [(id(place), name) for place, name, _ in self.names]
        return any(place is directory for place, _, _ in self.names) or any(
            (id(place), name) in mine for other in others for place, name, _ in other.names
        )


class SimulatedDisk:
    """Implements `Disk` for one process at a time. After a crash every operation crashes again, until `start`."""

    def __init__(self, random: Random) -> None:
        self.life = 1
        self.operations = 0  # that change something, of all lives
        self.capacity: int | None = None  # bytes; beyond them it is full
        self.read_only = False
        self._random = random
        self._root = Directory()
        self._changes: list[Change] = []  # of names, not durable yet
        self._locked: list[Inode] = []
        self._dead: type[Crash] | None = None
        self._crash_in: int | None = None
        self._crash: type[Crash] = PowerCut
        self._sync_fails_in: int | None = None
        self.on_crash: Callable[[], None] = lambda: None  # told at that moment, before whoever asked for the operation

    # --- what befalls it ---

    def kill(self) -> None:
        """The process is gone: its files are closed and its locks free. What it wrote stays."""
        self._dead = self._dead or Killed
        self._crash_in = None
        self.life += 1
        for inode in self._locked:
            inode.locked = False
        self._locked.clear()

    def cut_power(self) -> None:
        """What was not synced is lost, as far as the random likes."""
        self.kill()
        for change in self._changes:
            if self._random.random() < 0.5:
                change.apply(durably=True)
        self._changes.clear()
        self._lose(self._root)

    def _lose(self, directory: Directory) -> None:
        directory.entries = dict(directory.durable)
        for _, node in sorted(directory.entries.items()):
            if isinstance(node, Directory):
                self._lose(node)
            else:
                node.persist_some(self._random)
                node.content = bytearray(node.durable)

    def start(self) -> None:
        """A new process may use it."""
        self._dead = None

    def crash_at(self, operation: int, crash: type[Crash] = PowerCut) -> None:
        """In the middle of the n-th changing operation from now (1 is the next): `crash` is raised, and has happened."""
        self._crash_in, self._crash = operation, crash

    def fail_sync(self, number: int = 1) -> None:
        """The n-th sync of a file or directory from now raises EIO.

        What of a file it was to write is lost, and its later syncs succeed. What of a directory it was to write is tried
        again by the next: names are in a file system's own journal, and one that can't write that stops altogether.
        """
        self._sync_fails_in = number

    def heal(self) -> None:
        """It works again, and has room; what it has lost it has lost."""
        self.capacity, self.read_only = None, False
        self._sync_fails_in = self._crash_in = None

    def flip(self, path: Path, offset: int, mask: int = 1) -> None:
        """Bits rot."""
        inode = self._inode(path)
        for data in (inode.content, inode.durable):
            if offset < len(data):
                data[offset] ^= mask

    def flip_any(self, under: Path) -> tuple[Path, int] | None:
        """One bit of all that is durable there; returns where, or None if nothing is."""
        files = [(path, inode) for path, inode in self.files(under) if inode.durable]
        total = sum(len(inode.durable) for _, inode in files)
        if total == 0:
            return None
        offset = self._random.randrange(total)
        for path, inode in files:
            if offset < len(inode.durable):
                self.flip(path, offset, 1 << self._random.randrange(8))
                return path, offset
            offset -= len(inode.durable)
        raise AssertionError("the offset lies in one of them")

    def wipe(self) -> None:
        """An empty disk takes its place."""
        self.kill()
        self._root = Directory()
        self._changes.clear()

    @property
    def used(self) -> int:
        return sum(len(inode.content) for _, inode in self.files(Path("/")))

    def files(self, under: Path) -> list[tuple[Path, Inode]]:
        node = self._find(under)
        return [] if node is None else list(_walk(under, node))

    # --- what a process asks of it ---

    def make_directory(self, path: Path) -> None:
        self._check()
        directory = self._root
        for part in _parts(path):
            if part not in directory.entries:
                made = Directory()
                with _Operation(self):
                    self._change((directory, part, made))
                self._sync_names(directory)
            node = directory.entries[part]
            if not isinstance(node, Directory):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            directory = node

    def names(self, directory: Path) -> list[str]:
        self._check()
        return sorted(self._directory(directory).entries)

    def create(self, path: Path) -> SimulatedFile:
        directory = self._directory(path.parent)
        with _Operation(self):
            inode = directory.entries.get(path.name)
            if isinstance(inode, Inode):
                inode.change(Truncate(0))
            else:
                inode = Inode()
                self._change((directory, path.name, inode))
        return SimulatedFile(self, inode)

    def open(self, path: Path, *, write: bool = False) -> SimulatedFile:
        self._check(changing=write)
        return SimulatedFile(self, self._inode(path))

    def read(self, path: Path) -> bytes:
        self._check()
        return bytes(self._inode(path).content)

    def size(self, path: Path) -> int:
        self._check()
        return len(self._inode(path).content)

    def rename(self, source: Path, target: Path) -> None:
        old, new = self._directory(source.parent), self._directory(target.parent)
        if source.name not in old.entries:
            raise _missing(source)
        with _Operation(self):
            self._change((old, source.name, None), (new, target.name, old.entries[source.name]))

    def unlink(self, path: Path) -> None:
        directory = self._directory(path.parent)
        if path.name in directory.entries:
            with _Operation(self):
                self._change((directory, path.name, None))

    def remove_directory(self, path: Path) -> None:
        if self._directory(path).entries:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
        directory = self._directory(path.parent)
        with _Operation(self):
            self._change((directory, path.name, None))

    def sync_directory(self, path: Path) -> None:
        directory = self._directory(path)
        with _Operation(self):
            if self._sync_fails():
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        self._sync_names(directory)

    def lock(self, path: Path) -> SimulatedFile:
        directory = self._directory(path.parent)
        if path.name not in directory.entries:
            self.create(path)
        inode = self._inode(path)
        if inode.locked:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        inode.locked = True
        self._locked.append(inode)
        return SimulatedFile(self, inode)

    # --- inside ---

    def _check(self, *, changing: bool = False) -> None:
        if self._dead is not None:
            raise self._dead
        if changing and self.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def _crash_now(self) -> bool:
        if self._crash_in is not None:
            self._crash_in -= 1
            return self._crash_in <= 0
        return False

    def _die(self) -> NoReturn:
        self._dead = self._crash
        if self._crash is PowerCut:
            self.cut_power()
        else:
            self.kill()
        self.on_crash()
        raise self._crash

    def _sync_fails(self) -> bool:
        if self._sync_fails_in is None:
            return False
        self._sync_fails_in -= 1
        if self._sync_fails_in > 0:
            return False
        self._sync_fails_in = None
        return True

    def _change(self, *names: tuple[Directory, str, Node | None]) -> None:
        change = Change(list(names))
        change.apply(durably=False)
        self._changes.append(change)

    def _sync_names(self, directory: Directory) -> None:
        """With what was changed before under the same names, or a name could come back."""
        due: list[Change] = []
        for change in reversed(self._changes):
            if change.touches(due, directory):
                due.append(change)
        for change in reversed(due):
            change.apply(durably=True)
        self._changes = [change for change in self._changes if change not in due]

    def _find(self, path: Path) -> Node | None:
        node: Node | None = self._root
        for part in _parts(path):
            node = node.entries.get(part) if isinstance(node, Directory) else None
        return node

    def _directory(self, path: Path) -> Directory:
        node = self._find(path)
        if not isinstance(node, Directory):
            raise _missing(path)
        return node

    def _inode(self, path: Path) -> Inode:
        node = self._find(path)
        if not isinstance(node, Inode):
            raise _missing(path)
        return node


class _Operation:
    """One changing operation. It crashes once its effect is there and before anybody hears of it."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk

    def __enter__(self) -> bool:
        """Whether the crash comes in this one."""
        self._disk._check(changing=True)
        self._disk.operations += 1
        self._crash = self._disk._crash_now()
        return self._crash

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._crash and kind is None:
            self._disk._die()


class SimulatedFile:
    """Implements `File`. Of no use to anybody once its process is gone."""

    def __init__(self, disk: SimulatedDisk, inode: Inode) -> None:
        self._disk = disk
        self._inode = inode
        self._life = disk.life
        self._open = True

    @property
    def size(self) -> int:
        return len(self._inode.content)

    def append(self, data: bytes) -> None:
        self._check()
        with _Operation(self._disk) as crashes:
            room = len(data) if self._disk.capacity is None else max(0, self._disk.capacity - self._disk.used)
            written = data[: self._disk._random.randint(0, len(data))] if crashes else data[:room]
            if written:
                self._inode.change(Write(self.size, bytes(written)))
            if len(data) > room and not crashes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_at(self, offset: int, data: bytes) -> None:
        self._check()
        assert offset + len(data) <= self.size, "never past the end"
        with _Operation(self._disk):
            self._inode.change(Write(offset, bytes(data)))

    def truncate(self, size: int) -> None:
        self._check()
        with _Operation(self._disk):
            self._inode.change(Truncate(size))

    def sync(self) -> None:
        self._check()
        with _Operation(self._disk):
            if self._disk._sync_fails():
                self._inode.persist_some(self._disk._random)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._inode.persist()

    def read_at(self, offset: int, count: int) -> bytes:
        self._check()
        return bytes(self._inode.content[offset : offset + count])

    def close(self) -> None:
        if self._open and self._life == self._disk.life and self._inode in self._disk._locked:
            self._disk._locked.remove(self._inode)
            self._inode.locked = False
        self._open = False

    def _check(self) -> None:
        if self._life != self._disk.life:
            raise self._disk._dead or Killed
        assert self._open, "the file is closed"


def _walk(path: Path, node: Node) -> Iterator[tuple[Path, Inode]]:
    if isinstance(node, Inode):
        yield path, node
    else:
        for name, each in sorted(node.entries.items()):
            yield from _walk(path / name, each)


def _parts(path: PurePath) -> list[str]:
    return [part for part in path.parts if part != "/"]


def _missing(path: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
