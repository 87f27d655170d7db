"""`python -m tests.support.watched …` is `hasched …` with a heartbeat on the manager's loop, which notes where it comes late.

A line in the file that HASCHED_WATCHED names: the time, how late the beat was, and how much of that the loop's own thread
spent on the processor; the rest it waited, for the interpreter's lock or for the machine. In seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import hasched.manager.main
from hasched.cli.main import main

PERIOD_S = 0.002
LATE_S = 0.004


async def beat() -> None:
    with open(os.environ["HASCHED_WATCHED"], "a", buffering=1) as notes:
        while True:
            begun, spent = time.monotonic(), time.thread_time()
            await asyncio.sleep(PERIOD_S)
            late = time.monotonic() - begun - PERIOD_S
            if late >= LATE_S:
                notes.write(f"{time.time():.4f} {late:.4f} {time.thread_time() - spent:.4f}\n")


if __name__ == "__main__":
    hasched.manager.main.feed_watchdog = beat
    sys.exit(main())
