"""What can be done to a cluster from where the harness stands. A nemesis names what it needs; a cluster what it offers."""

from __future__ import annotations

from enum import StrEnum


class Ability(StrEnum):
    """The value is what a user reads where it is missing."""

    SIGNALS = "signals to its daemons"  # SIGKILL, SIGSTOP, SIGTERM
    RESTARTS = "starting its daemons"  # when and how the harness likes, so that one can stay down, or lose its disk
    CUTS = "cuts between its hosts"  # by pairs of hosts, one-way too
    ISOLATION = "cutting one host off from all others"
    LINKS = "slow, lossy or disordered links"
    DISKS = "disks of its own for each manager"  # full, read-only, lost, damaged
    POWER = "power cuts"  # of file systems, with what was not synced
    SYNCS = "faults at system calls"  # strace
    CLOCKS = "a clock of its own for each daemon"
    MEMBERSHIP = "adding and removing managers"
