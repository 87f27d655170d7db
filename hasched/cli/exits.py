"""Exit codes: one meaning each, the same for every command, after sysexits.h and the shell where they have a word for it.

`--wait` is the exception: it exits with the job's own code, so that a script can treat a job like a command.
"""

from __future__ import annotations

from enum import IntEnum

import click

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
    Exit.USAGE: "the command line can't be understood: a command or option that there isn't, one that is missing, "
    "options that don't go together",
    Exit.BAD_INPUT: "a value can't be used, wherever it stands: in an option, a job's or policy's document, a request",
    Exit.NOT_FOUND: "nothing has that name or number: no job, task, node, queue, priority class, namespace, semaphore, "
    "policy, context or file; or we may not use the file",
    Exit.UNREACHABLE: "no manager answered",
    Exit.INTERNAL: "an error inside hasched; the message says where",
    Exit.TEMPORARY: "not now, or outcome unknown: run it again, with the same --submission-id if it submits; "
    "with --wait: a task's node was lost too often, or the job succeeded and its output could not be read",
    Exit.REFUSED: "things stand against it: the job has ended, the queue is closed, a quota is too small, the file exists",
    Exit.DENIED: "the token is wrong, or doesn't allow it",
    Exit.BAD_CONFIG: "the configuration is not valid",
    Exit.TIMED_OUT: "the wait, or with --wait the task itself, ran out of time (its timeout or its deadline)",
    Exit.NOT_STARTED: "with --wait: the command could not be started",
    Exit.INTERRUPTED: "interrupted by Ctrl-C; a job that was submitted goes on",
    Exit.OUT_OF_MEMORY: "with --wait: the task used more memory than it asked for",
    Exit.CANCELLED: "with --wait: the job was cancelled",
}

# By the code first: alike mistakes end alike, whether the command line, a manager or the state machine finds them.
_BY_CODE: tuple[tuple[str, Exit], ...] = (
    ("no_such_", Exit.NOT_FOUND),
    ("unknown_", Exit.NOT_FOUND),
    ("invalid_", Exit.BAD_INPUT),
)
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
    name = str(error.extra.get("code", error.code))
    if name in _TEMPORARY_CODES:
        return Exit.TEMPORARY
    if not isinstance(error, errors.ConfigInvalid):
        for prefix, code in _BY_CODE:
            if name.startswith(prefix):
                return code
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    if error.status in _TEMPORARY_STATUSES:
        return Exit.TEMPORARY
    return Exit.BAD_INPUT if 400 <= error.status < 500 else Exit.INTERNAL


def exit_for_usage(error: click.ClickException) -> tuple[int, str]:
    """The exit code of what click shows as an error, and the code that `--json` shows."""
    if not isinstance(error, click.UsageError):
        return error.exit_code, str(getattr(error, "code", "usage"))
    if not isinstance(error, click.BadParameter) or isinstance(error, click.MissingParameter):
        return Exit.USAGE, "usage"
    if isinstance(getattr(error.param, "type", None), (click.Path, click.File)):
        return Exit.NOT_FOUND, "file_unusable"
    return Exit.BAD_INPUT, "invalid_argument"


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
