"""The job spec: what a user asks for, in canonical form (integers, no defaults left open).

`hasched.model.parse` turns a user's document into it. A `Struct(...)` call does not validate: whatever comes from outside
goes through `parse_spec`.
"""

from __future__ import annotations

import msgspec

from hasched.model.notices import NotifyRule
from hasched.model.states import (
    BackoffKind,
    ConditionKind,
    GpuLocality,
    OnBrokenDependency,
    OnDisconnect,
    RestartPolicy,
    WarningSignal,
)

MAX_TASKS = 1_000_000
MAX_GANG = 20_000  # tasks: they are decided in one log entry
MAX_INPUT_BYTES = 256 * 1024
MAX_OUTPUT_BYTES = 16 * 1024
MAX_JOB_OUTPUT_BYTES = 4 * 1024 * 1024  # of all tasks of a job together
MAX_SPEC_BYTES = 512 * 1024
MAX_PRIORITY = 1_000_000
MAX_CONDITIONS = 256  # of one dependency
DEFAULT_QUEUE = "default"
DEFAULT_NAMESPACE = "default"
DEFAULT_POOL = "default"
EVERY = "*"  # every pool, every taint


class Resources(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An amount of each resource: what a task asks for, or what a node has.

    `gpu_models` and `gpu_memory_bytes` are of requests alone: what each of the `gpus` must be, so that a node with several
    models is counted right.
    """

    cpu_milli: int = 0
    memory_bytes: int = 0
    gpus: int = 0
    countables: tuple[tuple[str, int], ...] = ()  # (name, amount), sorted by name, amounts > 0
    disk_bytes: int = 0
    gpu_models: tuple[str, ...] = ()  # any of these; empty: any model
    gpu_memory_bytes: int = 0  # of each GPU, at least

    @property
    def picks_gpus(self) -> bool:
        """Whether not every GPU will do."""
        return bool(self.gpu_models) or self.gpu_memory_bytes > 0


class Backoff(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How long a failed task waits before its next attempt. Retry n (from 1) waits at most `max_ms`."""

    kind: BackoffKind = BackoffKind.EXPONENTIAL
    initial_ms: int = 10_000
    max_ms: int = 300_000
    multiplier_milli: int = 2000  # thousandths: 2000 doubles the wait each time


class Retries(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Attempts after the first. A lost node is not the task's fault, so it draws on a budget of its own."""

    max: int = 0
    node_lost: int = 3
    backoff: Backoff = Backoff()


class JobSelector(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Jobs by name and labels: all that is given must hold. One that gives nothing means the job itself."""

    name: str = ""
    labels: tuple[tuple[str, str], ...] = ()  # sorted by name

    @property
    def means_itself(self) -> bool:
        return not self.name and not self.labels

    def selects(self, name: str, labels: dict[str, str] | None) -> bool:
        """Whether it means a job with this name and these labels."""
        if self.name and self.name != name:
            return False
        return not self.labels or (labels is not None and all(labels.get(key) == value for key, value in self.labels))


class NodePreference(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Nodes that are better (or, with a negative weight, worse) than others: those for which the constraint holds."""

    nodes: str  # a constraint, see hasched.model.constraints
    weight: int


class JobAffinity(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Near to, or apart from, where tasks of certain jobs run. `within`: a label whose equal values count as one place."""

    jobs: JobSelector = JobSelector()
    within: str = ""  # empty: the node itself
    weight: int = 0  # 0: it must hold; else how much it counts


class Spread(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Tasks of the job evenly over the values of a label."""

    label: str = ""  # empty: over the nodes
    max_skew: int = 1  # so many more than at the value that has the fewest
    weight: int = 0  # 0: it must hold; else how much it counts


class Toleration(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A taint that does not keep the job away. `key` may be `*`; `value` None is any."""

    key: str
    value: str | None = None


class PlacementRules(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Where tasks of a job may run, and where they had better. Equal rules are one object wherever the state keeps them."""

    pools: tuple[str, ...] = (DEFAULT_POOL,)  # sorted; or EVERY alone
    constraints: tuple[str, ...] = ()  # all must hold, see hasched.model.constraints
    prefer: tuple[NodePreference, ...] = ()
    near: tuple[JobAffinity, ...] = ()
    apart: tuple[JobAffinity, ...] = ()
    spread: tuple[Spread, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    any_of: tuple[Resources, ...] = ()  # whole requests, the preferred first, which is also the spec's `resources`
    resource_class: str = ""  # where `resources` came from
    gpu_locality: GpuLocality = GpuLocality.ANY


ANYWHERE = PlacementRules()


class Preemption(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How a task is told that its room is taken back: `signal` at once, TERM after `warning_ms`, KILL after its grace."""

    signal: WarningSignal = WarningSignal.TERM
    warning_ms: int = 0  # 0: TERM at once


class TaskGroup(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Tasks of a gang that ask for the same. Groups follow each other by index: the first has the ranks from 0."""

    name: str
    count: int
    resources: Resources


class GangTerms(msgspec.Struct, frozen=True, gc=False):
    """How tasks of a job start together. `whole`: they also end together (a gang); else only a first few have to (elastic)."""

    whole: bool
    min_count: int  # the fewest that start; `count` of the job where it isn't elastic
    groups: tuple[TaskGroup, ...] = ()

    def group_of(self, index: int) -> tuple[TaskGroup, int] | None:
        """The group of a task and its place in it; None where the gang has no groups."""
        for group in self.groups:
            if index < group.count:
                return group, index
            index -= group.count
        return None


class Condition(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One thing that a job waits for."""

    kind: ConditionKind
    job_id: int = 0  # 0: of a singleton, which names none
    delay_ms: int = 0  # of `after`: so long after the start


class Dependency(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What has to be so before anything of a job starts: all of the conditions, or any of them."""

    conditions: tuple[Condition, ...]
    any_of: bool = False


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to run. Exactly one of `command` (an argument vector) and `script` (run by its #! line or /bin/sh) is set."""

    name: str
    command: tuple[str, ...] = ()
    script: str = ""
    env: dict[str, str] = {}
    working_dir: str = ""  # empty: the attempt's own directory
    input: bytes = b""  # handed to every task as the file HASCHED_INPUT
    count: int = 1
    max_running: int = 0  # 0: no cap
    resources: Resources = Resources(cpu_milli=1000)
    timeout_ms: int = 0  # per attempt; 0: none
    kill_grace_ms: int = 5_000  # between TERM and KILL
    retries: Retries = Retries()
    restart: RestartPolicy = RestartPolicy.ON_FAILURE
    success_exit_codes: tuple[int, ...] = (0,)
    on_disconnect: OnDisconnect = OnDisconnect.RUN_ON
    labels: dict[str, str] = {}
    priority: int = 0  # larger starts first
    queue: str = DEFAULT_QUEUE
    placement: PlacementRules = ANYWHERE
    preemption: Preemption = Preemption()
    priority_class: str = ""  # gives the priority when the job is accepted; empty: `priority` does
    not_before_ms: int = 0  # since the epoch: nothing starts earlier; 0: at once
    not_before_after_ms: int = 0  # the same, from when the job is accepted
    deadline_ms: int = 0  # since the epoch: what has not ended by then is stopped; 0: none
    deadline_after_ms: int = 0  # the same, from when the job is accepted
    namespace: str = DEFAULT_NAMESPACE  # whose work it is; with the user, the account that it counts for
    tags: tuple[str, ...] = ()  # caps may count by them; sorted
    semaphores: tuple[tuple[str, int], ...] = ()  # (name, units of each running task), sorted, units > 0
    gang: bool = False
    groups: tuple[
        TaskGroup, ...
    ] = ()  # of a gang whose tasks don't all ask for the same; their counts add up to `count`
    min_count: int = 0  # elastic: so many are enough to start; 0: all of a gang, one of an array
    dependency: Dependency | None = None
    on_broken_dependency: OnBrokenDependency = OnBrokenDependency.CANCEL
    args: tuple[str, ...] = ()  # what `script` is called with
    notify: NotifyRule | None = None

    @property
    def gang_terms(self) -> GangTerms | None:
        """None for a job whose tasks start one by one."""
        if not self.gang and not self.min_count:
            return None
        return GangTerms(self.gang, self.min_count or self.count, self.groups)
