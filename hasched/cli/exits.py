"""Exit codes: one meaning each, the same for every command, after sysexits.h and the shell where they have a word for it.

`--wait` is the exception: it exits with the job's own code, so that a script can treat a job like a command.
"""

from __future__ import annotations

from enum import IntEnum

from hasched.model import errors
from hasched.model.errors import HaschedError
from hasched.model.states import TaskState
from hasched.model.views import JobView, TaskView


class Exit(IntEnum):
    OK = 0
    VIOLATED = 1
    USAGE = 2
    BAD_INPUT = 65
    NOT_FOUND = 66
    UNREACHABLE = 69
    INTERNAL = 70
    TEMPORARY = 75
    REFUSED = 76
    DENIED = 77
    BAD_CONFIG = 78
    TIMED_OUT = 124
    NOT_STARTED = 127
    INTERRUPTED = 130
    OUT_OF_MEMORY = 137
    CANCELLED = 143


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.VIOLATED: "a promise was broken: the report says which",
    Exit.USAGE: "the command line can't be understood",
    Exit.BAD_INPUT: "the input is not valid: a job spec, a parameter, a body",
    Exit.NOT_FOUND: "there is no such job, task, node, context or file, or we may not use the file",
    Exit.UNREACHABLE: "no manager answered",
    Exit.INTERNAL: "an error inside hasched; the message says where",
    Exit.TEMPORARY: "not now, or outcome unknown: run it again, with the same --submission-id if it submits; "
    "with --wait: a task's node was lost too often, or the job succeeded and its output could not be read",
    Exit.REFUSED: "the state of the cluster forbids it (the job has ended already, the file exists)",
    Exit.DENIED: "the token is wrong, or doesn't allow it",
    Exit.BAD_CONFIG: "the configuration is not valid",
    Exit.TIMED_OUT: "the wait, or with --wait the task itself, ran out of time (its timeout or its deadline)",
    Exit.NOT_STARTED: "with --wait: the command could not be started",
    Exit.INTERRUPTED: "interrupted by Ctrl-C; a job that was submitted goes on",
    Exit.OUT_OF_MEMORY: "with --wait: the task used more memory than it asked for",
    Exit.CANCELLED: "with --wait: the job was cancelled",
}

_BY_ERROR: tuple[tuple[type[HaschedError], Exit], ...] = (
    (errors.ConfigInvalid, Exit.BAD_CONFIG),
    (errors.ClusterUnreachable, Exit.UNREACHABLE),
    (errors.NotFound, Exit.NOT_FOUND),
    (errors.Conflict, Exit.REFUSED),
    (errors.RecoveryRefused, Exit.REFUSED),
    (errors.Unauthenticated, Exit.DENIED),
    (errors.Forbidden, Exit.DENIED),
)
_TEMPORARY_STATUSES = (408, 410, 429, 503, 507)
_TEMPORARY_CODES = ("transfer_failed", "managers_not_recorded")


def exit_for_error(error: HaschedError) -> Exit:
    """The exit code of an error that reached the command line."""
    if error.extra.get("code", error.code) in _TEMPORARY_CODES:
        return Exit.TEMPORARY
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    if error.status in _TEMPORARY_STATUSES:
        return Exit.TEMPORARY
    return Exit.BAD_INPUT if 400 <= error.status < 500 else Exit.INTERNAL


def exit_for_job(job: JobView, failed: TaskView | None) -> int:
    """The exit code of a job that has ended: the command's own, where it ran to its end.

    `failed` is the first task that did not succeed. A signal n gives 128 + n, as in a shell.
    """
    if job.state == TaskState.SUCCEEDED.name:
        return Exit.OK
    state = failed.state if failed is not None else job.state
    match state:
        case TaskState.TIMED_OUT.name | TaskState.DEADLINE_EXCEEDED.name:
            return Exit.TIMED_OUT
        case TaskState.OUT_OF_MEMORY.name:
            return Exit.OUT_OF_MEMORY
        case TaskState.CANCELLED.name:
            return Exit.CANCELLED
        case TaskState.NODE_LOST.name:
            return Exit.TEMPORARY
    if failed is not None and failed.signal:
        return 128 + failed.signal
    code = failed.exit_code if failed is not None else job.exit_code
    return Exit.NOT_STARTED if code is None else code or 1
