"""What apply says of each command: done, with what there is to tell, or refused. A refused command changed nothing."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from hasched.model.wire import AttemptKey

ATTEMPTS_FORGOTTEN = "attempts_forgotten"


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """Committed, considered, changed nothing. `code` is stable: `no_such_job`, `job_ended`, `job_active`, `internal`, …"""

    code: str
    cause: str
    hint: str = ""


class Done(msgspec.Struct, frozen=True, tag=True):
    """The command took effect (or had nothing left to do)."""


class JobAccepted(msgspec.Struct, frozen=True, tag=True):
    """`duplicate`: the submission id was known, and this is its first outcome."""

    job_id: int
    duplicate: bool
    log_index: int  # of the entry that accepted the job first


class ReportsTaken(msgspec.Struct, frozen=True, tag=True):
    refused: tuple[AttemptKey, ...]


class PlanTaken(msgspec.Struct, frozen=True, tag=True):
    scheduled: int
    refused: int


class AttemptsPreempted(msgspec.Struct, frozen=True, tag=True):
    """So many tasks stop now; so many of those asked for don't, because they have ended, stop already, or may not be."""

    stopping: int
    refused: int


class ExecutionAccepted(msgspec.Struct, frozen=True, tag=True):
    """`duplicate`: the submission id was known, and this is its first outcome."""

    execution_id: int
    duplicate: bool


class TemplateTaken(msgspec.Struct, frozen=True, tag=True):
    """`version` is the latest, a new one or, if the document is what it was, the one that there was."""

    version: int


Outcome: TypeAlias = (
    Done | JobAccepted | ReportsTaken | PlanTaken | AttemptsPreempted | ExecutionAccepted | TemplateTaken | Rejected
)
