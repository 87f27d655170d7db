"""A file system of its own on a loop file, whose power can be cut: what was not synced is really gone.

Whoever writes there must stand still first (SIGSTOP), and be killed afterwards: a process that goes on after the file system
was shut down would see errors that no power cut shows. Needs root, and ext4.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tests.support.cluster import eventually

SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
NO_LOG_FLUSH = 2
IMAGE_BYTES = 2**30  # sparse


def find_obstacle() -> str | None:
    """What this machine lacks for it, or None."""
    if os.geteuid() != 0:
        return "file systems on loop devices need root"
    for tool in ("losetup", "mkfs.ext4", "mount", "umount"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if not Path("/dev/loop-control").exists():
        return "this machine gives no loop devices"
    return None


@contextmanager
def shared_mounts(folder: Path) -> Iterator[None]:
    """What is unmounted below `folder` is unmounted everywhere.

    Otherwise a process that began a mount namespace of its own meanwhile (`ip netns exec` does) keeps its copy, and with it
    the file system that was shut down, which then is what is mounted again.
    """
    _run("mount", "--bind", str(folder), str(folder))
    try:
        _run("mount", "--make-shared", str(folder))
        yield
    finally:
        _run("umount", "-l", str(folder))


class LoopDisk:
    """Mounted at `path` while it is entered; within `shared_mounts` only."""

    def __init__(self, image: Path, path: Path) -> None:
        self.path = path
        self._image = image
        self._mounted = False

    def __enter__(self) -> LoopDisk:
        with self._image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self.path.mkdir(exist_ok=True)
        self.mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mounted:
            _run("umount", "-l", str(self.path))  # whatever still uses it; the loop device goes with it
        self._image.unlink()

    def mount(self) -> None:
        """The journal of the file system is replayed, as after a power cut."""
        _run("mount", "-o", "loop", str(self._image), str(self.path))
        self._mounted = True

    def cut_power(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """When nobody uses it any more."""
        _run("umount", str(self.path))
        self._mounted = False
        eventually("the loop device to be free", lambda: not _run("losetup", "-j", str(self._image)))


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
