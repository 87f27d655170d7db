"""The roster: which processes a supervisor runs, in a file that outlives it.

A supervisor that dies by SIGKILL leaves its tasks running with nobody to collect their exit status: their attempts are
lost, so they must not go on. The next supervisor finds them here and kills them before it answers anybody. Entries are
written into a mapped page, which costs no system call and survives the process (not the machine, which then has no
processes either).
"""

from __future__ import annotations

import mmap
import os
import struct

from hasched.agent.processes import Families, attempt_of, boot_id, read_process

CAPACITY = 65_536
_BOOT_ID_BYTES = 64
_SLOT = struct.Struct("<QQ")  # pid, started_ms; pid 0: free
_TOLERANCE_MS = 1_000  # the kernel counts a start in ticks, we just after it


class RosterFull(Exception):
    """More processes than one node is made for."""


class Roster:
    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, _BOOT_ID_BYTES + CAPACITY * _SLOT.size)
            self._map = mmap.mmap(fd, 0)
        finally:
            os.close(fd)
        self._boot_id = boot_id().encode()[:_BOOT_ID_BYTES].ljust(_BOOT_ID_BYTES, b"\0")
        self._free: list[int] = []
        self._used = 0

    def leftovers(self) -> list[int]:
        """The processes that a supervisor before us left behind, each proven to be the one that it started."""
        if self._map[:_BOOT_ID_BYTES] != self._boot_id:
            return []
        entries = [entry for entry in _SLOT.iter_unpack(self._map[_BOOT_ID_BYTES:]) if entry[0]]
        if not entries:
            return []
        families = Families()
        found: dict[int, None] = {}
        for pid, started_ms in entries:
            leader = read_process(pid)
            if leader is not None and abs(leader.started_ms - started_ms) > _TOLERANCE_MS:
                continue  # the number belongs to another process by now
            for member in families.of(pid):
                if leader is not None or attempt_of(member) is not None:
                    found[member] = None
        return list(found)

    def clear(self) -> None:
        self._map[:] = self._boot_id.ljust(len(self._map), b"\0")
        self._free.clear()
        self._used = 0

    def add(self, pid: int, started_ms: int) -> int:
        """Enter a process; returns its slot. Call `check` before starting one."""
        slot = self._free.pop() if self._free else self._used
        if slot == self._used:
            self._used += 1
        _SLOT.pack_into(self._map, _BOOT_ID_BYTES + slot * _SLOT.size, pid, started_ms)
        return slot

    def check(self) -> None:
        """Raises RosterFull."""
        if not self._free and self._used >= CAPACITY:
            raise RosterFull(f"this node runs {CAPACITY} tasks, and no more")

    def remove(self, slot: int) -> None:
        _SLOT.pack_into(self._map, _BOOT_ID_BYTES + slot * _SLOT.size, 0, 0)
        self._free.append(slot)
