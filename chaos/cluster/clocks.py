"""Wall clocks of single daemons: a shim between them and the C library tells them another time. The machine's is not touched.

The shim (clock_shim.c) is compiled on the spot and preloaded into each daemon. It changes what they ask for by
CLOCK_REALTIME, `gettimeofday` and `time`; times of files stay those of the machine. Tasks don't get it: the supervisor is
started with an environment of its own, and gives tasks one that it makes itself.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from chaos.cluster.steps import in_thread
from chaos.errors import MachineLacks
from chaos.safety.audit import Act
from chaos.safety.ledger import Ledger

SOURCE = Path(__file__).with_name("clock_shim.c")
SHIM = "clock_shim.so"
CONTROL = "HASCHED_CHAOS_CLOCK"  # names the control file to the shim
COUNT = struct.Struct("=B7x")
CHANGE = struct.Struct("=4q")  # since and until, on CLOCK_MONOTONIC, and the jump, in ns; drift in ppb
MARGIN_S = 2.0  # a harness that is only slow ends a shift itself
PROBE_S = 86_400
COMPILE_TIMEOUT_S = 60.0


def find_obstacle() -> str | None:
    """What this machine lacks for it, or None. It is tried, with this interpreter, and in files that have no names: whatever
    ends us meanwhile, nothing stays."""
    shim, shift = os.memfd_create("shim"), os.memfd_create("shift")
    try:
        return _probe(shim, shift)
    except MachineLacks as error:
        return error.cause
    finally:
        os.close(shim)
        os.close(shift)


def _probe(shim: int, shift: int) -> str | None:
    _compile(_of_descriptor(shim), [shim])
    os.ftruncate(shift, COUNT.size + 2 * CHANGE.size)
    control = Control(_of_descriptor(shift))
    control.shift(PROBE_S, 0.0, COMPILE_TIMEOUT_S)
    said = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env={**os.environ, **variables(_of_descriptor(shim), control)},
        pass_fds=[shim, shift],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    if not said or abs(float(said) - time.time() - PROBE_S) > COMPILE_TIMEOUT_S:
        return "the Python here takes its time from where no shim can come between"
    return None


def _of_descriptor(number: int) -> Path:
    """Its path, in every process that has it."""
    return Path(f"/proc/self/fd/{number}")


def compile_shim(folder: Path) -> Path:
    """Raises MachineLacks if there is no C compiler, or no C library for it."""
    shim = folder / SHIM
    _compile(shim)
    return shim


def _compile(shim: Path, descriptors: Sequence[int] = ()) -> None:
    hint = "scripts/packages installs gcc and libc6-dev where there is no compiler"
    compiler = shutil.which("cc")
    if compiler is None:
        raise MachineLacks("there is no C compiler (cc) to make the clock shim with", hint)
    done = subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", str(shim), str(SOURCE), "-ldl"],
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        timeout=COMPILE_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        line = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise MachineLacks(f"the clock shim can't be compiled: {line}", hint)


class Control:
    """The control file of one daemon; clock_shim.c says how it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(COUNT.pack(0) + 2 * CHANGE.pack(0, 0, 0, 0))

    def shift(self, jump_s: float, drift: float, seconds: float) -> None:
        """From now on, in place of any shift before; for so long."""
        now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self._write(now_ns, now_ns + round(seconds * 1e9), round(jump_s * 1e9), round(drift * 1e9))

    def clear(self) -> None:
        self._write(0, 0, 0, 0)

    def _write(self, *change: int) -> None:
        """The change that doesn't count, then the count: whoever reads meanwhile sees the one or the other."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            count = (os.pread(descriptor, 1, 0)[0] + 1) % 256
            os.pwrite(descriptor, CHANGE.pack(*change), COUNT.size + (count & 1) * CHANGE.size)
            os.pwrite(descriptor, bytes([count]), 0)
        finally:
            os.close(descriptor)


def variables(shim: Path, control: Control) -> dict[str, str]:
    """What a process needs in its environment to go by this clock."""
    preloaded = [str(shim), *filter(None, [os.environ.get("LD_PRELOAD")])]
    return {"LD_PRELOAD": ":".join(preloaded), CONTROL: str(control.path)}


class ShimClocks:
    """Implements `Clocks`, for daemons that are started with `environment`. `folder` is for the shim and the control files."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self._ledger = ledger
        self._folder = folder

    def set_up(self) -> None:
        """Blocks for as long as the compiler takes. Raises MachineLacks."""
        self._folder.mkdir(exist_ok=True)
        compile_shim(self._folder)

    def environment(self, name: str) -> dict[str, str]:
        """Variables for a daemon, beside its others. A daemon that starts while its clock is shifted starts with that."""
        return variables(self._folder / SHIM, self._control(name))

    @asynccontextmanager
    async def shifted(self, name: str, jump_s: float, drift: float, seconds: float) -> AsyncIterator[None]:
        """The deadline is in the control file: the clock is right again though nobody is left to see to it."""
        control = self._control(name)

        def begin() -> None:
            what = f"the clock of {name} jumps by {jump_s:+g} s and drifts by {drift:+.2%}"
            self._ledger.audit.write(Act.STRIKE, f"{what}, for {seconds:g} s at most")
            control.shift(jump_s, drift, seconds + MARGIN_S)

        def end() -> None:
            control.clear()
            self._ledger.audit.try_to_write(Act.UNDO, f"the clock of {name} is right again")

        try:
            await in_thread(begin)
            yield
        finally:
            await in_thread(end)

    def _control(self, name: str) -> Control:
        return Control(self._folder / f"{name}.clock")
