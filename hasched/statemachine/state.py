"""The replicated state: every job, every node, the managers, and the few tables that tie them together.

Only `evolve` (in `rules/`) writes to it, through the methods of the lower half, which keep the sums and tables true.
Everything that can be computed from jobs and nodes (counters, heap, allocations) is left out of snapshots and digests.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, cast

import msgspec

from hasched.model.policy import PolicyKind
from hasched.model.spec import ANYWHERE, Condition, JobSpec, Resources
from hasched.model.states import TaskState
from hasched.statemachine.changes import NodeChanges
from hasched.statemachine.control import FREE, Control
from hasched.statemachine.execution import Execution
from hasched.statemachine.fair_share import Shares, rate_of
from hasched.statemachine.job import (
    END_WAITING,
    IN_BACKOFF,
    PHASES,
    STATE_OF_PHASE,
    ActiveAttempt,
    AttemptRecord,
    Cancel,
    Job,
    Late,
    TaskHistory,
    derive_state,
)
from hasched.statemachine.manager import ManagerRecord
from hasched.statemachine.memos import Memos
from hasched.statemachine.neighbours import Neighbours
from hasched.statemachine.node import Node
from hasched.statemachine.outbox import Outbox
from hasched.statemachine.policies import initial_policies
from hasched.statemachine.schedules import Schedule, parse_parent
from hasched.statemachine.templates import Template
from hasched.statemachine.usage import USE_KEPT_SINCE, ToldOf, Usage, count_told
from hasched.statemachine.waits import Awaited, Dependants, KeptEnd, Waits

__all__ = ["ActiveAttempt", "AttemptRecord", "Cancel", "Job", "Late", "Node", "State", "TaskHistory", "Tombstone"]

SUBMISSION_MEMORY_MS = 24 * 3600 * 1000  # a submission id is known as long as its job, and so long after that
MAX_TOMBSTONES = 1_000_000  # and of jobs that are gone at most so many, the latest
RETENTION_MS = 7 * 24 * 3600 * 1000  # an ended job is kept so long
MAX_ENDED_JOBS = 1_000_000  # and at most so many of them, the latest
MAX_RUNNING_EXECUTIONS = 10_000
MAX_ENDED_EXECUTIONS = 10_000  # the latest, and as long as ended jobs
MAX_EXECUTION_BYTES = 512 * 1024 * 1024  # specs and outputs of all executions together
STALE_TIMERS = 1000  # so many that mean nothing more, and as many as there are others, are never worth sorting out

LIMITING = (PolicyKind.QUOTA, PolicyKind.CAP)

_TOMBSTONE = struct.Struct("<QQQ")
_INTERNED_AT_MOST = 4096
_LET_GO = bytes(TaskState.PENDING if phase == IN_BACKOFF else phase for phase in range(256))
_HOLD_BACK = bytes(IN_BACKOFF if phase == TaskState.PENDING else phase for phase in range(256))
_T = TypeVar("_T")
_spec_encoder = msgspec.msgpack.Encoder()


class Tombstone(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is remembered of a job that is gone, so that its submission can't be made twice."""

    job_id: int
    log_index: int  # of the entry that accepted the job
    gone_ms: int  # when the job went

    def pack(self) -> bytes:
        """As it is kept: there may be a million of them."""
        return _TOMBSTONE.pack(self.job_id, self.log_index, self.gone_ms)

    @classmethod
    def unpack(cls, data: bytes) -> Tombstone:
        return cls(*_TOMBSTONE.unpack(data))


class JobSaver(Protocol):
    """A snapshot in progress: it is shown every job and execution before its first change after the point in time it captures."""

    def save(self, job: Job) -> None: ...

    def save_execution(self, execution: Execution) -> None: ...


