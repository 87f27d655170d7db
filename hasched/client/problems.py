"""From the problem that a manager answers with to the exception that a caller handles."""

from __future__ import annotations

import msgspec

from hasched.model.errors import (
    BadRequest,
    Conflict,
    FieldError,
    Forbidden,
    HaschedError,
    NotFound,
    NotLeader,
    PolicyInvalid,
    ScheduleInvalid,
    SpecInvalid,
    TemplateInvalid,
    Unauthenticated,
    WorkflowInvalid,
)
from hasched.model.views import Problem

_decoder = msgspec.json.Decoder(Problem)


def _subclasses(root: type[HaschedError]) -> list[type[HaschedError]]:
    return [found for child in root.__subclasses__() for found in (child, *_subclasses(child))]


_BY_CODE = {kind.code: kind for kind in _subclasses(HaschedError)}
_OF_DOCUMENTS = (SpecInvalid, PolicyInvalid, ScheduleInvalid, WorkflowInvalid, TemplateInvalid)
_DOCUMENT_INVALID = {kind.code: kind for kind in _OF_DOCUMENTS}
_BY_STATUS = {kind.status: kind for kind in (BadRequest, Unauthenticated, Forbidden, NotFound, Conflict)}
_BY_STATUS[422] = BadRequest  # of a code that isn't known here: still the asker's mistake


def error_of(status: int, body: bytes) -> HaschedError:
    """The exception for an answer with an error status. A body that is no problem document is quoted."""
    try:
        problem = _decoder.decode(body)
    except msgspec.DecodeError:
        text = body[:200].decode(errors="replace")
        return _BY_STATUS.get(status, HaschedError)(f"the manager answered {status}: {text}")
    return from_problem(problem)


def from_problem(problem: Problem) -> HaschedError:
    """The class of the problem's code, else of its status; the code itself stands in `extra["code"]`."""
    if problem.code in _DOCUMENT_INVALID:
        fields = [
            (str(each.get("path", "")), str(each.get("cause", "")), str(each.get("hint", "")))
            for each in problem.errors
        ] or [("", problem.cause, problem.hint)]
        return _DOCUMENT_INVALID[problem.code]([FieldError(path, cause, hint) for path, cause, hint in fields])
    kind = _BY_CODE.get(problem.code)
    if kind is NotLeader:
        return NotLeader(None)
    if kind is None or kind is FieldError:
        kind = _BY_STATUS.get(problem.status, HaschedError)
    return kind(problem.cause, problem.hint, code=problem.code)
