"""Where the harness keeps what must outlive it."""

from __future__ import annotations

import os
from pathlib import Path

STATE_DIR = "HASCHED_STATE_DIR"


def state_dir() -> Path:
    """As HASCHED_STATE_DIR says, else /var/lib/hasched for root, else ~/.local/state/hasched."""
    chosen = os.environ.get(STATE_DIR)
    if chosen:
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/hasched")
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "hasched"


def ledgers_dir() -> Path:
    return state_dir() / "chaos" / "ledgers"


def audit_path() -> Path:
    return state_dir() / "chaos" / "audit.jsonl"


def make_private(folder: Path) -> None:
    """With its parents. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
