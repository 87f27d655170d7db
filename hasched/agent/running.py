"""One attempt that a supervisor runs: what is known of it, and what its end was."""

from __future__ import annotations

import errno
import os
import resource
import stat

from hasched.agent.cgroups import Cgroup
from hasched.agent.protocol import LaunchJob, LaunchTask
from hasched.model.ids import AttemptId
from hasched.model.spec import MAX_OUTPUT_BYTES
from hasched.model.states import EndKind


class Running:
    """One running attempt."""

    __slots__ = (
        "cgroup", "checkpoint_ms", "directory", "frozen", "grace_ms", "key", "kill_at_ms", "killed", "kind", "leased",
        "left_ms", "peak_bytes", "pid", "reason", "slot", "started_ms", "task", "term_at_ms", "timeout_at_ms", "timeout_ms",
    )  # fmt: skip

    def __init__(self, key: AttemptId, job: LaunchJob, task: LaunchTask, directory: str, cgroup: Cgroup | None) -> None:
        self.key = key
        self.task = task
        self.directory = directory
        self.cgroup = cgroup
        self.grace_ms = job.kill_grace_ms
        self.leased = job.stop_at_lease
        self.timeout_ms = job.timeout_ms
        self.timeout_at_ms = 0  # 0: none, or frozen
        self.left_ms = 0  # of the timeout, while frozen
        self.frozen = False
        self.kind: EndKind | None = None  # set once we are ending it
        self.reason = ""
        self.term_at_ms = 0  # of one that was warned
        self.kill_at_ms = 0
        self.killed = False
        self.pid = 0
        self.slot = 0
        self.started_ms = 0
        self.peak_bytes = 0
        self.checkpoint_ms = 0  # of its latest checkpoint

    def judge(self, code: int) -> tuple[EndKind, str]:
        """How it ended, and why, if there is more to say than the code."""
        if code != 0 and self.cgroup is not None and self.kind is None and self.cgroup.oom_kills():
            return EndKind.OUT_OF_MEMORY, "the kernel killed it at its memory limit"
        if self.kind is not None:
            return self.kind, self.reason
        return (EndKind.SIGNALED if code < 0 else EndKind.EXITED), ""

    def peak_of(self, usage: resource.struct_rusage) -> int:
        """The most memory that it had, in bytes.

        The kernel counts our own size into a child that we spawned, so a smaller figure says nothing about it.
        """
        if self.cgroup is not None and (peak_bytes := self.cgroup.peak_bytes()):
            return peak_bytes
        peak_bytes = self.peak_bytes
        if usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
            peak_bytes = max(peak_bytes, usage.ru_maxrss * 1024)
        return peak_bytes


def read_output(path: str) -> tuple[bytes, str]:
    """The content of HASCHED_OUTPUT, and what is wrong with it, if anything. A task may have put anything there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", ""
    except OSError as error:
        what = "a link" if error.errno == errno.ELOOP else error.strerror
        return b"", f"the output can't be read: {what}"
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return b"", "the output can't be read: not a file"
        content = os.read(fd, MAX_OUTPUT_BYTES)
    finally:
        os.close(fd)
    if status.st_size > MAX_OUTPUT_BYTES:
        return content, f"the output of {status.st_size} bytes was cut to {MAX_OUTPUT_BYTES}"
    return content, ""
