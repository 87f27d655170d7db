"""What a run of the fault harness left on this machine."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path


def traces_of(run_id: str) -> list[str]:
    """Namespaces, interfaces in them, mounts, loop devices, folders and processes that carry the name of this run."""
    mark = f"hasched-chaos-{run_id}"
    namespaces = Path("/run/netns")
    found = [f"namespace {path.name}" for path in (namespaces.iterdir() if namespaces.is_dir() else ())]
    found += [f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found += [f"folder {path}" for path in Path(tempfile.gettempdir()).iterdir()]
    if loops := _loop_devices():
        found += [f"loop device {line}" for line in loops]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            found += [f"process {entry.name} {_texts(entry)}"]
    return [each for each in found if mark in each]


def _texts(process: Path) -> str:
    try:
        return b" ".join([(process / "cmdline").read_bytes(), (process / "environ").read_bytes()]).decode(
            errors="replace"
        )
    except OSError:  # it has ended
        return ""


def _loop_devices() -> list[str]:
    return subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=False).stdout.splitlines()
