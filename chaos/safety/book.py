"""The file of a ledger, as the harness, its guard and a later `heal` share it.

JSON lines: whose it is, then what was armed, what was struck off, and what could not be undone. A line that isn't whole was
never said: whoever armed it had not begun the harm. Undoing and striking off happen under a lock, so that nobody undoes
what somebody else made anew meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, assert_never

import msgspec

from chaos.safety.audit import Act, Audit
from chaos.safety.identity import Born, boot_id
from chaos.safety.lines import append_line
from chaos.safety.undo import Undo

LOCK_PATIENCE_S = 5.0
LOCK_POLL_S = 0.005
ROUNDS = 3  # of undoing all: what failed may work once the others are undone
ROUND_PAUSE_S = 0.5


class Owner(msgspec.Struct, frozen=True, kw_only=True, tag="owner"):
    """The first line. `boot` and `host` say where its processes are to be found."""

    run: str
    cluster: str
    command: str
    harness: Born
    boot: str
    host: str
    uid: int
    at_ms: int


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag="armed"):
    """`until_ms` is on CLOCK_BOOTTIME; 0: for the life of the run."""

    number: int
    what: str
    undo: Undo
    until_ms: int = 0


class StruckOff(msgspec.Struct, frozen=True, tag="struck off"):
    number: int


class NotUndone(msgspec.Struct, frozen=True, tag="not undone"):
    number: int
    reason: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The run is over, though its process may go on; what is open could not be undone."""


Line: TypeAlias = Owner | Entry | StruckOff | NotUndone | Ended
_decode = msgspec.json.Decoder(Line).decode


def now_ms() -> int:
    """CLOCK_BOOTTIME: the same for all processes, and nobody sets it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Book:
    """`open` are the entries that are neither undone nor struck off, the oldest first."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._read = 0  # bytes
        self._thread_lock = threading.RLock()
        self.owner: Owner | None = None
        self.is_over = False
        self.open: dict[int, Entry] = {}
        self.reasons: dict[int, str] = {}  # why an entry is still open, by number
        self.strange: list[str] = []  # lines of another version: somebody armed something that we don't know
        self.refresh()

    @classmethod
    def create(cls, path: Path, owner: Owner) -> Book:
        """Durable, or not there at all. Raises OSError."""
        beside = path.with_name(f".{path.name}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(beside, flags, 0o600)
        try:
            append_line(descriptor, msgspec.json.encode(owner))
            os.fsync(descriptor)
            beside.rename(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        _sync_folder(path.parent)
        return cls(path)

    def close(self) -> None:
        os.close(self._descriptor)

    def refresh(self) -> None:
        """Take in what others wrote meanwhile."""
        with self._thread_lock:
            size = os.fstat(self._descriptor).st_size
            content = os.pread(self._descriptor, size - self._read, self._read)
            whole, newline, _ = content.rpartition(b"\n")
            self._read += len(whole) + len(newline)
            for text in whole.split(b"\n"):
                self._take(text)

    def _take(self, text: bytes) -> None:
        try:
            line = _decode(text)
        except msgspec.ValidationError as error:
            self.strange.append(f"a line that this version can't read ({error}): {text.decode(errors='replace')}")
            return
        except msgspec.DecodeError:
            return  # half a line, or none
        match line:
            case Owner():
                self.owner = self.owner or line
            case Entry():
                self.open[line.number] = line
            case StruckOff():
                self._forget(line.number)
            case NotUndone():
                self.reasons[line.number] = line.reason
            case Ended():
                self.is_over = True
            case _:
                assert_never(line)

    def add(self, entry: Entry) -> None:
        """Durable when it returns. Raises OSError: then it may not be counted on."""
        with self._thread_lock:
            self._append(entry)
            os.fdatasync(self._descriptor)
            self.refresh()

    def strike_off(self, number: int) -> None:
        """If the line is lost, or the disk is full, somebody undoes the entry once more, which harms nobody."""
        with self._thread_lock:
            with contextlib.suppress(OSError):
                self._append(StruckOff(number))
            self.refresh()
            self._forget(number)

    def _forget(self, number: int) -> None:
        self.open.pop(number, None)
        self.reasons.pop(number, None)

    def _append(self, line: Line) -> None:
        append_line(self._descriptor, msgspec.json.encode(line))

    def undo(self, number: int, audit: Audit, act: Act) -> bool:
        """Perform it and strike it off. False if somebody has done so already. Raises OSError, and notes the reason."""
        with self.locked():
            self.refresh()
            entry = self.open.get(number)
            if entry is None:
                return False
            try:
                if entry.undo.survives_boot or self._is_of_this_boot():
                    entry.undo.perform()
            except OSError as error:
                audit.try_to_write(act, f"failed: {entry.undo} ({entry.what}): {error}")
                self._say_why(number, str(error))
                raise
            self.strike_off(number)
            audit.try_to_write(act, f"{entry.undo} ({entry.what})")
            return True

    def _say_why(self, number: int, reason: str) -> None:
        if self.reasons.get(number) != reason:
            with contextlib.suppress(OSError):  # on a full disk it is known to us alone
                self._append(NotUndone(number, reason))
            self.reasons[number] = reason

    def undo_all(self, audit: Audit, act: Act) -> list[str]:
        """The latest first. Sentences about what was done; what could not be is still `open`, with its reason."""
        done: list[str] = []
        for tries_left in reversed(range(ROUNDS)):
            self.refresh()
            for number, entry in reversed(list(self.open.items())):
                with contextlib.suppress(OSError):
                    if self.undo(number, audit, act):
                        done.append(f"{entry.undo} ({entry.what})")
            if not self.open:
                break
            time.sleep(ROUND_PAUSE_S if tries_left else 0)
        return done

    def left(self) -> list[str]:
        """Sentences about what is still open."""
        self.refresh()
        failed = [
            f"{entry.undo} ({entry.what}): {self.reasons.get(number, 'not tried yet')}"
            for number, entry in reversed(list(self.open.items()))
        ]
        return failed + self.strange

    def end(self) -> None:
        """Of the run; what is left in it anybody may undo now."""
        with self._thread_lock, contextlib.suppress(OSError):
            self._append(Ended())

    def remove(self) -> None:
        """When nothing is left in it."""
        self.path.unlink(missing_ok=True)

    def _is_of_this_boot(self) -> bool:
        return self.owner is not None and self.owner.boot == boot_id()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Against other threads and processes. One that stands still with the lock doesn't keep us from healing."""
        with self._thread_lock:
            deadline = time.monotonic() + LOCK_PATIENCE_S
            while not self._try_to_lock() and time.monotonic() < deadline:
                time.sleep(LOCK_POLL_S)
            try:
                yield
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _try_to_lock(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
