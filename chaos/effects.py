"""What attempts leave outside the cluster: lines in a file, each one write at its end, so that their order is one for all.

An attempt says that it began, every moment that it is alive, and that it ended. One that was killed says no end: of it is
known only that it lived until its last line. Times are the machine's own, which no shim over a daemon's clock reaches.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from chaos.cluster.base import Cluster
from chaos.record import Effect, Record

BEGAN, ALIVE, ENDED = "began", "alive", "ended"
ALIVE_EVERY_S = 0.2

SCRIPT = f"""#!/bin/sh
set -eu
exec >>"$CHAOS_EFFECTS"
say() {{
    read -r now _ </proc/uptime
    echo "$1 $HASCHED_JOB_ID $HASCHED_TASK_INDEX $HASCHED_ATTEMPT $HASCHED_NODE $now"
}}
say {BEGAN}
left=$CHAOS_BEATS
while [ "$left" -gt 0 ]; do
    sleep {ALIVE_EVERY_S}
    say {ALIVE}
    left=$((left - 1))
done
say {ENDED}
"""


def file_of(cluster: Cluster, record: Record) -> Path:
    """Of this run alone. Raises MachineLacks where tasks can't write to this machine."""
    return Path(cluster.scratch) / f"effects-{record.began_ms}"


class EffectReader:
    """Brings the lines of a file on record as they come."""

    def __init__(self, path: Path, record: Record) -> None:
        self._path = path
        self._record = record
        self._zero_s = time.clock_gettime(time.CLOCK_BOOTTIME) - record.now()
        self._read_bytes = 0
        self._latest_s = 0.0

    def make(self) -> None:
        """The empty file, which the tasks of all agents may write to, whoever they run as: of those who may enter its
        directory. Raises FileExistsError for one that somebody else put there, and touches nothing that it leads to."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o666)
        finally:
            os.close(descriptor)

    def read(self) -> None:
        """What was written since, up to the last whole line."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                text = file.read()
        except FileNotFoundError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self._take(line)

    def _take(self, line: str) -> None:
        """The order of the lines is what is certain, so a later line never gets an earlier time: who was frozen between
        looking at the clock and writing wrote later."""
        try:
            what, job_id, index, attempt, node_id, at = line.split(" ")
            self._latest_s = max(self._latest_s + 1e-6, float(at) - self._zero_s)
            effect = Effect(
                at_s=self._latest_s,
                job_id=int(job_id),
                index=int(index),
                attempt=int(attempt),
                node_id=node_id,
                what=what,
            )
        except ValueError:
            self._record.note(f"a line of {self._path} is none of an attempt: {line[:200]!r}")
            return
        self._record.effects.append(effect)

    def close(self) -> None:
        """Read the rest, and leave nothing behind."""
        self.read()
        self._path.unlink(missing_ok=True)
