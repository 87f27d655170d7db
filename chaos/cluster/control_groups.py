"""Control groups that supervisors leave behind when they are killed: empty directories, named after their process id.

The next agent on the machine removes them as it starts; a cluster that is gone has no next agent.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

TASKS = "hasched-tasks"


def sweep() -> None:
    """Remove those of supervisors that are gone, and nothing that still holds a process."""
    for folder in _places():
        with contextlib.suppress(OSError):  # it isn't there, or not ours
            for entry in folder.iterdir():
                pid = entry.name.partition(".")[0]
                if pid.isdigit() and not Path(f"/proc/{pid}").exists():
                    _remove(entry)


def _places() -> list[Path]:
    """Where agents that run in our own groups make theirs."""
    points = [
        words[1]
        for words in map(str.split, Path("/proc/self/mounts").read_text().splitlines())
        if words[2].startswith("cgroup")
    ]
    groups = {line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    bases = {Path(point + group) for point in points for group in (*groups, "/")}
    return sorted({place / TASKS for base in bases for place in (base, base.parent)})


def _remove(root: Path) -> None:
    for folder, _, _ in os.walk(root, topdown=False):  # its files are the kernel's and go with it
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
