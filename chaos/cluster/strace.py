"""Faults that strace injects into the system calls of a process that runs already.

strace counts calls for each thread alone, and only those on the files it is told of: the n-th sync of a journal, which one
thread does, is exactly the n-th.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from chaos.errors import MachineLacks
from chaos.safety.identity import Born, born

KILL = "signal=KILL"  # in front of the call
EIO = "error=EIO"  # instead of the call
GATE = 'read -r go && exec strace "$@"'
ATTACH_PATIENCE_S = 20.0
DETACH_PATIENCE_S = 30.0
POLL_S = 0.01


def find_obstacle() -> str | None:
    """What this machine lacks for it, or None. It is tried: containers and settings of the kernel forbid it in many ways."""
    if shutil.which("strace") is None:
        return "strace is not installed (scripts/packages)"
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL) as asleep:
        tracer = Tracer(asleep.pid, ["-e", "trace=none"])
        try:
            tracer.attach()
        except MachineLacks as error:
            return error.cause
        finally:
            tracer.detach()
            asleep.kill()
    return None


def delay(delay_ms: int) -> str:
    """In front of the call."""
    return f"delay_enter={delay_ms * 1000}"


def inject(call: str, fault: str, *, when: int | None = None, files: Iterable[Path] = ()) -> list[str]:
    """strace's options: at every `call`, or at the n-th of a thread; on any file, or on these."""
    paths = [option for file in files for option in ("-P", str(file))]
    nth = f":when={when}" if when is not None else ""
    return ["-e", f"trace={call}", "-e", f"inject={call}:{fault}{nth}", *paths]


class Tracer:
    """strace at all threads of a process, and those that it will start. If strace dies, the process goes on untraced."""

    def __init__(self, pid: int, options: list[str]) -> None:
        self._pid = pid
        self._options = options
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - it has no name, so it can't stay behind
        self._process: subprocess.Popen[bytes] | None = None

    def attach(self, arm: Callable[[Born], object] = lambda tracer: None) -> None:
        """Returns once every thread is traced. Raises MachineLacks if that can't be.

        `arm` is told of the tracer's process before that becomes strace: if we die meanwhile, it ends by itself.
        """
        command = ["/bin/sh", "-c", GATE, "strace", "-f", "-ttt", "-p", str(self._pid), *self._options]
        self._process = process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._output, start_new_session=True
        )
        assert process.stdin is not None, "it was asked for"
        with process.stdin as gate:
            waiting = born(process.pid)
            assert waiting is not None, "it waits for the gate"
            arm(waiting)
            gate.write(b"go\n")
        deadline = time.monotonic() + ATTACH_PATIENCE_S
        while not self._is_attached():
            if process.poll() is not None or time.monotonic() > deadline:
                said = self.output().strip() or f"it has not attached itself after {ATTACH_PATIENCE_S:.0f} s"
                self.detach()
                raise MachineLacks(
                    f"strace can't trace process {self._pid}: {said}", "it takes root, or CAP_SYS_PTRACE"
                )
            time.sleep(POLL_S)

    def detach(self) -> None:
        """The process goes on. Nothing if strace has ended already, as it does with what it traces."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(DETACH_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def output(self) -> str:
        """What strace has told until now: a line for each call that it looks at."""
        descriptor = self._output.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    @property
    def fired(self) -> bool:
        """Whether the fault has happened."""
        said = self.output()
        return "(INJECTED)" in said or "+++ killed by SIGKILL +++" in said

    def _is_attached(self) -> bool:
        assert self._process is not None
        mark = f"TracerPid:\t{self._process.pid}\n"
        try:
            threads = list(Path(f"/proc/{self._pid}/task").iterdir())
            return bool(threads) and all(mark in (thread / "status").read_text() for thread in threads)
        except OSError:  # a thread that just ended
            return False