class State:
    def __init__(self) -> None:
        self.index = 0  # of the last applied log entry
        self.now_ms = 0  # the largest time that a batch has carried
        self.entry_version = 0  # of the entry that is being applied
        self.plan_index = 0  # of the last entry after which a plan made before may not hold any more
        self.next_job_id = 1
        self.jobs: dict[int, Job] = {}  # by id, ascending
        self.nodes: dict[str, Node] = {}
        self.node_names: list[str] = [""]  # by number; a name keeps its number for ever
        self.node_numbers: dict[str, int] = {}
        self.node_timers: dict[str, int] = {}  # of nodes that something comes due for, when
        self.node_due_ms = 0  # the earliest of these, 0: none
        self.managers: dict[str, ManagerRecord] = {}  # that are wanted; none until a leader has recorded those it has
        self.policies = initial_policies()  # by kind and name
        self.usage = Usage()
        self.neighbours = Neighbours()
        self.node_changes = NodeChanges()
        self.dependants = Dependants()
        self.kept_ends: dict[int, KeptEnd] = {}  # of jobs that are forgotten, and waited for still
        self.week = 0  # the last whose beginning was noted, where a quota counts by the week
        self.origin = ""  # of the cluster; none until a leader has recorded one
        self.watch_term = 0  # of the leader whose judgements of nodes count; 0: none has said so
        self.submissions: dict[str, int] = {}  # of jobs that exist
        self.tombstones: dict[str, bytes] = {}  # packed, by `gone_ms`, ascending
        self.ended: dict[int, None] = {}  # jobs that have ended, the earliest first
        self.output_bytes: dict[int, int] = {}  # by job, of those that keep any
        self.backoffs: list[tuple[int, int, int]] = []  # heap of (not before, job, index); may hold what is past
        self.shares: Shares | None = None  # what accounts have used; none while fair share is off
        self.job_timers: list[tuple[int, int]] = []  # heap of (when, job); may hold what is past, or means nothing more
        self._timers_kept = 0  # how many of these meant something when they were sorted out last
        self.templates: dict[tuple[str, str], Template] = {}  # by kind and name
        self.template_bytes = 0
        self.memos = Memos()
        self.next_execution_id = 1
        self.executions: dict[int, Execution] = {}  # by id, ascending
        self.execution_ids: dict[str, int] = {}  # by submission id
        self.ended_executions: dict[int, None] = {}  # the earliest first
        self.ready_executions: dict[int, None] = {}  # that are to be advanced now
        self.execution_timers: dict[int, int] = {}  # of executions that something comes due for, when
        self.execution_due_ms = 0  # the earliest of these, 0: none
        self.execution_bytes = 0
        self.told_executions: ToldOf = {}  # that have not ended, for all that is within them
        self.schedules: dict[str, Schedule] = {}
        self.schedule_executions: dict[str, dict[int, None]] = {}  # likewise of executions
        self.schedule_sizes: dict[str, int] = {}  # of what each says, in bytes
        self.schedule_bytes = 0  # all of them
        self.schedule_jobs: dict[str, dict[int, None]] = {}  # that have not ended, by the schedule that has made them
        self.schedule_timers: list[tuple[int, str]] = []  # heap of (when, schedule); may hold what means nothing more
        self.schedule_plans: list[tuple[int, str]] = []  # likewise, of how far each is planned
        self.outbox = Outbox()
        self.job_counts = [0] * PHASES
        self.task_counts = [0] * PHASES
        self.savers: list[JobSaver] = []
        self.ended_due_ms = 0  # no ended job's retention is over before this; a lower bound, renewed by clock steps
        self.tombstones_due_ms = 0  # likewise
        self._interned: dict[object, object] = {}

    # ── What evolve writes with ─────────────────────────────────────────────────────────────────────────────────────

    def touch(self, job: Job) -> None:
        """To be called before the first change to a job in an event."""
        for saver in self.savers:
            saver.save(job)
        job.log_index = self.index

    def add_job(self, job_id: int, submission_id: str, actor: str, spec: JobSpec, parent: str = "") -> Job:
        job = Job(
            id=job_id,
            submission_id=submission_id,
            actor=self.intern(actor),
            name=self.intern(spec.name),
            queue=self.intern(spec.queue),
            priority=spec.priority,
            count=spec.count,
            max_running=spec.max_running,
            resources=self.intern(spec.resources),
            success_exit_codes=self.intern(spec.success_exit_codes),
            labels=spec.labels or None,
            packed_spec=_spec_encoder.encode(spec),
            submitted_ms=self.now_ms,
            submitted_index=self.index,
            log_index=self.index,
            phases=bytearray(spec.count),
            namespace=self.intern(spec.namespace),
            tags=self.intern(spec.tags) or None,
            semaphores=self.intern(spec.semaphores) or None,
            priority_class=self.intern(spec.priority_class),
            counts_of_many=None if spec.count == 1 else [spec.count] + [0] * (PHASES - 1),
            gang=self.intern(spec.gang_terms),
            placement=None if spec.placement == ANYWHERE else self.intern(spec.placement),
            parent=parent,
        )
        self.next_job_id = job_id + 1
        self.jobs[job_id] = job
        self.submissions[submission_id] = job_id
        self.job_counts[TaskState.PENDING] += 1
        self.task_counts[TaskState.PENDING] += job.count
        self.usage.submit(job)
        if parent:
            self.note_parent(job)
        self.dependants.names.add(job.name_key, job_id)
        return job

    def hold_back(self, job: Job, waits: Waits) -> None:
        """A job none of whose tasks was tried waits for others from now on."""
        job.phases = job.phases.translate(_HOLD_BACK)
        job.in_backoff = job.counts[TaskState.PENDING]
        self.set_waits(job, waits)

    def change_spec(self, job: Job, spec: JobSpec) -> None:
        """The job was submitted as if with this; what it has of it elsewhere is the caller's to change."""
        job.packed_spec = _spec_encoder.encode(spec)

    def let_go(self, job: Job, indices: Sequence[int]) -> None:
        """These tasks are not held back any more."""
        for index in indices:
            job.phases[index] = TaskState.PENDING
        job.in_backoff -= len(indices)

    def let_all_go(self, job: Job) -> None:
        """None of its tasks is held back any more, and none was tried."""
        job.phases = job.phases.translate(_LET_GO)
        job.in_backoff = 0

    def set_waits(self, job: Job, waits: Waits | None) -> None:
        """The job waits for this from now on, and for nothing of what it has waited for."""
        before = job.waits.open if job.waits is not None else ()
        for awaited in before:
            self.dependants.remove(job.id, job.name_key, awaited.condition)
        job.waits = waits
        for awaited in waits.open if waits is not None else ():
            self.await_job(job, awaited)
        for awaited in before:
            self._forget_end(awaited.condition.job_id)

    def decide_waits(self, job: Job, conditions: Sequence[Condition], *, broken: bool) -> None:
        """Of what the job waits for, this is decided. It costs what these are, however many there are besides."""
        assert job.waits is not None, "it waits"
        left = job.waits.without(conditions, broken=broken)
        if left is None:
            self.set_waits(job, None)
            return
        for condition in conditions:
            self._await_no_more(job, condition)
        job.waits = left

    def time_wait(self, job: Job, condition: Condition, due_ms: int) -> None:
        """It is known when a condition will hold."""
        assert job.waits is not None, "it waits"
        self._await_no_more(job, condition)
        job.waits = job.waits.timed(condition, due_ms)
        self.await_job(job, Awaited(condition, due_ms))

    def _await_no_more(self, job: Job, condition: Condition) -> None:
        self.dependants.remove(job.id, job.name_key, condition)
        self._forget_end(condition.job_id)

    def _forget_end(self, job_id: int) -> None:
        """Of a job that is forgotten itself, if nobody waits for that any more."""
        if job_id in self.kept_ends and not self.dependants.is_awaited(job_id):
            del self.kept_ends[job_id]

    def await_job(self, job: Job, awaited: Awaited) -> None:
        """Have the job found by what it waits for."""
        self.dependants.add(job.id, job.name_key, awaited)

    def note_start(self, job: Job, started_ms: int) -> None:
        """An attempt has started then, or (0) never has. Only the job's first is told to those who wait for it."""
        if started_ms and not job.started_ms:
            job.started_ms = started_ms
            self.dependants.note_start(job.id)

    def drop_job(self, job: Job) -> None:
        """Forget an ended job. Its submission id is remembered for a while, where anybody could send it again."""
        del self.jobs[job.id]
        del self.ended[job.id]
        del self.submissions[job.submission_id]
        self.output_bytes.pop(job.id, None)
        if not job.parent:
            if not self.tombstones:
                self.tombstones_due_ms = self.now_ms + SUBMISSION_MEMORY_MS
            self.tombstones[job.submission_id] = Tombstone(job.id, job.submitted_index, self.now_ms).pack()
        self.job_counts[job.state] -= 1
        for state, tasks in enumerate(job.counts):
            self.task_counts[state] -= tasks

    # Executions of workflows

    @property
    def running_executions(self) -> int:
        return len(self.executions) - len(self.ended_executions)

    def touch_execution(self, execution: Execution) -> None:
        """To be called before the first change to an execution in an event."""
        for saver in self.savers:
            saver.save_execution(execution)
        execution.log_index = self.index

    def add_execution(self, execution: Execution) -> None:
        self.next_execution_id = max(self.next_execution_id, execution.id + 1)
        self.executions[execution.id] = execution
        self.execution_ids[execution.submission_id] = execution.id
        self.execution_bytes += len(execution.packed_spec) + execution.kept_bytes
        self.note_execution(execution)

    def note_execution(self, execution: Execution) -> None:
        """An execution that has not ended is its schedule's, and somebody is told of it."""
        if execution.ended:
            return
        if (found := parse_parent(execution.parent)) is not None:
            self.schedule_executions.setdefault(found[0], {})[execution.id] = None
        count_told(self.told_executions, execution.plan.told, 1)

    def follow_execution(self, execution: Execution) -> None:
        """Know whether it is to be advanced, and when something comes due for it. To be called after every change."""
        if execution.due:
            self.ready_executions[execution.id] = None
        else:
            self.ready_executions.pop(execution.id, None)
        self._time_execution(execution.id, execution.next_ms)

    def _time_execution(self, execution_id: int, due_ms: int) -> None:
        before = self.execution_timers.get(execution_id, 0)
        if due_ms == before:
            return
        if due_ms:
            self.execution_timers[execution_id] = due_ms
        else:
            del self.execution_timers[execution_id]
        if before == self.execution_due_ms or (due_ms and due_ms < self.execution_due_ms):
            self.execution_due_ms = min(self.execution_timers.values(), default=0)

    def end_execution(self, execution: Execution) -> None:
        """Of those that end in one moment the first is the one that was started first, as it is when they are read again."""
        count_told(self.told_executions, execution.plan.told, -1)
        later = []
        while self.ended_executions:
            last_id = next(reversed(self.ended_executions))
            if last_id < execution.id or self.executions[last_id].ended_ms < execution.ended_ms:
                break
            later.append(last_id)
            del self.ended_executions[last_id]
        self.ended_executions.update(dict.fromkeys([execution.id, *reversed(later)]))

    def drop_execution(self, execution: Execution) -> None:
        """Forget an ended execution."""
        del self.executions[execution.id]
        del self.execution_ids[execution.submission_id]
        del self.ended_executions[execution.id]
        self.memos.forget_execution(execution.id)
        self.execution_bytes -= len(execution.packed_spec) + execution.kept_bytes

    def move_task(self, job: Job, index: int, phase: int, *, counted: bool = False) -> None:
        """Give a task its new phase. Follow it with `settle` once the event's tasks have all moved.

        `counted`: the caller tells `usage` itself of all its tasks that wait no more.
        """
        old_phase = job.phases[index]
        old, new = STATE_OF_PHASE[old_phase], STATE_OF_PHASE[phase]
        job.phases[index] = phase
        if job.checkpoints is not None and new.final:
            job.checkpoints.pop(index, None)
            job.checkpoints = job.checkpoints or None
        job.in_backoff += (phase == IN_BACKOFF) - (old_phase == IN_BACKOFF)
        counts = job.counts_of_many
        if counts is not None:
            counts[old] -= 1
            counts[new] += 1
        self.task_counts[old] -= 1
        self.task_counts[new] += 1
        if not counted and (old is TaskState.PENDING) is not (new is TaskState.PENDING):
            self.usage.wait(job, 1 if new is TaskState.PENDING else -1)

    def change_queue(self, job: Job, queue: str) -> None:
        """The job, with all that runs of it, is another queue's from now on."""
        held = job.held()
        for request, tasks in held:
            self.charge(job, request, -tasks)
        self.usage.change_queue(job, queue, held)
        job.queue = self.intern(queue)
        for request, tasks in held:
            self.charge(job, request, tasks)

    def hold(self, job: Job, node: Node, request: Resources, tasks: int) -> None:
        """Tasks of the job hold so much each on the node from now on."""
        node.allocate(request, tasks)
        self.node_changes.note(node.id)
        self.neighbours.change(job, node, tasks)
        self.charge(job, request, tasks)
        self.usage.start(job, request, tasks, self.now_ms)

    def release(self, job: Job, node: Node, request: Resources, active: ActiveAttempt) -> None:
        """An attempt gives back what it held on the node."""
        node.allocate(request, -1)
        self.node_changes.note(node.id)
        self.neighbours.change(job, node, -1)
        self.charge(job, request, -1)
        kept = self.entry_version >= USE_KEPT_SINCE
        self.usage.end(job, request, active.scheduled_ms, self.now_ms, kept=kept)

    def limit(self) -> None:
        """The quotas and caps are others."""
        quotas, caps = ({name: each.body for name, each in self.policies[kind].items()} for kind in LIMITING)
        self.usage.set_policies(quotas, caps, self.now_ms)

    def end_waiting(self, job: Job, end: TaskState) -> None:
        """End all waiting tasks in one sweep: their phase, and what the job says of that end, is all there is about them."""
        waiting = job.counts[TaskState.PENDING]
        self.usage.wait(job, -waiting)
        job.phases = job.phases.translate(END_WAITING[end])
        self.dependants.note_sweep(job.id)
        job.in_backoff = 0
        job.checkpoints = None
        if job.counts_of_many is not None:
            job.counts_of_many[TaskState.PENDING] -= waiting
            job.counts_of_many[end] += waiting
        self.task_counts[TaskState.PENDING] -= waiting
        self.task_counts[end] += waiting

    def cancel_waiting(self, job: Job, indices: Sequence[int], note: Cancel) -> None:
        """Cancel some of the tasks that wait. Follow it with `settle`."""
        phases, checkpoints = job.phases, job.checkpoints
        histories = job.histories = job.histories if job.histories is not None else {}
        nothing_more = TaskHistory(cancel=note)  # what is told of each that was never tried; nothing of it will change
        for index in indices:
            if phases[index] == IN_BACKOFF:
                job.in_backoff -= 1
            phases[index] = TaskState.CANCELLED
            history = histories.setdefault(index, nothing_more)
            if history is not nothing_more:
                history.cancel = note
            if checkpoints is not None:
                checkpoints.pop(index, None)
        job.checkpoints = checkpoints or None
        if (counts := job.counts_of_many) is not None:
            counts[TaskState.PENDING] -= len(indices)
            counts[TaskState.CANCELLED] += len(indices)
        self.task_counts[TaskState.PENDING] -= len(indices)
        self.task_counts[TaskState.CANCELLED] += len(indices)
        self.usage.wait(job, -len(indices))

    def settle(self, job: Job) -> None:
        """Derive the job's state from its tasks'."""
        state = derive_state(job.counts, job.count, job.cancel is not None)
        if state is not job.state:
            self.job_counts[job.state] -= 1
            self.job_counts[state] += 1
            job.state = state
            if state.final:
                self.usage.finish(job, self.now_ms)

    def end_job(self, job: Job) -> None:
        job.gang_run = None
        job.ended_ms = self.now_ms
        self.set_waits(job, None)
        self.dependants.note_end(job.id, job.name_key)
        if not self.ended:
            self.ended_due_ms = self.now_ms + RETENTION_MS
        self.ended[job.id] = None

    def keep_output(self, job: Job, index: int, output: bytes) -> None:
        job.outputs = job.outputs or {}
        job.outputs[index] = output
        self.output_bytes[job.id] = self.output_bytes.get(job.id, 0) + len(output)

    def set_times(self, job: Job, not_before_ms: int, deadline_ms: int) -> None:
        """Set the clock for a job; 0 is no time."""
        before = (job.not_before_ms, job.deadline_ms)
        job.not_before_ms, job.deadline_ms = not_before_ms, deadline_ms
        for due_ms in (not_before_ms, deadline_ms):
            if due_ms not in before:
                self._add_timer(due_ms, job)

    def time_job(self, job: Job) -> None:
        """Have the clock stepped when something comes due for a job that was read."""
        for due_ms in (job.not_before_ms, job.deadline_ms):
            self._add_timer(due_ms, job)

    def _add_timer(self, due_ms: int, job: Job) -> None:
        if not due_ms or job.ending:
            return
        heapq.heappush(self.job_timers, (due_ms, job.id))
        if len(self.job_timers) > 2 * self._timers_kept + STALE_TIMERS:
            self.job_timers = list(dict.fromkeys(filter(self.is_timed, self.job_timers)))
            heapq.heapify(self.job_timers)
            self._timers_kept = len(self.job_timers)

    def is_timed(self, timer: tuple[int, int]) -> bool:
        """Whether this is a time that its job still has."""
        due_ms, job_id = timer
        job = self.jobs.get(job_id)
        return job is not None and not job.ended and not job.ending and due_ms in (job.not_before_ms, job.deadline_ms)

    def drop_output(self, job: Job, index: int) -> None:
        """Forget a task's output, if one is kept."""
        output = job.outputs.pop(index, None) if job.outputs is not None else None
        if output is None:
            return
        left = self.output_bytes.pop(job.id) - len(output)
        if job.outputs:
            self.output_bytes[job.id] = left
        else:
            job.outputs = None

    def drop_tasks(self, job: Job, count: int) -> None:
        """Leave the job its first `count` tasks; the others wait."""
        dropped = job.count - count
        job.in_backoff -= job.phases.count(IN_BACKOFF, count)
        assert job.counts_of_many is not None, "a job of one task has none to drop"
        del job.phases[count:]
        job.count = count
        job.counts_of_many[TaskState.PENDING] -= dropped
        self.task_counts[TaskState.PENDING] -= dropped
        self.usage.wait(job, -dropped)

    def add_backoff(self, not_before_ms: int, job_id: int, index: int) -> None:
        heapq.heappush(self.backoffs, (not_before_ms, job_id, index))

    def charge(self, job: Job, request: Resources, tasks: int) -> None:
        """So many tasks of the job hold what they asked for from now on; negative: not any more."""
        if self.shares is not None:
            rate = rate_of(request, self.shares.charges) * tasks
            self.shares.change_rate(self.now_ms, job.queue, job.namespace, job.actor, rate)

    def put_schedule(self, schedule: Schedule) -> None:
        """Have a schedule as it is from here on."""
        self.time_schedule(msgspec.structs.replace(schedule, log_index=self.index))

    def time_schedule(self, schedule: Schedule) -> None:
        """Set the clock for a schedule, and know how far it is planned."""
        present = self.schedules.get(schedule.name)
        due_ms = schedule.find_due(self.now_ms, self.runs_of_schedule(schedule.name))
        if due_ms != schedule.due_ms:
            schedule = msgspec.structs.replace(schedule, due_ms=due_ms)
        self.schedules[schedule.name] = schedule
        _prune(self.schedule_plans, self.is_schedule_planned)
        if due_ms and (present is None or due_ms != present.due_ms):
            _push(self.schedule_timers, (due_ms, schedule.name), self.is_schedule_timed)
        if present is None or schedule.planned_ms != present.planned_ms:
            _push(self.schedule_plans, (schedule.planned_ms, schedule.name), self.is_schedule_planned)

    def size_schedule(self, schedule: Schedule) -> None:
        """What a schedule says is another."""
        size = len(_spec_encoder.encode(schedule.spec))
        self.schedule_bytes += size - self.schedule_sizes.get(schedule.name, 0)
        self.schedule_sizes[schedule.name] = size

    def time_again(self, name: str) -> None:
        """Set the clock for a schedule whose time was taken out of the heap."""
        schedule = self.schedules[name]
        due_ms = schedule.find_due(self.now_ms, self.runs_of_schedule(name))
        if due_ms != schedule.due_ms:
            self.schedules[name] = msgspec.structs.replace(schedule, due_ms=due_ms)
        if due_ms:
            heapq.heappush(self.schedule_timers, (due_ms, name))

    def take_in_schedule(self, schedule: Schedule) -> None:
        """Add a schedule that was read."""
        self.schedules[schedule.name] = schedule
        self.size_schedule(schedule)
        if schedule.due_ms:
            heapq.heappush(self.schedule_timers, (schedule.due_ms, schedule.name))
        heapq.heappush(self.schedule_plans, (schedule.planned_ms, schedule.name))

    def is_schedule_timed(self, timer: tuple[int, str]) -> bool:
        """Whether this is when the clock has to look at the schedule."""
        schedule = self.schedules.get(timer[1])
        return schedule is not None and schedule.due_ms == timer[0]

    def is_schedule_planned(self, plan: tuple[int, str]) -> bool:
        """Whether this is how far the schedule is planned."""
        schedule = self.schedules.get(plan[1])
        return schedule is not None and schedule.planned_ms == plan[0]

    def drop_schedule(self, name: str) -> None:
        del self.schedules[name]
        self.schedule_bytes -= self.schedule_sizes.pop(name)
        _prune(self.schedule_plans, self.is_schedule_planned)

    def note_parent(self, job: Job) -> None:
        """A job that has not ended is its schedule's."""
        found = parse_parent(job.parent)
        if found is not None:
            self.schedule_jobs.setdefault(found[0], {})[job.id] = None

    def runs_of_schedule(self, name: str) -> bool:
        """Whether something that the schedule has made has not ended."""
        return bool(self.schedule_jobs.get(name) or self.schedule_executions.get(name))

    def drop_schedule_job(self, name: str, job_id: int) -> bool:
        """A job of a schedule has ended. Whether it was known as such."""
        return _drop_run(self.schedule_jobs, name, job_id)

    def drop_schedule_execution(self, name: str, execution_id: int) -> bool:
        """Likewise of an execution."""
        return _drop_run(self.schedule_executions, name, execution_id)

    def number_node(self, node_id: str) -> int:
        number = self.node_numbers.get(node_id)
        if number is None:
            number = self.node_numbers[node_id] = len(self.node_names)
            self.node_names.append(node_id)
        return number

    def control_node(self, node: Node, control: Control) -> None:
        """Give a node its new control, and set the clock for it."""
        said, labels = node.said, node.info.labels
        node.control = FREE if control == FREE else control
        node.describe(said)
        self.note_node(node, relabelled=node.info.labels != labels)
        node.changed_ms = self.now_ms
        node.log_index = self.index
        self.time_node(node)

    def note_node(self, node: Node, *, relabelled: bool = False) -> None:
        """Tell those who count nodes that this one is new, or takes work where it didn't, or has other labels."""
        self.neighbours.node_changed(node, relabelled=relabelled)
        self.node_changes.note(node.id)

    def time_node(self, node: Node) -> None:
        """Have the clock stepped when something comes due for the node."""
        due_ms = node.control.due_ms
        if due_ms:
            self.node_timers[node.id] = due_ms
        elif self.node_timers.pop(node.id, None) is None:
            return
        self.node_due_ms = min(self.node_timers.values(), default=0)

    def drop_node(self, node: Node) -> None:
        del self.nodes[node.id]
        self.neighbours.node_gone(node)
        self.node_changes.forget(node.id)
        self.node_timers.pop(node.id, None)
        self.node_due_ms = min(self.node_timers.values(), default=0)

    def intern(self, value: _T) -> _T:
        """One shared copy of a value that many jobs have. Which copy it is can't be observed, so the table may be emptied."""
        if len(self._interned) > _INTERNED_AT_MOST:
            self._interned.clear()
        return cast(_T, self._interned.setdefault(value, value))


def _prune(heap: list[tuple[int, str]], is_valid: Callable[[tuple[int, str]], bool]) -> None:
    """Have a timer on top that means something."""
    while heap and not is_valid(heap[0]):
        heapq.heappop(heap)


def _push(heap: list[tuple[int, str]], timer: tuple[int, str], is_valid: Callable[[tuple[int, str]], bool]) -> None:
    """Add a timer; now and then sort out those that mean nothing more."""
    heapq.heappush(heap, timer)
    if len(heap) > STALE_TIMERS and len(heap) & (len(heap) - 1) == 0:
        heap[:] = dict.fromkeys(filter(is_valid, heap))
        heapq.heapify(heap)


def _drop_run(table: dict[str, dict[int, None]], name: str, run_id: int) -> bool:
    runs = table.get(name)
    if runs is None or run_id not in runs:
        return False
    del runs[run_id]
    if not runs:
        del table[name]
    return True
