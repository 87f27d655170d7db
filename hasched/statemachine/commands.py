"""Commands: everything that can be asked of the state machine, and the log entry that carries them.

A log entry is one `Batch`: the leader's clock and every command that was waiting in that turn. Entries are versioned; a
field that is added later has a default, so that every log ever written can be replayed (`tests/golden/`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from hasched.model.policy import Policy, PolicyKind
from hasched.model.schedule import ScheduleSpec, SlotRun
from hasched.model.spec import Dependency, JobSpec
from hasched.model.states import NodeState
from hasched.model.taints import Taint
from hasched.model.wire import AttemptKey, AttemptReport, NodeInfo
from hasched.model.workflow import WorkflowSpec
from hasched.statemachine.manager import ManagerAddress

# From 2 on the state keeps count of what outdates plans (`rules/planned.py`), from 3 on relations hold, from 4 on steps of the
# clock count the conditions that they decide, and tasks of workflows know their slot.
BATCH_VERSION = 4


class _Command(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class SubmitJob(_Command, frozen=True, tag="submit_job"):
    """Accept a job. A known `submission_id` is answered with the job that it made the first time.

    With `if_index`, only while a plan made at that log index still holds: nothing since has changed what waits before the
    job or what is free for it (`rules/planned.py`).
    """

    submission_id: str
    actor: str
    spec: JobSpec
    if_index: int = 0


class CancelJob(_Command, frozen=True, tag="cancel_job"):
    """End a job: waiting tasks at once, running ones when the agent has stopped them. Without `indices`, all tasks."""

    job_id: int
    actor: str
    reason: str = ""
    indices: tuple[int, ...] = ()


class SuspendJob(_Command, frozen=True, tag="suspend_job"):
    """Start nothing more of the job and freeze what runs. Its resources stay allocated."""

    job_id: int
    actor: str


class ResumeJob(_Command, frozen=True, tag="resume_job"):
    job_id: int
    actor: str


class UpdateJob(_Command, frozen=True, tag="update_job"):
    """Change where a job that has not ended stands in the order, and its times. None: as it was; a time of 0: none."""

    job_id: int
    actor: str
    priority: int | None = None
    priority_class: str | None = None
    queue: str | None = None
    not_before_ms: int | None = None
    not_before_after_ms: int | None = None
    deadline_ms: int | None = None
    deadline_after_ms: int | None = None
    dependency: Dependency | None = None  # without conditions: none


class DeleteJob(_Command, frozen=True, tag="delete_job"):
    """Forget a job that has ended."""

    job_id: int
    actor: str


class RegisterNode(_Command, frozen=True, tag="register_node"):
    """A node's agent has opened a stream: add the node, or take its new inventory, and make it healthy.

    What the state holds on the node is not ended by this: the leader sends what the agent lacks again. So an agent with
    another table of attempts must know all of them, from its supervisor. The leader compares, and says when: the agent
    knew everything that the node held after entry `known_as_of`, and may know nothing of what was placed since. So the
    command is small, however many they are. 0: it knew nothing.
    """

    node_id: str
    info: NodeInfo
    known: tuple[AttemptKey, ...] = ()  # in logs of before: those that it knew, one by one
    known_as_of: int = 0


class SetNodeState(_Command, frozen=True, tag="set_node_state"):
    """The leader's judgement of a node. `disconnected` ends its attempts as lost.

    A judgement counts only while what it rests on does: the watch of the term in which it was made, and the node as it was.
    Either is 0, and not checked, in logs of versions that didn't say.
    """

    node_id: str
    state: NodeState
    reason: str
    term: int = 0
    log_index: int = 0  # of the node, when it was judged


class WatchNodes(_Command, frozen=True, tag="watch_nodes"):
    """The leader of `term` listens to the nodes from here on: what leaders of earlier terms make of silence is void."""

    term: int


class RemoveNode(_Command, frozen=True, tag="remove_node"):
    """Forget a disconnected node."""

    node_id: str
    actor: str


class SetNodeEligibility(_Command, frozen=True, tag="set_node_eligibility"):
    """Cordon a node, so that it gets no new work, or uncordon it. What runs there goes on."""

    node_id: str
    eligible: bool
    actor: str
    reason: str = ""


class DrainNode(_Command, frozen=True, tag="drain_node"):
    """No new work for a node; what still runs there `wait_ms` from now is stopped and started elsewhere.

    Without `wait_ms` what runs has all the time it takes. A second one replaces the first, deadline and all.
    """

    node_id: str
    actor: str
    reason: str = ""
    wait_ms: int | None = None


class UndrainNode(_Command, frozen=True, tag="undrain_node"):
    """The node takes work again. What was told to go because of the drain goes nonetheless."""

    node_id: str
    actor: str


class QuarantineNode(_Command, frozen=True, tag="quarantine_node"):
    """The leader's: launches fail on this node, so it gets no new work for `wait_ms`. Counts while the node takes work."""

    node_id: str
    reason: str
    wait_ms: int


