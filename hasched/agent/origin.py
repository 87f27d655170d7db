"""The origin of the cluster that this agent belongs to: told by the first leader that it met, and kept in its data directory.

A leader of another origin knows nothing of what runs here, and would have it all stopped. See docs/adr/0014-cluster-origin.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from hasched.client.files import replace_file

FILE = "origin"


def read_origin(data_dir: Path) -> str:
    """Empty if no leader has told one yet. Raises OSError for a file that can't be read, or holds nothing."""
    path = data_dir / FILE
    try:
        origin = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return ""
    if not origin:
        raise OSError(f"{path} is damaged: it should hold a cluster's origin. Remove it to belong to whichever answers")
    return origin


def keep_origin(data_dir: Path, origin: str) -> None:
    """Durable when it returns. Raises OSError."""
    replace_file(data_dir / FILE, f"{origin}\n".encode())
    directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
