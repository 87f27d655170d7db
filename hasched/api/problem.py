"""Errors as a client sees them: RFC 9457 problem documents with a stable code, a cause and what to do.

An error that nobody foresaw shows nothing of our insides: it gets a number that stands in the log too.
"""

from __future__ import annotations

import uuid

import msgspec
import structlog
from aiohttp import web

from hasched.model.errors import Conflict, HaschedError, NotFound, SpecInvalid, Unauthenticated
from hasched.model.views import Problem
from hasched.statemachine.outcomes import Rejected

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER_S = "1"

log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode


class Internal(HaschedError):
    """The state machine refused a command because of a bug of ours; nothing changed."""


def refusal(rejected: Rejected) -> HaschedError:
    """The error that tells of a command which was committed, considered and refused."""
    if rejected.code == "internal":
        return Internal(rejected.cause, rejected.hint)
    if rejected.code.startswith("no_such_"):
        return NotFound(rejected.cause, rejected.hint, code=rejected.code)
    if rejected.code == SpecInvalid.code:
        return _SpecRefused(rejected.cause, rejected.hint)
    return Conflict(rejected.cause, rejected.hint, code=rejected.code)


class MethodNotAllowed(HaschedError):
    """`possible` are the methods that there are at this path."""

    code = "method_not_allowed"
    status = 405
    title = "The method is not allowed here"

    def __init__(self, method: str, possible: list[str]) -> None:
        super().__init__(f"{method[:20]} is not possible here", f"possible are: {', '.join(possible)}")
        self.possible = possible


class _SpecRefused(HaschedError):
    """A spec that the state machine refuses, though `parse_spec` let it through."""

    code = SpecInvalid.code
    status = SpecInvalid.status
    title = SpecInvalid.title


def unforeseen(error: BaseException, method: str, path: str) -> HaschedError:
    """What to tell of an exception that is a bug: where to find it in the log, and no more."""
    incident = uuid.uuid4().hex
    log.error("request_failed", incident=incident, method=method, path=path, exc_info=error)
    return Internal(f"an unexpected error, logged as incident {incident}", "report it with the manager's log")


def describe(error: HaschedError, instance: str = "") -> Problem:
    """The problem document of an error; `instance` is the path of the request."""
    code = str(error.extra.get("code", error.code))
    errors = error.extra.get("errors", [])
    return Problem(
        type=f"urn:hasched:problem:{code}",
        title=error.title,
        status=error.status,
        detail=f"{error.cause}. {error.hint}" if error.hint else error.cause,
        instance=instance,
        code=code,
        cause=error.cause,
        hint=error.hint,
        errors=errors if isinstance(errors, list) else [],
    )


def problem_response(error: HaschedError, instance: str = "") -> web.Response:
    headers = {"Content-Type": PROBLEM_TYPE, "Cache-Control": "no-store"}
    if error.status == 503:
        headers["Retry-After"] = RETRY_AFTER_S
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="hasched"'
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.possible)
    return web.Response(status=error.status, body=_encode(describe(error, instance)), headers=headers)
