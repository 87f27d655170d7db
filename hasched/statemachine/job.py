"""A job and its tasks, as small as they can be.

A task is one byte, its phase. More is kept only of the tasks that have more to tell: an `ActiveAttempt` while one holds
resources, a compact record once it has ended plainly (`columns.py`), and a `TaskHistory` where it was tried more than once
or ended in an unusual way. So a million waiting tasks are a megabyte.

Jobs hold no reference to anything that holds them, therefore the garbage collector need not look at them (`gc=False`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from hasched.model.notices import NotifyRule
from hasched.model.spec import DEFAULT_NAMESPACE, GangTerms, JobSpec, PlacementRules, Resources
from hasched.model.states import EndKind, TaskState
from hasched.statemachine import columns
from hasched.statemachine.waits import NameKey, Waits

OF_EXECUTIONS = "execution/"  # the parents of what executions of workflows make begin so
IN_BACKOFF = (
    9  # a phase of its own, so that looking for eligible tasks never meets one in backoff, or held back (`waits`)
)
PHASES = max(TaskState) + 1  # phases are the numbers below this, and counts by state are lists so long
STATE_OF_PHASE: tuple[TaskState, ...] = tuple(
    TaskState.PENDING if phase == IN_BACKOFF else TaskState(phase) for phase in range(PHASES)
)
WAITING = (TaskState.PENDING, IN_BACKOFF)  # phases
END_WAITING = {  # what becomes of every phase when all that waits ends in one sweep
    end: bytes(end if phase in WAITING else phase for phase in range(256))
    for end in (TaskState.CANCELLED, TaskState.DEADLINE_EXCEEDED)
}

FIRST_ATTEMPTS_KEPT, LATEST_ATTEMPTS_KEPT = 4, 12  # a task may be preempted for ever, at no cost to its retries
ATTEMPTS_BOUNDED_SINCE = 2  # the version of entries; before, all were kept

_COUNTS_OF_ONE = tuple(tuple(int(state == one) for state in range(PHASES)) for one in STATE_OF_PHASE)
_TELLING = (
    TaskState.DEADLINE_EXCEEDED,
    TaskState.FAILED,
    TaskState.OUT_OF_MEMORY,
    TaskState.TIMED_OUT,
    TaskState.NODE_LOST,
    TaskState.CANCELLED,
    TaskState.SUCCEEDED,
)
_NOTIFY_KEY = b"\xa6notify"  # as a packed spec has it that says anything about it
_spec_decoder = msgspec.msgpack.Decoder(JobSpec)


class Cancel(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who asked for an end, when, and why."""

    actor: str
    reason: str
    requested_ms: int
    log_index: int


