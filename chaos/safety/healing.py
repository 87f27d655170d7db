"""`hasched chaos heal`: undo what harnesses have left that died together with their guards."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import time
from pathlib import Path

import msgspec

from chaos.safety.audit import Act, Audit
from chaos.safety.book import Book, Owner
from chaos.safety.identity import boot_id, is_alive, send, wait_until_gone
from chaos.safety.places import ledgers_dir

END_PATIENCE_S = 60.0  # for a harness to heal its own run
KILL_PATIENCE_S = 10.0
STALE_S = 60.0  # a ledger that was never finished


class Healed(msgspec.Struct):
    """Sentences: what was undone (in a dry run: what would be), what could not be, and which ledgers are not ours to touch."""

    done: list[str] = []
    failed: list[str] = []
    left: list[str] = []


def heal(all_of_them: bool, dry_run: bool) -> Healed:
    """Go through all ledgers; with `all_of_them` end the runs that are under way, too. What failed stays in its ledger."""
    healed = Healed()
    try:
        found = sorted(ledgers_dir().glob("*.jsonl"))  # those with a dot, too
    except OSError as error:
        healed.failed.append(f"the ledgers can't be listed: {error}")
        return healed
    unfinished = [path for path in found if path.name.startswith(".")]
    for path in [path for path in found if path not in unfinished]:
        try:
            _heal_one(path, all_of_them, dry_run, healed)
        except FileNotFoundError:  # healed meanwhile, by its harness or guard
            continue
        except OSError as error:
            healed.failed.append(f"{path}: {error}")
    for path in unfinished:  # nothing was armed in them
        if not dry_run and _is_stale(path):
            path.unlink(missing_ok=True)
    return healed


def _is_stale(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > STALE_S
    except FileNotFoundError:  # it was finished just now
        return False


def _heal_one(path: Path, all_of_them: bool, dry_run: bool, healed: Healed) -> None:
    uid = path.lstat().st_uid
    if uid != os.geteuid():  # it says what to do: we do it for nobody else
        healed.left.append(f"{path} belongs to {_user(uid)}, who must heal it")
        return
    book = Book(path)
    try:
        owner = book.owner
        if owner is None:
            healed.failed.append(f"{path} doesn't say whose it is, so it can't be healed: {'; '.join(book.strange)}")
        elif owner.host != socket.gethostname():
            healed.left.append(f"{_run(owner)} is of the machine {owner.host}, and must be healed there")
        elif _is_under_way(owner, book) and not all_of_them:
            healed.left.append(f"{_run(owner)} is under way in {owner.harness}; --all ends it")
        elif dry_run:
            _tell(owner, book, healed)
        else:
            _heal(owner, book, healed)
    finally:
        book.close()


def _tell(owner: Owner, book: Book, healed: Healed) -> None:
    if _is_under_way(owner, book):
        healed.done.append(f"{_run(owner)}: end {owner.harness}, which undoes its faults; else:")
    healed.done += [f"{_run(owner)}: {entry.undo} ({entry.what})" for entry in reversed(list(book.open.values()))]
    healed.failed += [f"{_run(owner)}: {text}" for text in book.strange]


def _heal(owner: Owner, book: Book, healed: Healed) -> None:
    audit = Audit(owner.run, owner.cluster)
    if _is_under_way(owner, book):
        what = _end(owner)
        audit.try_to_write(Act.HEAL, what)
        healed.done.append(f"{_run(owner)}: {what}")
    healed.done += [f"{_run(owner)}: {text}" for text in book.undo_all(audit, Act.HEAL)]
    left = book.left()
    healed.failed += [f"{_run(owner)}: {text}" for text in left]
    if not left:
        book.remove()


def _end(owner: Owner) -> str:
    """Have a live harness clean up and end; kill it if it doesn't. Raises OSError if it can't be ended."""
    began = time.monotonic()
    send(owner.harness, signal.SIGTERM)
    send(owner.harness, signal.SIGCONT)  # in case it stands still
    if wait_until_gone(owner.harness, END_PATIENCE_S):
        return f"told {owner.harness} to end; it did after {time.monotonic() - began:.1f} s"
    send(owner.harness, signal.SIGKILL)
    if not wait_until_gone(owner.harness, KILL_PATIENCE_S):
        raise OSError(f"{owner.harness} got SIGKILL and is still there after {KILL_PATIENCE_S:.0f} s")
    return f"told {owner.harness} to end; it didn't in {END_PATIENCE_S:.0f} s, and was killed"


def _is_under_way(owner: Owner, book: Book) -> bool:
    return not book.is_over and owner.boot == boot_id() and is_alive(owner.harness)


def _run(owner: Owner) -> str:
    return f"run {owner.run} on {owner.cluster}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
