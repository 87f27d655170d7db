"""What the harness refuses, and why. Like every error that a user sees: a stable code, the cause, what to do."""

from __future__ import annotations

from hasched.model.errors import Conflict


class ConsentMissing(Conflict):
    """Faults would hit a cluster that isn't marked as a test cluster, and nobody typed its name."""

    code = "consent_missing"
    title = "This cluster is not to be broken without a word"


class MachineLacks(Conflict):
    """This machine, or this user on it, can't do what the fault needs."""

    code = "machine_lacks"
    title = "This machine can't do that"


class Unsettled(Conflict):
    """The cluster did not come to the state that a step needs within its time."""

    code = "unsettled"
    title = "The cluster did not get ready"


def held(pid: int) -> str:
    """What to do about a process that does not obey a signal."""
    return f"its disk, or a debugger, may hold it: `ps -o stat,wchan,args {pid}` says where it waits"
