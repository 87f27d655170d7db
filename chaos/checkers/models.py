"""Models: what a job does under the calls of clients, as the linearizability checker needs it.

A job is known by its submission id. That it runs and ends is the cluster's doing and no client's call, so it may happen
at any time: the model learns of an end from the first answer that shows it. Likewise it learns the job's id from the first
answer that tells it, and holds every later one to it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from chaos.checkers.history import Ending, Operation

SUBMIT, READ, CANCEL, SUSPEND, RESUME, DELETE = "submit", "read", "cancel", "suspend", "resume", "delete"

NO_SUCH_JOB, JOB_ENDED, JOB_CANCELLING, JOB_ACTIVE = "no_such_job", "job_ended", "job_cancelling", "job_active"


class Accepted(msgspec.Struct, frozen=True):
    """The result of a submission."""

    job_id: int
    duplicate: bool


class Seen(msgspec.Struct, frozen=True):
    """The result of a read of a job that is there; of one that isn't, the result is None. `end` is empty until it has ended;
    `cancelling` is None where the answer doesn't say it, as that of the API does once the job has ended."""

    job_id: int
    cancelling: bool | None
    suspended: bool
    end: str


class Refused(msgspec.Struct, frozen=True):
    """The call was considered, and changed nothing."""

    code: str


class Done(msgspec.Struct, frozen=True):
    """The call took effect, or had nothing left to do."""


GONE = (
    "dependency_gone"  # the one refusal that may meet a sound submission: somebody has deleted what it was to wait for
)


class JobState(msgspec.Struct, frozen=True):
    """`job_id` is 0 and `end` is "?" where no answer has told it yet."""

    accepted: bool = False
    job_id: int = 0
    cancelling: bool = False
    suspended: bool = False
    end: str = ""
    deleted: bool = False


class JobModel:
    """One submission id. `step` is written from the documentation of the API, not from the state machine."""

    @property
    def initial(self) -> JobState:
        return JobState()

    def reads_only(self, operation: Operation) -> bool:
        return operation.kind == READ

    def step(self, state: JobState, operation: Operation) -> Iterable[JobState]:
        if operation.ending is not Ending.RETURNED:
            return self._effect(state, operation.kind)
        result = operation.result
        match operation.kind:
            case "submit":
                return self._submitted(state, result)
            case "read":
                return self._read(state, result)
            case kind if isinstance(result, Refused):
                return self._refused(state, kind, result.code)
            case kind:
                return self._effect(state, kind)

    def _submitted(self, state: JobState, result: object) -> Iterable[JobState]:
        if isinstance(result, Refused) and result.code == GONE:
            return [] if state.accepted else [state]
        if not isinstance(result, Accepted) or result.duplicate is not state.accepted:
            return []
        return _with_id(msgspec.structs.replace(state, accepted=True), result.job_id)

    def _read(self, state: JobState, result: object) -> Iterable[JobState]:
        there = state.accepted and not state.deleted
        if not isinstance(result, Seen):
            return [] if there else [state]
        if not there or result.suspended != state.suspended or result.cancelling not in (None, state.cancelling):
            return []
        if state.end and (not result.end or state.end not in ("?", result.end)):
            return []
        return _with_id(msgspec.structs.replace(state, end=result.end), result.job_id)

    def _effect(self, state: JobState, kind: str) -> Iterable[JobState]:
        """What the call does when it isn't refused; nothing where it would be."""
        there = state.accepted and not state.deleted
        match kind:
            case "submit":
                return [msgspec.structs.replace(state, accepted=True)]
            case "cancel" if there and (not state.end or state.cancelling):
                return [msgspec.structs.replace(state, cancelling=True)]
            case "cancel" if there and state.end in ("?", "CANCELLED"):  # it has ended so by itself
                return [msgspec.structs.replace(state, end="CANCELLED")]
            case "suspend" if there and not state.end and (state.suspended or not state.cancelling):
                return [msgspec.structs.replace(state, suspended=True)]
            case "resume" if there and not state.end:
                return [msgspec.structs.replace(state, suspended=False)]
            case "delete" if there:
                return [msgspec.structs.replace(state, end=state.end or "?", deleted=True)]
            case _:
                return []

    def _refused(self, state: JobState, kind: str, code: str) -> Iterable[JobState]:
        there = state.accepted and not state.deleted
        match code:
            case "no_such_job":
                return [] if there else [state]
            case "job_ended" if there and kind in (CANCEL, SUSPEND, RESUME):
                if kind == CANCEL and state.cancelling:
                    return []
                return [msgspec.structs.replace(state, end=state.end or "?")]
            case "job_cancelling" if there and kind == SUSPEND:
                return [state] if state.cancelling and not state.suspended and not state.end else []
            case "job_ending" if there and kind == SUSPEND:  # it is being stopped at its deadline
                return [] if state.cancelling or state.suspended or state.end else [state]
            case "job_active" if there and kind == DELETE:
                return [] if state.end else [state]
            case _:
                return []


def _with_id(state: JobState, job_id: int) -> Iterable[JobState]:
    return [msgspec.structs.replace(state, job_id=job_id)] if state.job_id in (0, job_id) else []