class EndQuarantine(_Command, frozen=True, tag="end_quarantine"):
    """An operator lets the node have work again; or the leader, without `actor`, has seen a launch succeed on probation."""

    node_id: str
    actor: str = ""


class SetNodeProperties(_Command, frozen=True, tag="set_node_properties"):
    """What operators say of a node over what its agent does: of a label or taint that is None, that it has none.

    What isn't named stays as it is, or, with `reset`, goes back to what the agent says before the rest is done.
    """

    node_id: str
    actor: str
    pool: str = ""  # empty: as it is
    labels: dict[str, str | None] = {}
    taints: dict[str, Taint | None] = {}  # by key
    reset: bool = False


class RecordOrigin(_Command, frozen=True, tag="record_origin"):
    """The leader's: the cluster is known by this from now on. Counts while the state names none, once in a cluster's life."""

    origin: str


class RecordManagers(_Command, frozen=True, tag="record_managers"):
    """The leader's: these managers form the cluster. Counts while the state names none, once in a cluster's life."""

    members: tuple[ManagerAddress, ...]


class AddManager(_Command, frozen=True, tag="add_manager"):
    """Want one more manager. The leader takes it in when it is there, and gives it a vote when its disk is filled."""

    manager_id: str
    actor: str
    api_url: str
    raft_address: str


class RemoveManager(_Command, frozen=True, tag="remove_manager"):
    """Want one manager less."""

    manager_id: str
    actor: str


class PutPolicy(_Command, frozen=True, tag="put_policy"):
    """Put a policy, a new one or in place of the one of that name. `if_index`: only if that one's log index is this, 0: none."""

    kind: PolicyKind
    name: str
    body: Policy
    actor: str
    if_index: int | None = None


class DeletePolicy(_Command, frozen=True, tag="delete_policy"):
    kind: PolicyKind
    name: str
    actor: str
    if_index: int | None = None


class PutSchedule(_Command, frozen=True, tag="put_schedule"):
    """Put a schedule, a new one or in place of the one of that name. `if_index`: only if that was put at this index, 0: none."""

    name: str
    spec: ScheduleSpec
    actor: str
    if_index: int | None = None


class DeleteSchedule(_Command, frozen=True, tag="delete_schedule"):
    """Forget a schedule and its ledger. Its jobs go on."""

    name: str
    actor: str


class PauseSchedule(_Command, frozen=True, tag="pause_schedule"):
    """Skip every slot until it is resumed."""

    name: str
    actor: str
    reason: str = ""


class ResumeSchedule(_Command, frozen=True, tag="resume_schedule"):
    name: str
    actor: str


class PlanSlots(_Command, frozen=True, tag="plan_slots"):
    """The leader's: later than `after_ms` and not later than `until_ms` exactly these slots are due.

    Counts only where the last plan ended and while the schedule is as it was put at `revision`: so every instant is planned
    once, whoever leads.
    """

    name: str
    revision: int
    after_ms: int
    until_ms: int
    runs: tuple[SlotRun, ...] = ()


class BackfillSchedule(_Command, frozen=True, tag="backfill_schedule"):
    """Fire these slots of the past, one after the other unless runs may overlap; those that were fired only if `again`."""

    name: str
    actor: str
    runs: tuple[SlotRun, ...]
    again: bool = False


class Placement(msgspec.Struct, frozen=True, array_like=True):
    """Start the next attempt of these tasks of a job on a node, with this one of the job's alternative requests."""

    job_id: int
    node_id: str
    indices: tuple[int, ...]
    choice: int = 0


class PlacePlan(_Command, frozen=True, tag="place_plan"):
    """The scheduler's proposal. Each task is checked again; what no longer fits is left pending."""

    placements: tuple[Placement, ...]


class PlaceGang(_Command, frozen=True, tag="place_gang"):
    """The scheduler's proposal for tasks that start together. What doesn't fit as a whole is refused as a whole.

    Of a gang the placements hold the tasks from 0 on, without a gap; that of task 0 is the master's, and `port` is free there.
    """

    job_id: int
    placements: tuple[Placement, ...]
    port: int = 0


class PreemptAttempts(_Command, frozen=True, tag="preempt_attempts"):
    """The scheduler's proposal: these attempts give their room to a job that waits. Each is checked again."""

    attempts: tuple[AttemptKey, ...]
    for_job: int
    reason: str = ""


class PreemptTasks(_Command, frozen=True, tag="preempt_tasks"):
    """An operator's: these tasks of a job, without `indices` all that run, stop and wait again."""

    job_id: int
    actor: str
    reason: str = ""
    indices: tuple[int, ...] = ()


class ReportAttempts(_Command, frozen=True, tag="report_attempts"):
    """What an agent saw. A report of an attempt that no longer counts is refused, and shown on that attempt."""

    node_id: str
    reports: tuple[AttemptReport, ...]


