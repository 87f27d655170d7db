"""The ledger of a run: before any harm its way back is here, on disk; a guard in a process of its own walks it if we can't.

`with Ledger.open(…) as ledger`, then `ledger.armed(undo, what, seconds)` around each fault.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

import chaos
from chaos.errors import MachineLacks
from chaos.safety.audit import Act, Audit
from chaos.safety.book import Book, Entry, Owner, now_ms
from chaos.safety.identity import Born, boot_id, born, is_stopped
from chaos.safety.places import ledgers_dir, make_private, variables
from chaos.safety.undo import Undo

GUARD = "chaos.safety.guard"
READY = b"."
START_PATIENCE_S = 30.0
END_PATIENCE_S = 30.0


class Armed:
    """One way back that stands in the ledger."""

    def __init__(self, ledger: Ledger, number: int) -> None:
        self._ledger = ledger
        self._number = number

    def undo(self) -> None:
        """Perform it now and strike it off; nothing if the guard did so already. Raises OSError: then it stays."""
        self._ledger._undo(self._number)

    def strike_off(self) -> None:
        """It is undone already, by other means."""
        self._ledger._strike_off(self._number)


class Ledger:
    """Of one run. It may be used from several threads."""

    def __init__(self, book: Book, run_id: str, cluster: str) -> None:
        self.run_id = run_id
        self.audit = Audit(run_id, cluster)
        self.left: list[str] = []  # after `close`: what could not be undone
        self._book = book
        self._lock = threading.RLock()
        self._next = 1
        self._guard: Guard | None = None
        self._closed = False

    @classmethod
    def open(cls, cluster: str, *, command: str) -> Ledger:
        """`command` is what repeats the run. Raises MachineLacks if there can be no ledger, or no guard."""
        run_id = secrets.token_hex(4)
        harness = born(os.getpid())
        assert harness is not None, "we are here"
        owner = Owner(
            run=run_id,
            cluster=cluster,
            command=command,
            harness=harness,
            boot=boot_id(),
            host=socket.gethostname(),
            uid=os.geteuid(),
            at_ms=time.time_ns() // 1_000_000,
        )
        folder = ledgers_dir()
        try:
            make_private(folder)
            book = Book.create(folder / f"{run_id}.jsonl", owner)
        except OSError as error:
            raise _lacks("no ledger can be kept", error) from None
        ledger = cls(book, run_id, cluster)
        try:
            ledger._keep_guard()
        except BaseException:
            book.remove()
            book.close()
            raise
        return ledger

    @property
    def path(self) -> Path:
        return self._book.path

    @property
    def guard(self) -> Born | None:
        """The guard's process, while there is one."""
        return self._guard.process if self._guard is not None else None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- faults ---

    def arm(self, undo: Undo, what: str, seconds: float | None = None) -> Armed:
        """Durable before it returns, so the harm may begin. Without `seconds` it is for the life of the run.

        Raises MachineLacks if the way back, or the audit, can't be kept: then nothing may be harmed.
        """
        with self._lock:
            assert not self._closed, "the run is over"
            self._keep_guard()
            number, self._next = self._next, self._next + 1
            until_ms = now_ms() + round(seconds * 1000) if seconds is not None else 0
            try:
                self._book.add(Entry(number=number, what=what, undo=undo, until_ms=until_ms))
            except OSError as error:
                raise _lacks("the ledger can't be written", error) from None
            try:
                self.audit.write(Act.ARM, f"{what}; at the end: {undo}")
            except OSError as error:
                self._strike_off(number)
                raise _lacks("the audit log can't be written", error) from None
            return Armed(self, number)

    @contextmanager
    def armed(self, undo: Undo, what: str, seconds: float | None = None) -> Iterator[Armed]:
        """Undone at the end. Raises OSError there if that fails; it stays in the ledger and is tried again."""
        armed = self.arm(undo, what, seconds)
        try:
            yield armed
        finally:
            armed.undo()

    def note(self, act: Act, what: str) -> None:
        """For harm that needs no undoing, before it is done. Raises MachineLacks if it can't be noted."""
        try:
            self.audit.write(act, what)
        except OSError as error:
            raise _lacks("the audit log can't be written", error) from None

    def _undo(self, number: int) -> None:
        self._book.undo(number, self.audit, Act.UNDO)

    def _strike_off(self, number: int) -> None:
        with self._book.locked():
            self._book.strike_off(number)

    # --- the guard ---

    def _keep_guard(self) -> None:
        """A guard that is dead, or was stopped, is replaced: nothing is harmed without one."""
        if self._guard is not None and self._guard.is_awake():
            return
        if self._guard is not None:
            self._guard.abandon()
        try:
            self._guard = Guard(self._book.path)
        except OSError as error:
            self._guard = None
            raise _lacks("there is no guard", error) from None

    def close(self) -> list[str]:
        """Undo what is left, the latest first, and let the guard go. Sentences about what could not be undone."""
        with self._lock:
            if self._closed:
                return self.left
            self._closed = True
            self._book.undo_all(self.audit, Act.UNDO)
            self.left = self._book.left()
            if self.left:
                self._book.end()
            else:
                self._book.remove()
            if self._guard is not None:
                self._guard.release()
            self._book.close()
            return self.left


class Guard:
    """The guard's process, from our side. It heals once the pipe to it is closed, whoever closes it."""

    def __init__(self, ledger: Path) -> None:
        """Returns once it is on guard. Raises OSError."""
        root = str(Path(chaos.__file__).parent.parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", GUARD, str(ledger)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        process = born(self._popen.pid)
        said = _read_byte(self._popen.stdout) if process is not None else b""
        if said != READY or process is None:
            self.abandon()
            raise OSError("the guard did not start")
        self.process: Born = process

    def is_awake(self) -> bool:
        return self._popen.poll() is None and not is_stopped(self.process)

    def release(self) -> None:
        """It heals what is left, and ends."""
        self._close_pipes()
        try:
            self._popen.wait(END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.abandon()

    def abandon(self) -> None:
        """It ends without healing: the harness is there to do so, or another guard."""
        self._popen.kill()
        self._popen.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()


def _read_byte(pipe: IO[bytes] | None) -> bytes:
    assert pipe is not None, "it was asked for"
    readable, _, _ = select.select([pipe], [], [], START_PATIENCE_S)
    return os.read(pipe.fileno(), 1) if readable else b""


def _lacks(what: str, error: OSError) -> MachineLacks:
    return MachineLacks(
        f"{what}: {error}",
        "nothing was harmed; make room, or name a place that you can write to in HASCHED_STATE_DIR",
    )
