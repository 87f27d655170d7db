"""Events: everything that can happen to the state. `evolve` performs them, and they feed the UI, history, metrics and audit.

A task that runs makes three: it is scheduled (many at once, `TasksScheduled`), it starts (left out when a short task's
first report is its end), and its attempt ends. `AttemptEnded` says also what becomes of the task, so nothing follows it
but the end of the job.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from hasched.model.dependency import format_condition, format_dependency
from hasched.model.notices import Notice
from hasched.model.policy import TYPES, Policy, PolicyKind
from hasched.model.policy_text import write_policy
from hasched.model.schedule import ScheduleSpec, SlotOutcome, SlotRun
from hasched.model.spec import Condition, Dependency, JobSpec
from hasched.model.states import EndKind, NodeState, TaskState
from hasched.model.taints import Taint
from hasched.model.views import EventView
from hasched.model.wire import NodeInfo, Usage
from hasched.statemachine.execution import ExecutionState, RowState, Stage
from hasched.statemachine.manager import ManagerAddress
from hasched.statemachine.notification_events import NotificationEvent
from hasched.statemachine.workflow_events import WorkflowEvent


class _Event(msgspec.Struct, frozen=True, tag=True, gc=False):
    pass


class JobSubmitted(_Event, frozen=True):
    """`parent` is what of the cluster has submitted the job: `schedule/NAME@DUE_MS`, for one; none: somebody else has."""

    job_id: int
    submission_id: str
    actor: str
    spec: JobSpec
    parent: str = ""


class JobSuspended(_Event, frozen=True):
    job_id: int
    actor: str


class JobResumed(_Event, frozen=True):
    job_id: int
    actor: str


class JobCancelRequested(_Event, frozen=True):
    """`indices` are the tasks meant, none given: all. `cancelled` waiting ones have ended with this event.

    `stopping` are the indices of active ones that the agents now have to stop.
    """

    job_id: int
    actor: str
    reason: str
    indices: tuple[int, ...]
    cancelled: int
    stopping: tuple[int, ...]


class JobEnded(_Event, frozen=True):
    """All tasks of the job have ended; `state` is the most telling of their states."""

    job_id: int
    state: TaskState


class JobUpdated(_Event, frozen=True):
    """Where the job stands in the order, and its times, as they are from here on; and what it waits for, if that is new."""

    job_id: int
    actor: str
    priority: int
    priority_class: str
    preempts: bool
    queue: str
    not_before_ms: int
    deadline_ms: int
    dependency: Dependency | None = None  # None: as it was; without conditions: nothing


class JobDue(_Event, frozen=True):
    """The time before which the job was not to start has come."""

    job_id: int


class JobDeadlineExceeded(_Event, frozen=True):
    """The job has not ended by its deadline. `ended` waiting tasks have with this event.

    `stopping` are the indices of active ones that the agents now have to stop.
    """

    job_id: int
    ended: int
    stopping: tuple[int, ...]


class JobDeleted(_Event, frozen=True):
    job_id: int
    actor: str


class JobExpired(_Event, frozen=True):
    """An ended job was forgotten because its retention is over."""

    job_id: int


class TasksScheduled(_Event, frozen=True):
    """`attempts[i]` is the number of the attempt that `indices[i]` now makes on the node.

    `choice` is which of the job's alternative requests they were given.
    """

    job_id: int
    node_id: str
    indices: tuple[int, ...]
    attempts: tuple[int, ...]
    choice: int = 0


class AttemptStarted(_Event, frozen=True):
    job_id: int
    index: int
    attempt: int
    node_id: str
    started_ms: int


class AttemptEnded(_Event, frozen=True):
    """`state` is the attempt's own end; `task_state` the task's: the same, or PENDING when it will be tried again.

    An attempt that was ended so that its task starts again (`kind` says why: PREEMPTED, GANG_RESTARTED) has no end of its
    own: its `state` is PENDING too.

    `not_before_ms` is when a retry becomes eligible, 0 at once. `reported` is false where the managers gave the attempt
    up, because its node was lost.
    """

    job_id: int
    index: int
    attempt: int
    node_id: str
    state: TaskState
    task_state: TaskState
    kind: EndKind
    code: int
    reason: str
    usage: Usage
    output: bytes
    started_ms: int
    ended_ms: int
    not_before_ms: int = 0
    reported: bool = True
    checkpoint_ms: int = 0  # the task's latest checkpoint, if this report told of it


class AttemptCheckpointed(_Event, frozen=True):
    """The task has written down what it has done so far: at its next start it can go on from there."""

    job_id: int
    index: int
    attempt: int
    node_id: str
    checkpoint_ms: int


class GangScheduled(_Event, frozen=True):
    """All tasks of a gang's run are scheduled by the events that follow: `ranks[i]` on `nodes[i]`, the master's node first."""

    job_id: int
    nodes: tuple[str, ...]
    ranks: tuple[tuple[int, ...], ...]
    port: int


class GangBroken(_Event, frozen=True):
    """Task `index` of a gang has ended and takes the others along: the `stopping` ones have to end, `cancelled` have.

    `restarts`: the whole gang starts again. If not, what hasn't ended by itself is cancelled.
    """

    job_id: int
    index: int
    restarts: bool
    stopping: tuple[int, ...]
    cancelled: tuple[int, ...]
    reason: str


class GangReopened(_Event, frozen=True):
    """These tasks had succeeded in a run that the gang didn't end: they start again with the others."""

    job_id: int
    indices: tuple[int, ...]


