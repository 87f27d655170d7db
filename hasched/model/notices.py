"""Notices: what people and programs outside the cluster are told, and what about.

A topic is what a notification policy or a job's `notify` names. `job.failed` is every end that is neither success nor wanted:
`state` says which.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

MAX_NOTICE_TEXT = 1024  # characters of a reason, or of an error of a delivery


class Topic(StrEnum):
    JOB_SUBMITTED = "job.submitted"
    JOB_STARTED = "job.started"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    WORKFLOW_STARTED = "workflow.started"
    WORKFLOW_APPROVAL = "workflow.approval"
    WORKFLOW_HOOK = "workflow.hook"
    WORKFLOW_SUCCEEDED = "workflow.succeeded"
    WORKFLOW_FAILED = "workflow.failed"
    WORKFLOW_CANCELLED = "workflow.cancelled"
    SCHEDULE_LATE = "schedule.late"
    SCHEDULE_MISSING = "schedule.missing"
    SCHEDULE_REFUSED = "schedule.refused"
    NODE_DISCONNECTED = "node.disconnected"
    NODE_QUARANTINED = "node.quarantined"

    @property
    def of_jobs(self) -> bool:
        return self.value.startswith("job.")

    @property
    def of_workflows(self) -> bool:
        return self.value.startswith("workflow.")


TEST_TOPIC = "notification.test"  # somebody tries a target
DROPPED_TOPIC = "notification.dropped"  # a target had no room for some


class Channel(StrEnum):
    """How a notice gets there."""

    WEBHOOK = "webhook"
    EMAIL = "email"
    SLACK = "slack"
    APPRISE = "apprise"


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What has happened, and to what. `event` is the id of the event as `/v1/events` shows it."""

    topic: str
    event: str
    time_ms: int
    namespace: str = ""  # of the job, workflow or schedule; empty: it is the cluster's
    name: str = ""  # of the job, workflow, schedule or node
    actor: str = ""  # whose it is
    job_id: int = 0
    execution_id: int = 0
    state: str = ""
    reason: str = ""
    node: str = ""
    exit_code: int | None = None
    task: str = ""  # of a workflow that asks, its hook, or, as its number, of a job that has failed
    tasks: int = 0  # of the job
    tasks_failed: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    slot_ms: int = 0  # of a schedule
    delay_ms: int = 0
    count: int = 0  # of notices that were dropped
    hook: str = ""  # of a workflow: whether it is one of `pre` or of `post`


class DeliveryState(IntEnum):
    """The numbers are part of the snapshot format and never change."""

    WAITING = 0  # for its first attempt, or its next
    DELIVERED = 1
    FAILED = 2  # given up


class NotifyRule(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Of a job or a workflow: which notification policies are told, and what of. The events of a workflow always stand there."""

    targets: tuple[str, ...]  # sorted
    events: tuple[str, ...] = (Topic.JOB_FAILED.value, Topic.JOB_SUCCEEDED.value)  # sorted topics of it
