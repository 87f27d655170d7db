"""What makes a plan outdated: whatever may have put more before a job, or left less free for it, than the plan counted with.

A plan is made of the state at one log index, in which every job that waits is placed first, in its order. So that those
start doesn't matter, nor that a task ends for good, which only leaves more free. What does: jobs that are new, that wait again
or whose place in the order is another, and every change of nodes and policies.
"""

from __future__ import annotations

from typing import get_args

from hasched.model.states import TaskState
from hasched.statemachine import events as e
from hasched.statemachine.commands import SubmitJob
from hasched.statemachine.events import Event
from hasched.statemachine.notification_events import NotificationEvent
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.state import State
from hasched.statemachine.workflow_events import WorkflowEvent

PLANS_KEPT_SINCE = 2  # the version of entries; before, nobody made plans

_HARMLESS: dict[type, None] = dict.fromkeys(
    (
        e.TasksScheduled,
        e.AttemptStarted,
        e.AttemptCheckpointed,
        e.JobEnded,
        e.JobSuspended,
        e.JobCancelRequested,
        e.JobDeadlineExceeded,
        e.JobDeadlineExceeded,
        e.JobDeleted,
        e.JobExpired,
        e.DependencyMet,
        e.DependencyBroken,
        e.DependencyTimed,
        e.LateReportRefused,
        e.NodeRemoved,  # it was disconnected
        e.NodeDrained,  # it took no work already
        e.NodeDrained,
        e.OriginRecorded,
        e.ManagersRecorded,
        e.ManagerAdded,
        e.ManagerRemoved,
        e.SchedulePut,
        e.ScheduleDeleted,
        e.SchedulePaused,
        e.ScheduleResumed,
        e.SlotsPlanned,
        e.SlotFired,  # the job itself does
        e.SlotsSkipped,
        e.SlotsQueued,
        e.ScheduleLate,
        e.ScheduleMissing,
        e.WatchStarted,
        e.SubmissionsForgotten,
        e.ClockStepped,
        *get_args(NotificationEvent),
        *get_args(WorkflowEvent),  # the jobs of executions come by events of their own
    )
)


def outdates_plans(event: Event) -> bool:
    """Whether a plan made before the event may not hold after it. An event of a kind that isn't known here does."""
    if isinstance(event, e.AttemptEnded):
        return event.task_state is TaskState.PENDING
    return type(event) not in _HARMLESS


def find_outdated(state: State, command: SubmitJob) -> Rejected | None:
    """The refusal of a submission whose plan doesn't hold any more."""
    if not command.if_index or state.plan_index <= command.if_index:
        return None
    return Rejected(
        "plan_outdated",
        f"the plan was made at index {command.if_index}; entry {state.plan_index} has changed what it counted with",
        "plan again, and submit with the new index",
    )
