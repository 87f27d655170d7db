"""What is mounted where, and away with it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

LAYERS = 20  # mounts at one place, more than the harness ever makes


def below(path: Path) -> list[str]:
    """Where something is mounted, at `path` or deeper."""
    return [place for place, _ in _mounted() if place == str(path) or place.startswith(f"{path}/")]


def unmount(path: Path) -> None:
    """At once, though somebody may still use it (then it is gone when they are). Raises OSError."""
    for _ in range(LAYERS):
        source = next((source for place, source in reversed(_mounted()) if place == str(path)), None)
        if source is None:
            return
        image = _image(source)
        done = subprocess.run(["umount", "--lazy", str(path)], capture_output=True, text=True, check=False)
        if done.returncode != 0 and any(place == str(path) for place, _ in _mounted()):
            raise OSError(f"umount {path}: {done.stderr.strip()}")
        if image and _image(source) == image:  # not another's by now: `mount -o loop` lets its device go by itself
            subprocess.run(["losetup", "--detach", source], capture_output=True, check=False)
    raise OSError(f"{path} is still mounted after {LAYERS} times")


def _mounted() -> list[tuple[str, str]]:
    """(where, what), the latest last."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        first, _, second = line.partition(" - ")
        found.append((_plain(first.split()[4]), _plain(second.split()[1])))
    return found


def _image(source: str) -> str:
    """The file behind a loop device; empty for anything else."""
    if not source.startswith("/dev/loop"):
        return ""
    try:
        return (Path("/sys/block") / Path(source).name / "loop" / "backing_file").read_text().strip()
    except OSError:
        return ""


def _plain(text: str) -> str:
    r"""The kernel writes a space in a path as \040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text)
