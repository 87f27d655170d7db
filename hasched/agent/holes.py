"""Holes: how a log is kept within its bound while the task goes on writing to it.

The oldest blocks of the file are freed where they lie. Nothing is copied or moved, no pipe sits between the task and its
log, and a byte's offset stays the same for ever. The bound is checked from time to time, so a fast writer exceeds it by what it
writes in between. A filesystem without holes (NFS before 4.2) keeps whole logs: `supported` finds out.
"""

# Plain strings, not pathlib: this runs for every end of a task.
# ruff: noqa: PTH108, PTH110

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable

BLOCK_BYTES = 4096
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


@functools.cache
def _fallocate() -> Callable[[int, int, int], int]:
    """fallocate(fd, offset, length) in hole mode, as an errno. Loaded on first use: most logs never need it."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

    def punch(fd: int, offset: int, length: int) -> int:
        return ctypes.get_errno() if libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, length) else 0

    return punch


def bound(path: str, max_bytes: int) -> bool:
    """Free the oldest blocks of a log that has grown beyond `max_bytes`. False where the filesystem can't."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return True
    excess = status.st_size - max_bytes
    if excess < BLOCK_BYTES or status.st_blocks * 512 <= max_bytes:
        return True
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        error = _fallocate()(fd, 0, excess - excess % BLOCK_BYTES)
    finally:
        os.close(fd)
    if error in (0, errno.EINTR):
        return True
    if error in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(error, os.strerror(error), path)


def first_offset(fd: int) -> int:
    """The first byte that is still there; the file's size if there is none."""
    try:
        return os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return os.fstat(fd).st_size
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return 0
        raise


def supported(directory: str) -> bool:
    """Whether the filesystem of `directory` has holes, tried with a real file."""
    path = f"{directory}/.hole-{os.getpid()}"
    try:
        with open(path, "wb") as file:
            file.write(b"\1" * (3 * BLOCK_BYTES))
        return bound(path, BLOCK_BYTES)
    finally:
        if os.path.exists(path):
            os.unlink(path)