class GangShrunk(_Event, frozen=True):
    """An elastic gang has succeeded with fewer tasks than it might have had: those that weren't needed are gone."""

    job_id: int
    count: int


class TasksPreempted(_Event, frozen=True):
    """These active tasks are to stop and to wait again. `for_job` is the job that gets their room, 0: an operator wants it."""

    job_id: int
    indices: tuple[int, ...]
    for_job: int
    actor: str
    reason: str


class TasksEligible(_Event, frozen=True):
    """The backoff of these tasks is over."""

    job_id: int
    indices: tuple[int, ...]


class DependencyMet(_Event, frozen=True):
    """These conditions of what the job waits for hold."""

    job_id: int
    conditions: tuple[Condition, ...]


class DependencyBroken(_Event, frozen=True):
    """These conditions can't hold any more. `hopeless`: so nothing of the job can ever start."""

    job_id: int
    conditions: tuple[Condition, ...]
    hopeless: bool


class DependencyTimed(_Event, frozen=True):
    """The other job has started, so the condition holds from `due_ms` on."""

    job_id: int
    condition: Condition
    due_ms: int


class TasksReleased(_Event, frozen=True):
    """These tasks wait for no other job any more; without `indices`, all that did."""

    job_id: int
    indices: tuple[int, ...] = ()


class LateReportRefused(_Event, frozen=True):
    """A lost attempt reported its end after all. It changes nothing, and is kept on the attempt for people to see."""

    job_id: int
    index: int
    attempt: int
    node_id: str
    state: TaskState
    kind: EndKind
    code: int


class NodeRegistered(_Event, frozen=True):
    node_id: str
    info: NodeInfo


class NodeStateChanged(_Event, frozen=True):
    node_id: str
    state: NodeState
    reason: str


class NodeRemoved(_Event, frozen=True):
    node_id: str
    actor: str


class NodeCordoned(_Event, frozen=True):
    node_id: str
    actor: str
    reason: str


class NodeUncordoned(_Event, frozen=True):
    node_id: str
    actor: str


class NodeDrainStarted(_Event, frozen=True):
    """`deadline_ms` is 0 where what runs has all the time it takes."""

    node_id: str
    actor: str
    reason: str
    deadline_ms: int


class NodeDrainExpired(_Event, frozen=True):
    """The deadline of the drain has come. What still ran on the node was told to stop, to be started elsewhere."""

    node_id: str
    attempts: int


class NodeDrained(_Event, frozen=True):
    """Nothing runs any more on a node that drains."""

    node_id: str


class NodeUndrained(_Event, frozen=True):
    node_id: str
    actor: str


class NodeQuarantined(_Event, frozen=True):
    """`times` in a row without a launch that succeeded in between."""

    node_id: str
    reason: str
    until_ms: int
    times: int


