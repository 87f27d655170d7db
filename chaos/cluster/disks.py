"""A disk of its own for every daemon of a cluster that the harness made, and what befalls disks.

Each is a file system on a loop file. The daemon's data directory is a folder in it, so that what the harness puts on the
disk (ballast) is no business of the daemon.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from chaos.cluster import damage, power
from chaos.cluster.base import Processes
from chaos.cluster.loop_disk import LoopDisk, share
from chaos.cluster.steps import faulted, in_thread
from chaos.errors import Unsettled
from chaos.safety.audit import Act
from chaos.safety.identity import Born, born
from chaos.safety.ledger import Armed, Ledger
from chaos.safety.traces import processes_of
from chaos.safety.undo import Kill, RemoveFile, Unmount

DATA = "data"
BALLAST = "ballast"

T = TypeVar("T")


class LoopDisks:
    """Implements `Disks`. Made by `set_up` before any daemon starts, taken down when all have ended; needs root.

    `folder` becomes a mount that all mount namespaces share (see `loop_disk.share`), so daemons may be started in any.
    """

    def __init__(self, ledger: Ledger, processes: Processes, folder: Path, names: Sequence[str]) -> None:
        self._ledger = ledger
        self._processes = processes
        self._folder = folder
        self._names = list(names)
        self._disks: dict[str, LoopDisk] = {}
        self._mounts: list[Armed] = []

    def path(self, name: str) -> Path:
        """The data directory of a daemon; it is there from `set_up` on, or `add`."""
        return self._folder / name / DATA

    # --- life; these block, and raise OSError ---

    def set_up(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._mounts.append(self._ledger.arm(Unmount(str(self._folder)), f"mounts below {self._folder} are shared"))
        share(self._folder)
        for name in self._names:
            self.add(name)

    def add(self, name: str) -> None:
        """A disk for one more daemon."""
        disk = LoopDisk(self._folder / f"{name}.image", self._folder / name)
        self._mounts.append(self._ledger.arm(Unmount(str(disk.path)), f"the disk of {name} is mounted"))
        disk.make()
        self.path(name).mkdir(mode=0o700)
        self._disks[name] = disk

    def take_down(self) -> None:
        """Whoever still uses them keeps what is unmounted until they end."""
        for armed in reversed(self._mounts):
            armed.undo()
        for disk in self._disks.values():
            disk.forget()
        self._mounts, self._disks = [], {}

    # --- faults ---

    @asynccontextmanager
    async def full(self, name: str, seconds: float) -> AsyncIterator[None]:
        """To the last block, for root too. What has a block already may still be written."""
        disk = self._disks[name]
        ballast = disk.path / BALLAST
        was_up = self._processes.pid(name) is not None
        what = f"the disk of {name} is filled up"
        try:
            async with faulted(self._ledger, RemoveFile(str(ballast)), what, seconds, lambda: disk.fill(ballast)):
                yield
        finally:
            if was_up:
                await self._processes.start(name)  # if it ended for want of room

    @asynccontextmanager
    async def read_only(self, name: str, seconds: float) -> AsyncIterator[None]:
        """An error of the file system: what it had not written is lost, and nothing is written any more.

        At the end those of its machine who use the disk are killed (on a node: its tasks too), it is repaired and mounted
        again, and the daemon started. Should the harness hang, the daemon is killed at the deadline. Raises MachineLacks if
        somebody else uses the disk.
        """
        disk = self._disks[name]
        daemon = self._born(name)
        armed: list[Armed] = []
        noted: list[str] = []  # whether there is harm to heal

        def begin() -> None:
            power.wait_for_others([disk], lambda: self._find([name]))
            what = f"the disk of {name} becomes read-only"
            if daemon is not None:
                armed.append(self._ledger.arm(Kill(daemon), what, seconds))
            else:
                self._ledger.audit.write(Act.STRIKE, what)
            noted.append(what)
            disk.fail()

        def heal() -> None:
            power.release(disk, lambda: self._find([name]))
            disk.repair()
            disk.mount()
            for each in armed:
                each.strike_off()

        try:
            await in_thread(begin)
            yield
        finally:
            if noted:
                await self._processes.kill(name)
                await in_thread(heal)
                if daemon is not None:
                    await self._processes.start(name)

    async def wipe(self, name: str) -> None:
        self._check_down(name)
        await in_thread(
            lambda: self._noted(f"the data directory of {name} is emptied", lambda: _empty(self.path(name)))
        )

    async def tear_tail(self, manager: str) -> str:
        """Raises Unsettled if it has no journal, or a torn one already."""
        self._check_down(manager)
        what = f"the journal of {manager} gets a torn tail"
        return await in_thread(lambda: self._noted(what, lambda: damage.tear_tail(self.path(manager))))

    async def flip(self, manager: str, where: str, chance: int) -> str:
        """Raises Unsettled if it has no such file yet."""
        self._check_down(manager)
        what = f"a bit in the {where} of {manager} is flipped"
        return await in_thread(lambda: self._noted(what, lambda: damage.flip(self.path(manager), where, chance)))

    async def cut_power(self, names: Sequence[str]) -> None:
        """Of agents: of the whole node, with its supervisor and tasks. Raises MachineLacks if somebody else uses a disk."""
        disks = [self._disks[name] for name in names]

        def harm() -> None:
            power.cut(disks, lambda: self._find(names), self._ledger)

        await in_thread(lambda: self._noted(f"the power of {', '.join(names)} is cut", harm))
        for name in names:
            await self._processes.kill(name)  # it is dead; whoever keeps them shall know

    def _noted(self, what: str, harm: Callable[[], T]) -> T:
        """Harm without a way back, in the audit log first. Raises OSError."""
        self._ledger.audit.write(Act.STRIKE, what)
        return harm()

    def _find(self, names: Sequence[str]) -> list[Born]:
        """Who runs on these machines: daemons, supervisors and tasks."""
        daemons = [daemon for name in names if (daemon := self._born(name)) is not None]
        return daemons + [process for name in names for process in processes_of(str(self.path(name)))]

    def _born(self, name: str) -> Born | None:
        pid = self._processes.pid(name)
        return born(pid) if pid is not None else None

    def _check_down(self, name: str) -> None:
        if self._processes.pid(name) is not None:
            raise Unsettled(f"{name} runs, and its files are only touched while it is down", "stop it first")


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
