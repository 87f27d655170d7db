"""The agent's table: every attempt that no manager has acknowledged as ended, on disk.

One connection lives in one thread. Everything that is queued when the thread is free becomes one transaction with one
sync, so a hundred attempts cost what one does.

A table has an id, made with it: whoever knows the id of before sees that what the table held was lost.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import uuid
from collections.abc import Callable

import msgspec
import structlog

from hasched.agent.events import Row, Save
from hasched.model.ids import AttemptId
from hasched.model.wire import AttemptEnded

SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
    job_id INTEGER, task_index INTEGER, attempt INTEGER, supervisor TEXT NOT NULL, ended BLOB,
    PRIMARY KEY (job_id, task_index, attempt)
) WITHOUT ROWID
"""
IDENTITY = "CREATE TABLE IF NOT EXISTS identity (id TEXT NOT NULL)"
ADD = "INSERT OR IGNORE INTO attempts VALUES (?, ?, ?, ?, NULL)"
END = "INSERT INTO attempts VALUES (?, ?, ?, '', ?) ON CONFLICT DO UPDATE SET ended = excluded.ended"
REMOVE = "DELETE FROM attempts WHERE job_id = ? AND task_index = ? AND attempt = ?"

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AttemptEnded)
_log = structlog.get_logger(__name__)

OnSaved = Callable[[int, str], None]  # the number of the last Save, and why it failed (empty: it did not)
OnFailed = Callable[[Exception], None]


class TableFailed(Exception):
    """The table's thread has ended of something that it can't mend: nothing is written down any more."""


class Table:
    """Both are called in the table's thread: `on_saved` after each transaction, `on_failed` if the thread has to end."""

    def __init__(self, path: str, on_saved: OnSaved, on_failed: OnFailed, max_pages: int = 1 << 20) -> None:
        self._path = path
        self._max_pages = max_pages  # of 4 KiB
        self._on_saved = on_saved
        self._on_failed = on_failed
        self._queue: queue.SimpleQueue[Save | None] = queue.SimpleQueue()
        self._rows: queue.SimpleQueue[tuple[Row, ...] | Exception] = queue.SimpleQueue()
        self.table_id = ""  # once it is open
        self._thread = threading.Thread(target=self._run, name="table", daemon=True)

    def open(self) -> tuple[Row, ...]:
        """Start, and read what an agent before us left. Raises sqlite3.Error."""
        self._thread.start()
        rows = self._rows.get()
        if isinstance(rows, Exception):
            raise rows
        return rows

    def save(self, save: Save) -> None:
        self._queue.put(save)

    def close(self) -> None:
        """Finish what is queued, and end the thread."""
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            connection = sqlite3.connect(self._path, isolation_level=None)
            for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", SCHEMA, IDENTITY):
                connection.execute(statement)
            self.table_id = _identify(connection)
            connection.execute(f"PRAGMA max_page_count = {self._max_pages:d}")
            self._rows.put(_read(connection))
        except Exception as error:  # whatever it is, `open` raises it
            self._rows.put(error)
            return
        try:
            self._serve(connection)
        except Exception as error:
            self._on_failed(error)
        finally:
            connection.close()

    def _serve(self, connection: sqlite3.Connection) -> None:
        while (saves := self._take()) is not None:
            try:
                _write(connection, saves)
            except sqlite3.Error as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                _log.error("table_not_written", path=self._path, cause=str(error))
                self._on_saved(saves[-1].number, str(error))
            else:
                self._on_saved(saves[-1].number, "")

    def _take(self) -> list[Save] | None:
        """Wait for work, and take all that there is; None to end."""
        first = self._queue.get()
        if first is None:
            return None
        saves = [first]
        while not self._queue.empty():
            save = self._queue.get()
            if save is None:
                self._queue.put(None)
                break
            saves.append(save)
        return saves


def _identify(connection: sqlite3.Connection) -> str:
    """The table's id, which is given to it at the first call."""
    if (known := connection.execute("SELECT id FROM identity").fetchone()) is not None:
        return str(known[0])
    table_id = uuid.uuid4().hex
    connection.execute("INSERT INTO identity VALUES (?)", (table_id,))
    return table_id


def _read(connection: sqlite3.Connection) -> tuple[Row, ...]:
    rows = connection.execute("SELECT job_id, task_index, attempt, supervisor, ended FROM attempts ORDER BY 1, 2, 3")
    return tuple(
        Row(AttemptId(job_id, index, attempt), supervisor, _decoder.decode(ended) if ended is not None else None)
        for job_id, index, attempt, supervisor, ended in rows
    )


def _write(connection: sqlite3.Connection, saves: list[Save]) -> None:
    """One transaction, in the order of the saves."""
    connection.execute("BEGIN")
    for save in saves:
        if save.added:
            connection.executemany(ADD, [(*row.key, row.supervisor) for row in save.added])
        if save.ended:
            ends = [(end.job_id, end.index, end.attempt, _encoder.encode(end)) for end in save.ended]
            connection.executemany(END, ends)
        if save.removed:
            connection.executemany(REMOVE, save.removed)
    connection.execute("COMMIT")
