"""A file system of its own on a loop file: its power can be cut, so that what was not synced is really gone.

It can also be filled to the last block, and be made to go read-only as after an error. Needs root, and ext4.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from chaos.errors import Unsettled

SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
NO_LOG_FLUSH = 2
IMAGE_BYTES = 2**30  # sparse
BLOCK_BYTES = 4096
ERRORS_CORRECTED = 1  # e2fsck's exit status
FREE_PATIENCE_S = 20.0
POLL_S = 0.02


def find_obstacle() -> str | None:
    """What this machine lacks for it, or None."""
    if os.geteuid() != 0:
        return "file systems on loop devices need root"
    for tool in ("losetup", "mkfs.ext4", "e2fsck", "mount", "umount"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (scripts/packages)"
    if not Path("/dev/loop-control").exists():
        return "this machine gives no loop devices"
    return None


@contextmanager
def shared_mounts(folder: Path) -> Iterator[None]:
    """What is unmounted below `folder` is unmounted everywhere."""
    share(folder)
    try:
        yield
    finally:
        run("umount", "-l", str(folder))


def share(folder: Path) -> None:
    """Make `folder` a mount whose mounts are seen, and go, in every mount namespace. Raises OSError.

    Otherwise a process that began a mount namespace of its own meanwhile (`ip netns exec` does) keeps its copy, and with it
    the file system that was shut down, which then is what is mounted again.
    """
    run("mount", "--bind", str(folder), str(folder))
    try:
        run("mount", "--make-shared", str(folder))
    except OSError:
        run("umount", str(folder))
        raise


class LoopDisk:
    """Mounted at `path` while it is entered; within shared mounts only. Methods raise OSError."""

    def __init__(self, image: Path, path: Path) -> None:
        self.path = path
        self._image = image
        self._mounted = False

    def __enter__(self) -> LoopDisk:
        self.make()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def make(self) -> None:
        with self._image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        # No blocks are kept for root: a disk that is full is full for daemons that run as root too.
        run("mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(BLOCK_BYTES), str(self._image))
        self.path.mkdir(exist_ok=True)
        self.mount()

    def remove(self) -> None:
        if self._mounted:
            run("umount", "-l", str(self.path))  # whatever still uses it; the loop device goes with it
        self.forget()

    def forget(self) -> None:
        """Once it is unmounted."""
        self._mounted = False
        self._image.unlink(missing_ok=True)

    @property
    def device(self) -> int:
        """Its number, by which files on it are known."""
        return self.path.stat().st_dev

    def mount(self) -> None:
        """The journal of the file system is replayed, as after a power cut."""
        run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.path))
        self._mounted = True

    def unmount(self) -> None:
        """When nobody uses it any more. Raises Unsettled if the loop device stays: somebody else has it mounted."""
        run("umount", str(self.path))
        self._mounted = False
        deadline = time.monotonic() + FREE_PATIENCE_S
        while run("losetup", "-j", str(self._image)):
            if time.monotonic() > deadline:
                raise Unsettled(
                    f"{self._image} is unmounted, but its loop device is not free after {FREE_PATIENCE_S:.0f} s",
                    "another mount namespace may still have it mounted: `losetup -l`, `grep loop /proc/*/mounts`",
                )
            time.sleep(POLL_S)

    def cut_power(self) -> None:
        """What is not on the disk by now never will be. See `chaos.cluster.power` for whoever writes there."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def fail(self) -> None:
        """An error of the file system, after which the kernel lets nobody write there. Ends with `repair`."""
        device = self.device
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        Path("/sys/fs/ext4", name, "trigger_fs_error").write_text("hasched chaos")

    def repair(self) -> None:
        """While it is not mounted: what an administrator does about an error, so that the kernel trusts it again."""
        done = subprocess.run(["e2fsck", "-p", str(self._image)], capture_output=True, text=True, check=False)
        if done.returncode > ERRORS_CORRECTED:
            raise OSError(f"e2fsck {self._image}: {(done.stdout + done.stderr).strip()}")

    def fill(self, ballast: Path) -> None:
        """Give all blocks that are free to `ballast`, which must be on it. It takes no room in the image."""
        run("sync", "--file-system", str(self.path))  # what waits to be written has more reserved than it will take
        descriptor = os.open(ballast, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            size, step = 0, IMAGE_BYTES
            while step >= BLOCK_BYTES:
                try:
                    os.posix_fallocate(descriptor, size, step)
                    size += step
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 2
        finally:
            os.close(descriptor)


def run(*command: str) -> str:
    """Its output. Raises OSError with what it complained of."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
