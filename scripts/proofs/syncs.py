"""Faults at the n-th sync of a manager, by strace: it is killed in front of it, or the sync fails.

A place names the calls and the files of one thread: what is counted is exactly the n-th time that this thread is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chaos.cluster.strace import EIO, KILL, Tracer, inject
from tests.support.cluster import ProcessCluster, eventually

SEGMENTS = 40
SNAPSHOTS = 2000  # log indexes that a proof may reach
FAULTS = {"kill": KILL, "EIO": EIO}


@dataclass(frozen=True)
class Place:
    """`files` are relative to the data directory; none of them: whatever the main thread syncs as it starts."""

    name: str
    call: str
    files: tuple[str, ...] = ()

    def options(self, fault: str, number: int, data_dir: Path) -> list[str]:
        return inject(self.call, FAULTS[fault], when=number, files=[data_dir / file for file in self.files])


FIRST_START = (Place("first start: files", "fdatasync"), Place("first start: directories", "fsync"))
LATER_START = (Place("later start: files", "fdatasync"), Place("later start: directories", "fsync"))
RUNNING = (
    Place("log: a frame", "fdatasync", tuple(f"journal/{number:016d}.log" for number in range(1, SEGMENTS))),
    Place("log: a new segment", "fdatasync", tuple(f"journal/{number:016d}.log.tmp" for number in range(1, SEGMENTS))),
    Place("log: its directory", "fsync", ("journal",)),
    Place("snapshot: the file", "fdatasync", tuple(f"snapshots/own-{index}.tmp" for index in range(2, SNAPSHOTS))),
    Place("snapshot: its directory", "fsync", ("snapshots",)),
)


class Traced:
    """A manager under strace. `fired` once the fault has happened."""

    def __init__(self, cluster: ProcessCluster, manager: str, place: Place, fault: str, number: int) -> None:
        self._cluster = cluster
        self._manager = manager
        self._output = cluster.folder / "strace"
        self._output.unlink(missing_ok=True)
        self._options = ["-o", str(self._output), *place.options(fault, number, cluster.folder / manager)]
        self._tracer: Tracer | None = None

    def start(self) -> None:
        """Start the manager under it: only its main thread is traced."""
        self._cluster.start(self._manager, under=["strace", "-D", "-ttt", *self._options])

    def attach(self) -> None:
        """To all threads of the manager that runs, and those that it will start."""
        self._tracer = Tracer(self._cluster.processes[self._manager].pid, self._options)
        self._tracer.attach()

    def detach(self) -> None:
        if self._tracer is not None:
            self._tracer.detach()

    @property
    def fired(self) -> bool:
        return self.fired_at is not None or self._ended_by_kill

    @property
    def _ended_by_kill(self) -> bool:
        return self._output.exists() and "+++ killed by SIGKILL +++" in self._output.read_text()

    @property
    def fired_at(self) -> float | None:
        """When the sync failed, in seconds since 1970."""
        if not self._output.exists():
            return None
        for line in self._output.read_text().splitlines():
            if "(INJECTED)" in line:
                return next(float(word) for word in line.split() if "." in word)
        return None


def wait_ended(cluster: ProcessCluster, manager: str, patience_s: float = 30) -> int:
    """The exit status; -9 if it was killed."""
    process = cluster.processes[manager]
    eventually(f"the end of {manager}", lambda: process.poll() is not None, patience_s)
    return process.returncode