class PutTemplate(_Command, frozen=True, tag="put_template"):
    """A new version of a job or workflow template, as the JSON text of its document. `if_version`: only after that one."""

    kind: str
    name: str
    document: bytes
    actor: str
    if_version: int | None = None


class DeleteTemplate(_Command, frozen=True, tag="delete_template"):
    kind: str
    name: str
    actor: str


class StartExecution(_Command, frozen=True, tag="start_execution"):
    """Execute a workflow. A known `submission_id` is answered with the execution that it made the first time."""

    submission_id: str
    actor: str
    spec: WorkflowSpec
    params: tuple[tuple[str, Any], ...] = ()
    version: int = 0  # of the workflow template; 0: it came with its document
    timeout_ms: int = 0  # 0: as the spec says


class CancelExecution(_Command, frozen=True, tag="cancel_execution"):
    """Begin nothing more of it and stop what runs; what takes back and cleans up runs still. Asked again, not that either."""

    execution_id: int
    actor: str
    reason: str = ""


class RetryExecution(_Command, frozen=True, tag="retry_execution"):
    """Run again what failed of an execution that has ended, and everything after it."""

    execution_id: int
    actor: str


class DecideApproval(_Command, frozen=True, tag="decide_approval"):
    execution_id: int
    task: str
    approve: bool
    actor: str
    comment: str = ""


class DeleteExecution(_Command, frozen=True, tag="delete_execution"):
    """Forget an execution that has ended."""

    execution_id: int
    actor: str


class Settlement(msgspec.Struct, frozen=True, array_like=True):
    """How an attempt to deliver a notice went. `wait_ms`: the receiver wants no other before."""

    target: str
    delivery_id: int
    attempt: int
    delivered: bool
    error: str = ""
    wait_ms: int = 0


class SettleDeliveries(_Command, frozen=True, tag="settle_deliveries"):
    """The leader's: these attempts were made. Each counts once, whoever reports it."""

    settled: tuple[Settlement, ...]


class RetryNotifications(_Command, frozen=True, tag="retry_notifications"):
    """Try again what was given up, and now what waits; without `deliveries`, all of the target's."""

    target: str
    actor: str
    deliveries: tuple[int, ...] = ()


class TryNotification(_Command, frozen=True, tag="try_notification"):
    """Tell a target that somebody tries it."""

    target: str
    actor: str


class ForgetMemos(_Command, frozen=True, tag="forget_memos"):
    """Forget what tasks of a workflow have left; `task` and `key` narrow it where they aren't empty."""

    namespace: str
    workflow: str
    actor: str
    task: str = ""
    key: str = ""


class StepClock(_Command, frozen=True, tag="step_clock"):
    """Do what has come due by the batch's `now_ms`: retries become eligible, ended jobs and old submission ids go."""


Command: TypeAlias = (
    SubmitJob
    | CancelJob
    | SuspendJob
    | ResumeJob
    | UpdateJob
    | DeleteJob
    | RegisterNode
    | SetNodeState
    | WatchNodes
    | RemoveNode
    | SetNodeEligibility
    | DrainNode
    | UndrainNode
    | QuarantineNode
    | EndQuarantine
    | SetNodeProperties
    | RecordOrigin
    | RecordManagers
    | AddManager
    | RemoveManager
    | PutPolicy
    | DeletePolicy
    | PutSchedule
    | DeleteSchedule
    | PauseSchedule
    | ResumeSchedule
    | PlanSlots
    | BackfillSchedule
    | PlacePlan
    | PlaceGang
    | PreemptAttempts
    | PreemptTasks
    | ReportAttempts
    | PutTemplate
    | DeleteTemplate
    | StartExecution
    | CancelExecution
    | RetryExecution
    | DecideApproval
    | DeleteExecution
    | ForgetMemos
    | SettleDeliveries
    | RetryNotifications
    | TryNotification
    | StepClock
)


class Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    """One log entry. `now_ms` is the leader's clock when it took the commands; the state keeps the largest seen."""

    v: int
    now_ms: int
    commands: list[Command]


class _RawBatch(msgspec.Struct, frozen=True, omit_defaults=True):
    v: int
    now_ms: int
    commands: list[msgspec.Raw]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Batch)
_command_decoder = msgspec.msgpack.Decoder(Command)


def encode_command(command: Command) -> bytes:
    """A command as it travels and as it stands in an entry."""
    return _encoder.encode(command)


def decode_command(data: bytes) -> Command:
    """Raises msgspec.DecodeError or msgspec.ValidationError."""
    return _command_decoder.decode(data)  # type: ignore[no-any-return]


def encode_batch(now_ms: int, commands: Sequence[bytes]) -> bytes:
    """A log entry of commands that are encoded already."""
    return _encoder.encode(_RawBatch(BATCH_VERSION, now_ms, [msgspec.Raw(command) for command in commands]))


def decode_batch(data: bytes) -> Batch:
    """Raises msgspec.DecodeError or msgspec.ValidationError."""
    return _decoder.decode(data)
