"""Files of JSON lines that several processes append to, and that a full disk or a sudden end may leave half a line in."""

from __future__ import annotations

import errno
import os


def append_line(descriptor: int, content: bytes) -> None:
    """One write for the whole line; `descriptor` is open for reading and appending. Raises OSError.

    Half a line of somebody who failed before stays one broken line: ours begins on its own.
    """
    size = os.fstat(descriptor).st_size
    broken = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    line = b"\n" * broken + content + b"\n"
    if os.write(descriptor, line) != len(line):
        raise OSError(errno.ENOSPC, "only half of a line could be written")
