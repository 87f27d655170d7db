"""Where the harness keeps what must outlive it: never in a folder of the managers, who may write there and may be removed."""

from __future__ import annotations

import os
from pathlib import Path

STATE_DIR = "HASCHED_STATE_DIR"
NAME = "hasched-chaos"


def state_dir() -> Path:
    """`chaos` in HASCHED_STATE_DIR, else /var/lib/hasched-chaos for root, else ~/.local/state/hasched-chaos."""
    chosen = os.environ.get(STATE_DIR)
    if chosen:
        return Path(chosen).absolute() / "chaos"
    if os.geteuid() == 0:
        return Path("/var/lib") / NAME
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local" / "state") / NAME


def variables() -> dict[str, str]:
    """What a process that stands in another folder needs in its environment, beside ours, to find the same places."""
    chosen = os.environ.get(STATE_DIR)
    return {STATE_DIR: str(Path(chosen).absolute())} if chosen else {}


def ledgers_dir() -> Path:
    return state_dir() / "ledgers"


def audit_path() -> Path:
    return state_dir() / "audit.jsonl"


def make_private(folder: Path) -> None:
    """With its parents; those that are there already stay as they are. Raises OSError."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