class Yield(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why an active attempt has to end though its task starts again: `kind` is what its end will be called."""

    kind: EndKind
    for_job: int  # that gets its room; 0: none
    actor: str  # who asked; empty: the scheduler
    reason: str
    requested_ms: int
    log_index: int


class Exceeded(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """When a job's deadline came and it had not ended."""

    noticed_ms: int
    log_index: int


class GangRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a gang runs, or ran last: its first `size` tasks, whose indices are their ranks, on these nodes.

    Kept as it was decided, so that every agent hears the same of it whenever it asks.
    """

    size: int
    port: int  # at which rank 0 can be met
    nodes: tuple[tuple[int, tuple[int, ...]], ...]  # (number of the node, its ranks), that of rank 0 first

    @property
    def master(self) -> int:
        """The number of the node of rank 0."""
        return self.nodes[0][0]


class ActiveAttempt(msgspec.Struct, array_like=True, gc=False):
    """The attempt that holds resources on a node. `stopping`: its agent has to end it, because it was cancelled (then the
    attempt or its job has a `cancel`) or because the job's deadline has come."""

    attempt: int
    node_id: str
    state: TaskState
    scheduled_ms: int
    log_index: int
    changed_ms: int
    started_ms: int = 0
    stopping: bool = False
    cancel: Cancel | None = None


class Late(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a lost attempt reported after all."""

    state: TaskState
    kind: EndKind
    code: int
    reported_ms: int
    log_index: int


class AttemptRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An attempt that has ended. `reported` is false where the managers gave it up with its node."""

    attempt: int
    state: TaskState
    node_id: str
    kind: EndKind
    code: int
    reason: str
    scheduled_ms: int
    started_ms: int
    ended_ms: int
    cpu_ms: int
    peak_memory_bytes: int
    changed_ms: int
    log_index: int
    reported: bool = True
    late: Late | None = None


class TaskHistory(msgspec.Struct, array_like=True, gc=False):
    """What there is to tell of a task beyond the compact record. Once the task has ended, the last attempt is its end.

    Of many attempts the first few and the latest are kept.
    """

    attempts: list[AttemptRecord] = []
    own_failures: int = 0
    node_losses: int = 0
    not_before_ms: int = 0  # of the backoff that it is in, or was in last
    cancel: Cancel | None = None

    @property
    def made(self) -> int:
        """How many attempts have ended, kept or not."""
        return self.attempts[-1].attempt if self.attempts else 0

    @property
    def dropped(self) -> int:
        """How many attempts aren't kept. They stand after the first `FIRST_ATTEMPTS_KEPT`."""
        return self.made - len(self.attempts)

    def place_of(self, number: int) -> int:
        """Where an attempt stands, -1 if it isn't kept."""
        if self.dropped and number > FIRST_ATTEMPTS_KEPT:
            place = number - 1 - self.dropped
            return place if FIRST_ATTEMPTS_KEPT <= place < len(self.attempts) else -1
        return number - 1 if 1 <= number <= len(self.attempts) else -1

    def add(self, record: AttemptRecord, *, bounded: bool) -> None:
        """The next attempt has ended."""
        self.attempts.append(record)
        if bounded:
            del self.attempts[FIRST_ATTEMPTS_KEPT:-LATEST_ATTEMPTS_KEPT]


class Job(msgspec.Struct, array_like=True, gc=False, kw_only=True):
    """Read it freely; only `evolve` writes. The field order is the snapshot format: new ones go last, with a default."""

    id: int
    submission_id: str
    actor: str
    name: str
    queue: str
    priority: int
    count: int
    max_running: int  # 0: no cap
    resources: Resources
    success_exit_codes: tuple[int, ...]
    labels: dict[str, str] | None
    packed_spec: bytes
    submitted_ms: int
    submitted_index: int
    log_index: int  # of its last change
    phases: bytearray
    counts_of_many: list[int] | None  # tasks by state; a job of one task reads it from the phase
    in_backoff: int = 0
    state: TaskState = TaskState.PENDING
    suspended: bool = False
    cancel: Cancel | None = None  # of the whole job
    started_ms: int = 0
    ended_ms: int = 0
    exit_code: int | None = None  # of the task that failed first; 128 + n for a signal
    active_attempts: dict[int, ActiveAttempt] | None = None
    histories: dict[int, TaskHistory] | None = None
    finished: columns.Blocks | None = None
    outputs: dict[int, bytes] | None = None
    placement: PlacementRules | None = None  # None: it has no rules
    choices: dict[int, int] | None = None  # by active task, where it isn't the first of the rules' `any_of`
    yields: dict[int, Yield] | None = None  # of active tasks
    checkpoints: dict[int, int] | None = None  # when, by the node's clock; of tasks that have not ended
    not_before_ms: int = 0  # nothing starts before; 0 once that has come
    deadline_ms: int = 0  # what has not ended by then is stopped; 0: none
    exceeded: Exceeded | None = None  # the deadline
    namespace: str = DEFAULT_NAMESPACE
    tags: tuple[str, ...] | None = None
    semaphores: tuple[tuple[str, int], ...] | None = None  # units that each running task holds
    priority_class: str = ""  # that gave it its priority
    preempts: bool = False  # attempts of a lower priority, as its class said when the job got it
    gang: GangTerms | None = None  # None: its tasks start one by one
    gang_run: GangRun | None = None  # of a gang, from its first start to the end of the job
    held_ms: int = 0  # for how long its attempts that have ended held its request, in all
    held_by_part: dict[int, int] | None = None  # the same of other alternatives, or groups of a gang, by number
    cpu_ms: int = 0  # what they were measured to use
    cost_micro: int = 0
    parent: str = ""  # what of the cluster has submitted it; empty: somebody else has
    waits: Waits | None = None  # for other jobs; tasks that it holds back are IN_BACKOFF, and have no history

    def request(self, choice: int) -> Resources:
        """What a task asks for that was placed by this one of its alternatives."""
        return self.placement.any_of[choice] if choice and self.placement is not None else self.resources

    def has_choice(self, choice: int) -> bool:
        """Whether the job has so many alternatives; 0, the request itself, it always has."""
        return not choice or (self.placement is not None and 0 < choice < len(self.placement.any_of))

    def request_of(self, index: int) -> Resources:
        """What an active task holds, or one of a gang would."""
        if self.gang is not None and (grouped := self.gang.group_of(index)) is not None:
            return grouped[0].resources
        return self.resources if self.choices is None else self.request(self.choices.get(index, 0))

    def part_of(self, index: int) -> int:
        """The number of the alternative that an active task was placed by, or of its group in a gang."""
        if self.gang is not None and self.gang.groups:
            grouped = self.gang.group_of(index)
            return self.gang.groups.index(grouped[0]) if grouped is not None else 0
        return self.choices.get(index, 0) if self.choices is not None else 0

    def request_of_part(self, part: int) -> Resources:
        """What a task of this alternative, or of this group, asks for."""
        return self.gang.groups[part].resources if self.gang is not None and self.gang.groups else self.request(part)

    def held(self) -> list[tuple[Resources, int]]:
        """What its active tasks hold: each request, and how many hold it."""
        if self.gang is not None and self.gang.groups:
            parts = Counter(map(self.part_of, self.active_attempts or ()))
        elif self.choices is None:
            return [(self.resources, self.active)] if self.active else []
        else:
            parts = Counter(self.choices.values())
            parts[0] = self.active - len(self.choices)
        return [(self.request_of_part(part), tasks) for part, tasks in sorted(parts.items()) if tasks]

    @property
    def is_gang(self) -> bool:
        """Whether all its tasks start, and end, together."""
        return self.gang is not None and self.gang.whole

    @property
    def starts_together(self) -> bool:
        """Whether its waiting tasks can't be placed one by one now: a gang's never, an elastic job's while none runs."""
        return self.gang is not None and (self.gang.whole or not self.active_attempts)

    @property
    def floor(self) -> int:
        """So many run, or none: of a gang its smallest size, of an elastic job no more than have not ended."""
        if self.gang is None:
            return 0
        if self.gang.whole:
            return self.gang.min_count
        return min(self.gang.min_count, self.count - sum(self.counts[TaskState.SUCCEEDED :]))

    @property
    def spec(self) -> JobSpec:
        """Decoded anew at each call (about 1 µs): hold it while you work with it."""
        return _spec_decoder.decode(self.packed_spec)

    @property
    def notify(self) -> NotifyRule | None:
        """Who is told of it, besides those who are told of all jobs."""
        return self.spec.notify if _NOTIFY_KEY in self.packed_spec else None

    @property
    def account(self) -> tuple[str, str]:
        """Whom it counts for: a namespace and a user."""
        return self.namespace, self.actor

    @property
    def name_key(self) -> NameKey:
        """Jobs that have the same one are one after the other where they are singletons."""
        return self.namespace, self.actor, self.name

    @property
    def in_workflow(self) -> bool:
        """Whether an execution of a workflow has made it."""
        return self.parent.startswith(OF_EXECUTIONS)

    @property
    def counted_as(self) -> tuple[str, str, bool]:
        """What quotas tell it by: its account, and whether it belongs to a workflow's execution."""
        return self.namespace, self.actor, self.in_workflow

    @property
    def cancelling(self) -> bool:
        """Whether the end of the whole job was asked for."""
        return self.cancel is not None

    @property
    def ending(self) -> bool:
        """Whether nothing of the job waits any more, and what runs is being stopped."""
        return self.cancel is not None or self.exceeded is not None

    @property
    def ended(self) -> bool:
        return self.state >= TaskState.SUCCEEDED

    @property
    def counts(self) -> Sequence[int]:
        """Tasks by state, indexed by `TaskState`."""
        many = self.counts_of_many
        return _COUNTS_OF_ONE[self.phases[0]] if many is None else many

    @property
    def active(self) -> int:
        """How many tasks hold resources."""
        return len(self.active_attempts) if self.active_attempts is not None else 0

    @property
    def eligible(self) -> int:
        """How many tasks are PENDING and not in backoff."""
        return self.counts[TaskState.PENDING] - self.in_backoff

    def task_state(self, index: int) -> TaskState:
        return STATE_OF_PHASE[self.phases[index]]

    def is_eligible(self, index: int) -> bool:
        return 0 <= index < self.count and self.phases[index] == TaskState.PENDING

    def pending_indices(self, start: int = 0) -> Iterator[int]:
        """The tasks that are PENDING and not in backoff, ascending from `start`; a memory scan, so ended ones cost nothing."""
        find = self.phases.find
        index = find(TaskState.PENDING, start)
        while index >= 0:
            yield index
            index = find(TaskState.PENDING, index + 1)

    def is_held_back(self, index: int) -> bool:
        """Whether what the task waits for is its job's dependency."""
        return self.waits is not None and self.phases[index] == IN_BACKOFF and self.history_of(index) is None

    @property
    def held_back(self) -> int:
        """How many tasks are."""
        if self.waits is None or not self.in_backoff:
            return 0
        tried = sum(self.phases[index] == IN_BACKOFF for index in self.histories or ())
        return self.in_backoff - tried

    def attempt_of(self, index: int) -> ActiveAttempt | None:
        """The attempt that holds resources, if one does."""
        return self.active_attempts.get(index) if self.active_attempts is not None else None

    def yield_of(self, index: int) -> Yield | None:
        """Why the active attempt has to make room, if it has to."""
        return self.yields.get(index) if self.yields is not None else None

    def checkpoint_of(self, index: int) -> int:
        """When the task wrote down its progress last, in ms since the epoch by its node's clock; 0: never."""
        return self.checkpoints.get(index, 0) if self.checkpoints is not None else 0

    def state_if_stopped(self, active: ActiveAttempt) -> TaskState:
        """What an attempt that was told to stop ends as."""
        asked = active.cancel is not None or self.cancel is not None
        return TaskState.CANCELLED if asked else TaskState.DEADLINE_EXCEEDED

    def history_of(self, index: int) -> TaskHistory | None:
        return self.histories.get(index) if self.histories is not None else None

    def attempts_made(self, index: int) -> int:
        """How many attempts of the task have been handed out."""
        active = self.attempt_of(index)
        if active is not None:
            return active.attempt
        history = self.history_of(index)
        if history is not None:
            return history.made
        return 1 if self.plain_end_of(index) is not None else 0

    def plain_end_of(self, index: int) -> columns.Finished | None:
        """The compact record, if the task ended plainly in its first attempt. One cancelled while it waited has none."""
        return columns.get(self.finished, index) if self.finished is not None else None


def count_phases(phases: bytes | bytearray) -> tuple[list[int], int]:
    """From phases to tasks by state, and how many of the pending ones are in backoff."""
    counts = [phases.count(phase) for phase in range(PHASES)]
    in_backoff, counts[IN_BACKOFF] = counts[IN_BACKOFF], 0
    counts[TaskState.PENDING] += in_backoff
    return counts, in_backoff


def derive_state(counts: Sequence[int], count: int, cancelling: bool) -> TaskState:
    """A job's state from its tasks': waiting, then RUNNING from the first start to the last end, then the most telling."""
    running = counts[TaskState.RUNNING]
    scheduled = counts[TaskState.SCHEDULED]
    unfinished = counts[TaskState.PENDING] + scheduled + running
    if unfinished:
        if running or unfinished != count:
            return TaskState.RUNNING
        return TaskState.SCHEDULED if scheduled else TaskState.PENDING
    if cancelling and counts[TaskState.CANCELLED]:
        return TaskState.CANCELLED
    return next(state for state in _TELLING if counts[state])