class NodeOnProbation(_Event, frozen=True):
    """The node's quarantine is over: it takes work again, and is watched."""

    node_id: str


class NodeQuarantineEnded(_Event, frozen=True):
    """By an operator, or, without `actor`, because a launch has succeeded on probation."""

    node_id: str
    actor: str


class NodePropertiesSet(_Event, frozen=True):
    """All that operators say of the node from here on, as `Overrides` has it."""

    node_id: str
    actor: str
    pool: str
    labels: tuple[tuple[str, str | None], ...]
    taints: tuple[tuple[str, Taint | None], ...]


class OriginRecorded(_Event, frozen=True):
    """The cluster is told from others by `origin` from here on."""

    origin: str


class ManagersRecorded(_Event, frozen=True):
    """The managers that have formed the cluster are known to the state from here on."""

    managers: tuple[ManagerAddress, ...]


class ManagerAdded(_Event, frozen=True):
    manager_id: str
    actor: str
    api_url: str
    raft_address: str


class ManagerRemoved(_Event, frozen=True):
    manager_id: str
    actor: str


class PolicyChanged(_Event, frozen=True):
    """A policy was put, a new one or in place of another."""

    kind: PolicyKind
    name: str
    body: Policy
    actor: str


class PolicyDeleted(_Event, frozen=True):
    kind: PolicyKind
    name: str
    actor: str


class SchedulePut(_Event, frozen=True):
    """A schedule was put, a new one or in place of another."""

    schedule: str
    spec: ScheduleSpec
    actor: str


class ScheduleDeleted(_Event, frozen=True):
    schedule: str
    actor: str


class SchedulePaused(_Event, frozen=True):
    schedule: str
    actor: str
    reason: str


class ScheduleResumed(_Event, frozen=True):
    schedule: str
    actor: str


class SlotsPlanned(_Event, frozen=True):
    """These slots are due, and up to `until_ms` no others."""

    schedule: str
    until_ms: int
    runs: tuple[SlotRun, ...]


class SlotFired(_Event, frozen=True):
    """A slot has got its job, or its execution. `waited`: it stood among those that wait for an earlier run."""

    schedule: str
    slot_ms: int
    outcome: SlotOutcome
    job_id: int
    waited: bool
    execution_id: int = 0


class SlotsSkipped(_Event, frozen=True):
    """`count` slots from `first_ms` on, `step_ms` apart, are not fired, and `outcome` is why. `text` says more of a refusal.

    `past`: they were over when they were planned.
    """

    schedule: str
    first_ms: int
    step_ms: int
    count: int
    outcome: SlotOutcome
    waited: bool = False
    text: str = ""
    past: bool = False


class SlotsQueued(_Event, frozen=True):
    """These slots will be fired when what runs has ended: `actor` wants slots of the past, or, none, they are due."""

    schedule: str
    runs: tuple[SlotRun, ...]
    outcome: SlotOutcome  # what they will be
    actor: str = ""


class ScheduleLate(_Event, frozen=True):
    """A slot was fired later than the schedule puts up with. Told once, until one is fired in time again."""

    schedule: str
    slot_ms: int
    delay_ms: int


class ScheduleMissing(_Event, frozen=True):
    """No run of the schedule has succeeded since `since_ms`. Told once, until one does."""

    schedule: str
    since_ms: int


class WatchStarted(_Event, frozen=True):
    """A new leader listens to the nodes, and gives each a fresh grace."""

    term: int


class WeekBegan(_Event, frozen=True):
    """What quotas count by the week begins at nothing."""

    week: int


class SubmissionsForgotten(_Event, frozen=True):
    """Submission ids of jobs that went long ago are no longer known."""

    submission_ids: tuple[str, ...]


class ClockStepped(_Event, frozen=True):
    """What was due has been done."""


