"""Names and numbers of things.

A job's id is a number that the state machine hands out in log order and never uses twice. A task is written `JOB.INDEX`,
an attempt `JOB.INDEX/ATTEMPT`; attempts count from 1 and are the fence of everything that an attempt does.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

JobId: TypeAlias = int
TaskIndex: TypeAlias = int
Attempt: TypeAlias = int
NodeId: TypeAlias = str
ManagerId: TypeAlias = str

NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$"
_NAME = re.compile(NAME_PATTERN[1:-1])


class TaskId(NamedTuple):
    job_id: JobId
    index: TaskIndex  # type: ignore[assignment]  # it shadows tuple.index, which nobody calls

    def __str__(self) -> str:
        return f"{self.job_id}.{self.index}"


class AttemptId(NamedTuple):
    job_id: JobId
    index: TaskIndex  # type: ignore[assignment]  # it shadows tuple.index, which nobody calls
    attempt: Attempt

    def __str__(self) -> str:
        return f"{self.job_id}.{self.index}/{self.attempt}"


def is_name(text: str) -> bool:
    """Whether `text` may name a node, manager, queue, label or countable: it is safe as a file name and in a URL."""
    return _NAME.fullmatch(text) is not None


def parse_task_id(text: str) -> TaskId:
    """`7.3` as task 3 of job 7, `7` as its task 0. Raises ValueError."""
    job, dot, index = text.partition(".")
    if not (job.isascii() and job.isdigit() and (not dot or (index.isascii() and index.isdigit()))):
        raise ValueError(f"{text!r} is not a task; write it as JOB or JOB.INDEX")
    return TaskId(int(job), int(index or 0))
