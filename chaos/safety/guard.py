"""The guard: `python -m chaos.safety.guard LEDGER`, started by the ledger's harness, which holds the other end of our stdin.

While the harness lives, it undoes what is past its deadline, because then the harness hangs. When the harness is gone,
however it went, it undoes everything and ends. It stands in a session of its own and ignores what ends a terminal's work.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path

from chaos.safety.audit import Act, Audit
from chaos.safety.book import Book, now_ms
from chaos.safety.ledger import READY

MARGIN_MS = 2_000  # a harness that is only slow undoes its faults itself
LOOK_MS = 250
RETRY_S = 5.0  # for what could not be undone


def main(path: Path) -> int:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    book = Book(path)
    assert book.owner is not None, "a ledger is made with its owner"
    audit = Audit(book.owner.run, book.owner.cluster)
    os.write(1, READY)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a child of ours prints goes nowhere
    harness_is_gone = select.poll()
    harness_is_gone.register(0, select.POLLIN)
    failed_s: dict[int, float] = {}
    while not harness_is_gone.poll(LOOK_MS):
        book.refresh()
        for number, entry in list(book.open.items()):
            late = entry.until_ms and now_ms() > entry.until_ms + MARGIN_MS
            if late and time.monotonic() - failed_s.get(number, -RETRY_S) >= RETRY_S:
                try:
                    book.undo(number, audit, Act.HEAL)
                except OSError:  # noted in the ledger
                    failed_s[number] = time.monotonic()
    book.undo_all(audit, Act.HEAL)
    if not book.left():
        book.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
