"""What a terminal shows while an answer is worked out: nothing for a second, then that it goes on."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hasched.cli.settings import Settings

PATIENCE_S = 1.0


@contextmanager
def patience(settings: Settings, what: str) -> Iterator[None]:
    """Say on stderr, if that is a terminal and nobody wants JSON, that `what` is under way, once it takes over a second."""
    if settings.as_json or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    spinner = Console(stderr=True).status(f"{what}…")
    timer = threading.Timer(PATIENCE_S, spinner.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        spinner.stop()
