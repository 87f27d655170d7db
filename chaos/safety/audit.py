"""The audit log: who did what to which cluster, one JSON line each, never rewritten.

Whoever is about to do harm writes first: if the line can't be written, there is no harm. Whoever undoes harm doesn't let
the log keep them from it.
"""

from __future__ import annotations

import os
import pwd
import socket
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from chaos.safety.lines import append_line
from chaos.safety.places import audit_path, make_private


class Act(StrEnum):
    ARM = "arm"  # the way back from a fault is on disk; the fault comes next
    UNDO = "undo"
    HEAL = "heal"  # as undo, after the harness died or hung
    CONSENT = "consent"
    STRIKE = "strike"


class Audited(msgspec.Struct, frozen=True, kw_only=True):
    time: str  # UTC
    user: str
    host: str
    run: str
    cluster: str
    act: Act
    what: str


def user_name() -> str:
    """Of this process; with who became it, where sudo says so."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    behind = os.environ.get("SUDO_USER", "")
    return f"{name} ({behind})" if behind and behind != name else name


class Audit:
    """The log as one run writes it; `run` is empty before there is one."""

    def __init__(self, run: str, cluster: str) -> None:
        self.run = run
        self.cluster = cluster

    def write(self, act: Act, what: str) -> None:
        """Raises OSError: then what was to be noted must not happen."""
        line = Audited(
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            user=user_name(),
            host=socket.gethostname(),
            run=self.run,
            cluster=self.cluster,
            act=act,
            what=what,
        )
        path = audit_path()
        make_private(path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            append_line(descriptor, msgspec.json.encode(line))
        finally:
            os.close(descriptor)

    def try_to_write(self, act: Act, what: str) -> str:
        """For what must happen anyway. The reason why it could not be noted, or nothing."""
        try:
            self.write(act, what)
        except OSError as error:
            return f"the audit log can't be written: {error}"
        return ""
