"""The error tree. Exceptions belong to the edges; inside the state machine a refusal is the value `Rejected`.

Every error that a user can see has a stable code, one sentence of cause and one of what to do.
"""

from __future__ import annotations

from typing import ClassVar


class HaschedError(Exception):
    """The root. `code` never changes meaning between versions; `status` is its HTTP status."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, cause: str, hint: str = "", **extra: object) -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint
        self.extra = extra


class FieldError(HaschedError):
    """One thing wrong at one place of a document. `path` is dotted (`resources.gpus`), `line` counts from 1, 0 unknown."""

    code = "invalid_field"
    status = 422
    title = "Invalid field"

    def __init__(self, path: str, cause: str, hint: str = "", line: int = 0) -> None:
        super().__init__(cause, hint)
        self.path = path
        self.line = line


class SpecInvalid(HaschedError):
    """A job spec that can't be accepted; `extra["errors"]` lists what is wrong, field by field."""

    code = "invalid_spec"
    status = 422
    title = "The job spec is not valid"

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__(
            "; ".join(f"{error.path}: {error.cause}" if error.path else error.cause for error in errors),
            errors[0].hint if errors else "",
            errors=[{"path": error.path, "cause": error.cause, "hint": error.hint} for error in errors],
        )
        self.errors = errors


class PolicyInvalid(SpecInvalid):
    """A policy that can't be accepted; as SpecInvalid."""

    code = "invalid_policy"
    title = "The policy is not valid"


class ScheduleInvalid(SpecInvalid):
    """A schedule that can't be accepted; as SpecInvalid."""

    code = "invalid_schedule"
    title = "The schedule is not valid"


class WorkflowInvalid(SpecInvalid):
    """A workflow that can't be accepted; as SpecInvalid."""

    code = "invalid_workflow"
    title = "The workflow is not valid"


class TemplateInvalid(SpecInvalid):
    """A job template that can't be accepted; as SpecInvalid."""

    code = "invalid_template"
    title = "The template is not valid"


class ConfigInvalid(HaschedError):
    """A configuration file that can't be used; each error carries its line."""

    code = "invalid_config"
    status = 422
    title = "The configuration is not valid"

    def __init__(self, source: str, errors: list[FieldError]) -> None:
        super().__init__("\n".join(self._line(source, error) for error in errors))
        self.source = source
        self.errors = errors

    @staticmethod
    def _line(source: str, error: FieldError) -> str:
        place = f"{source}:{error.line}" if error.line else source
        return f"{place}: {error.path}: {error.cause}" if error.path else f"{place}: {error.cause}"


class MalformedBody(HaschedError):
    code = "malformed_body"
    status = 400
    title = "The body can't be read"


class BadRequest(HaschedError):
    """A query parameter or header that can't be used."""

    code = "bad_request"
    status = 400
    title = "The request can't be understood"


class BodyTooLarge(HaschedError):
    code = "body_too_large"
    status = 413
    title = "The body is too large"


class RequestTimeout(HaschedError):
    """The client sent its request too slowly."""

    code = "request_timeout"
    status = 408
    title = "The request came too slowly"


class Unauthenticated(HaschedError):
    code = "unauthenticated"
    status = 401
    title = "Authentication failed"


class Forbidden(HaschedError):
    code = "forbidden"
    status = 403
    title = "Not allowed"


class NotFound(HaschedError):
    code = "not_found"
    status = 404
    title = "Not found"


class Conflict(HaschedError):
    """The command was considered and refused; nothing changed. `code` may be replaced per refusal by `extra["code"]`."""

    code = "conflict"
    status = 409
    title = "The state of the cluster forbids this"


class EventsCompacted(HaschedError):
    """The index asked for is older than what the manager still holds."""

    code = "events_compacted"
    status = 410
    title = "Those events are no longer held"


class NoLeader(HaschedError):
    """No manager leads at the moment, or the leader can't confirm that it still does. Nothing was done; retrying is safe."""

    code = "no_leader"
    status = 503
    title = "No leader"


class NotLeader(HaschedError):
    """This manager doesn't lead; `leader` names the one that does, if known. Nothing was done."""

    code = "not_leader"
    status = 503
    title = "Not the leader"

    def __init__(self, leader: str | None) -> None:
        super().__init__(f"the leader is {leader or 'not known'}", "ask another manager")
        self.leader = leader


class OutcomeUnknown(HaschedError):
    """The command may have been committed. Retry with the same submission_id, never a new one."""

    code = "outcome_unknown"
    status = 503
    title = "The outcome is not known"


class TransferFailed(HaschedError):
    """The leader didn't hand over. It, or another that was elected meanwhile, leads on."""

    code = "transfer_failed"
    status = 409
    title = "Leadership was not handed over"


class ForeignCluster(HaschedError):
    """A leader is of another cluster than the agent; raised within the agent, and logged there. Nothing was done."""

    code = "foreign_cluster"
    status = 409
    title = "The manager is of another cluster"


class RecoveryRefused(HaschedError):
    """This manager's disk is not one to recover a cluster from."""

    code = "recovery_refused"
    status = 409
    title = "The recovery is refused"


class Overloaded(HaschedError):
    code = "overloaded"
    status = 503
    title = "Too busy"


class NodeUnreachable(HaschedError):
    code = "node_unreachable"
    status = 503
    title = "The node can't be reached"


class StorageFailed(HaschedError):
    """A disk refused a write or a sync. After a failed sync the manager stops: what the kernel kept is not known."""

    code = "storage_failed"
    status = 507
    title = "The disk failed"


class ClusterUnreachable(HaschedError):
    """No manager answered; raised by the client."""

    code = "cluster_unreachable"
    status = 503
    title = "No manager answered"


class ClusterNotTrusted(ClusterUnreachable):
    """Whoever answers is not of this cluster, by its certificate; raised by the client."""

    code = "cluster_not_trusted"
    title = "The certificate is not of this cluster"