Event: TypeAlias = (
    JobSubmitted
    | JobSuspended
    | JobResumed
    | JobCancelRequested
    | JobUpdated
    | JobDue
    | JobDeadlineExceeded
    | JobEnded
    | JobDeleted
    | JobExpired
    | TasksScheduled
    | AttemptStarted
    | AttemptEnded
    | AttemptCheckpointed
    | TasksPreempted
    | GangScheduled
    | GangBroken
    | GangReopened
    | GangShrunk
    | TasksEligible
    | DependencyMet
    | DependencyBroken
    | DependencyTimed
    | TasksReleased
    | LateReportRefused
    | NodeRegistered
    | NodeStateChanged
    | NodeRemoved
    | NodeCordoned
    | NodeUncordoned
    | NodeDrainStarted
    | NodeDrainExpired
    | NodeDrained
    | NodeUndrained
    | NodeQuarantined
    | NodeOnProbation
    | NodeQuarantineEnded
    | NodePropertiesSet
    | OriginRecorded
    | ManagersRecorded
    | ManagerAdded
    | ManagerRemoved
    | PolicyChanged
    | PolicyDeleted
    | SchedulePut
    | ScheduleDeleted
    | SchedulePaused
    | ScheduleResumed
    | SlotsPlanned
    | SlotFired
    | SlotsSkipped
    | SlotsQueued
    | ScheduleLate
    | ScheduleMissing
    | WatchStarted
    | WeekBegan
    | SubmissionsForgotten
    | ClockStepped
    | WorkflowEvent
    | NotificationEvent
)

# After these a node may take work that it didn't take before, or no longer takes any.
NODE_CHANGES: tuple[type[Event], ...] = (
    NodeRegistered,
    NodeStateChanged,
    NodeRemoved,
    NodeCordoned,
    NodeUncordoned,
    NodeDrainStarted,
    NodeUndrained,
    NodeQuarantined,
    NodeOnProbation,
    NodeQuarantineEnded,
    NodePropertiesSet,
)

_POLICY_TYPES = tuple(TYPES.values())
_SHOWN_BY_NAME = {"job_id": "job_id", "index": "task_index", "attempt": "attempt", "node_id": "node_id"}


def view(event: Event, log_index: int, number: int, time_ms: int) -> EventView:
    """The event as the API shows it; `number` counts the events of its log entry from 0."""
    return EventView(
        id=f"{log_index}.{number}",
        log_index=log_index,
        time_ms=time_ms,
        type=type(event).__name__,
        job_id=getattr(event, "job_id", None),
        task_index=getattr(event, "index", None),
        attempt=getattr(event, "attempt", None),
        node_id=getattr(event, "node_id", None),
        data=_data(event),
    )


def _data(event: Event) -> dict[str, Any]:
    """What `EventView` has no field for. A spec is only summed up, and output stays with its task: a feed must be light."""
    data: dict[str, Any] = {}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        match value:
            case JobSpec():
                data.update(name=value.name, queue=value.queue, priority=value.priority, count=value.count)
            case ScheduleSpec():
                data.update(cron=value.cron, every_ms=value.every_ms, at=list(value.at), timezone=value.timezone)
            case TaskState() | EndKind() | SlotOutcome():
                data[name] = value.name
            case Notice():
                data.update(topic=value.topic, about=value.event, subject=value.name)
            case RowState() | Stage() | ExecutionState():
                data[name] = value.name.lower()
            case _ if isinstance(value, _POLICY_TYPES):
                data[name] = write_policy(value)
            case NodeState() | PolicyKind():
                data[name] = value.value
            case NodeInfo() | Usage():
                data[name] = msgspec.to_builtins(value if isinstance(value, NodeInfo) else _usage(value))
            case bytes() if name != "output":
                pass  # a document, or a list of items
            case bytes():
                data["output_bytes"] = len(value)
            case None | Dependency(conditions=()) if name == "dependency":
                pass
            case Dependency():
                data[name] = format_dependency(value)
            case Condition():
                data[name] = format_condition(value)
            case tuple() if value and isinstance(value[0], Condition):
                data[name] = [format_condition(each) for each in value]
            case tuple():
                data[name] = [each.manager_id if isinstance(each, ManagerAddress) else each for each in value]
            case _ if name not in _SHOWN_BY_NAME and (value or name != "parent"):
                data[name] = value
            case _:
                pass
    return data


def _usage(usage: Usage) -> dict[str, int]:
    """Usage by name: on the wire it is an array."""
    return {"cpu_ms": usage.cpu_ms, "peak_memory_bytes": usage.peak_memory_bytes}
