"""What the API shows. The HTTP API, the Python client, the CLI's `--json` and the event stream all use these structs.

Times are milliseconds since the epoch (0: not yet), sizes bytes, CPU thousandths of a core.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hasched.model.spec import JobSpec, Resources
from hasched.model.wire import DeviceInfo, GpuDevice


class _View(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Reason(_View, frozen=True):
    """Why something is as it is: a code from a closed list, and a sentence."""

    code: str
    text: str


class UsageView(_View, frozen=True):
    cpu_ms: int = 0
    peak_memory_bytes: int = 0


class LateReport(_View, frozen=True):
    """What an attempt reported after it had stopped to count; kept for people, changes nothing."""

    state: str
    code: int
    reported_ms: int
    index: int  # log index


class AttemptView(_View, frozen=True):
    attempt: int
    state: str  # a TaskState's name
    node_id: str
    reason: Reason | None = None
    exit_code: int | None = None
    signal: int | None = None
    scheduled_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    usage: UsageView = UsageView()
    late_report: LateReport | None = None


class TaskView(_View, frozen=True):
    job_id: int
    task_index: int
    state: str
    attempt: int  # the number of the latest attempt, 0 before the first
    node_id: str = ""
    reason: Reason | None = None
    actor: str = ""
    log_index: int = 0  # the log entry of its last change
    changed_ms: int = 0
    exit_code: int | None = None
    signal: int | None = None
    started_ms: int = 0
    ended_ms: int = 0
    not_before_ms: int = 0  # a retry waits until then
    usage: UsageView = UsageView()
    output: str | None = None  # UTF-8, undecodable bytes replaced
    stopping: bool = False
    attempts: list[AttemptView] = []  # only where one task is shown; of very many, the first few and the latest
    attempts_dropped: int = 0  # that aren't kept any more, where the numbers in `attempts` have their gap
    holds: Resources | None = None  # while it does, if its job has alternatives


class JobView(_View, frozen=True):
    """A job without its tasks. `state` is a TaskState's name: PENDING or SCHEDULED while no task has got further, RUNNING
    while one runs or some have ended, then SUCCEEDED, or the most telling of its tasks' final states."""

    id: int
    name: str
    state: str
    queue: str
    priority: int
    actor: str
    submission_id: str
    count: int
    tasks: dict[str, int]  # state name -> number of tasks, zeros left out
    suspended: bool = False
    cancelling: bool = False
    reason: Reason | None = None  # of the state; for a waiting job, why it waits
    submitted_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    submitted_index: int = 0
    log_index: int = 0
    exit_code: int | None = None  # of the first task that failed (128 + n: signal n), else 0 once all have succeeded
    priority_class: str = ""  # that gave it its priority
    not_before_ms: int = 0  # nothing of it starts before; 0 also once that has come
    deadline_ms: int = 0  # what has not ended by then is stopped; 0: none
    namespace: str = "default"
    parent: str = ""  # what of the cluster has submitted it: `schedule/NAME@DUE_MS`, for one; empty: somebody else has
    spec: JobSpec | None = None  # only where one job is shown, like the rest
    used: UsageRow | None = None  # by what has ended of it, and what that cost
    estimate: EstimateView | None = None  # what it costs at most by the prices of now; none where there is no price


class JobPage(_View, frozen=True):
    jobs: list[JobView]
    next_cursor: str = ""


class TaskPage(_View, frozen=True):
    tasks: list[TaskView]
    next_cursor: str = ""


class Submitted(_View, frozen=True):
    id: int
    submission_id: str
    duplicate: bool  # whether the job was there already under this submission id
    log_index: int
    warnings: list[str] = []  # what of the job may not go as its owner thinks


class NodeUsageView(_View, frozen=True):
    cpu_milli: int = 0
    memory_bytes: int = 0
    load_milli: int = 0
    disk_free_bytes: int = 0


class CordonView(_View, frozen=True):
    actor: str
    reason: str
    since_ms: int


class DrainView(_View, frozen=True):
    """`deadline_ms` is 0 where what runs has all the time it takes; `expired`: it has come, and all was told to go."""

    actor: str
    reason: str
    since_ms: int
    deadline_ms: int
    expired: bool
    drained: bool  # nothing is left there


class QuarantineView(_View, frozen=True):
    """`probation`: its time is over, and the node takes work again; the record stays until a launch has succeeded."""

    reason: str
    since_ms: int
    until_ms: int
    times: int
    probation: bool


class NodeReservationView(_View, frozen=True):
    """A reservation that has the node from `start_ms` to `end_ms`; for nobody if nobody is named."""

    name: str
    start_ms: int
    end_ms: int
    namespaces: list[str]
    users: list[str]
    begun: bool


class NodeView(_View, frozen=True):
    """`status` is the state and everything that keeps work away, as in `healthy,cordoned`."""

    id: str
    state: str  # healthy, unhealthy, disconnected
    reason: Reason | None
    hostname: str
    agent_version: str
    isolation: str
    labels: dict[str, str]
    total: Resources
    allocated: Resources
    gpus: list[GpuDevice]
    running: int  # attempts that hold resources here
    connected: bool  # has a stream to the leader now
    registered_ms: int
    changed_ms: int
    log_index: int
    usage: NodeUsageView | None = None  # as of the last heartbeat that this leader saw
    pool: str = "default"
    taints: list[str] = []  # KEY=VALUE, with :avoid behind those that only make it a last resort
    attributes: dict[str, str] = {}  # what constraints can ask for
    status: str = ""
    eligible: bool = True  # no cordon, drain or quarantine keeps new work away
    cordon: CordonView | None = None
    drain: DrainView | None = None
    quarantine: QuarantineView | None = None
    devices: list[DeviceInfo] = []  # all but the whole GPUs that are well, those are in `gpus`
    reservations: list[NodeReservationView] = []  # that have not ended, the next first
    tasks: list[
        str
    ] = []  # JOB.TASK of what holds resources here, 1000 at most; of a node that is asked for by its name


class NodePage(_View, frozen=True):
    nodes: list[NodeView]


class ShareView(_View, frozen=True):
    """A queue, a namespace or a user. `due` and `used` are parts of what all its siblings are due, and have used."""

    name: str
    weight_milli: int  # thousandths
    due: float
    used: float
    factor: float  # 2 ** (-used / due): 1 for who has used nothing, a half for who has used what is his due
    usage_core_s: int  # with the half-life, as `charge` of the policy counts it
    running_milli: int  # what is charged for each millisecond now, in thousandths of a core
    users: list[ShareView] = []  # of a namespace


class FairShareView(_View, frozen=True):
    """Siblings stand in the order in which their work would start now, were all else equal."""

    enabled: bool
    now_ms: int
    half_life_ms: int = 0
    ageing_ms: int = 0  # a waiting job gains a point of priority for each so long; 0: none
    queues: list[ShareView] = []
    namespaces: list[ShareView] = []


class CheckView(_View, frozen=True):
    """What came of comparing the managers' states as of one log entry."""

    log_index: int
    time_ms: int
    agreed: bool  # a majority has one and the same state
    differing: list[str]  # managers whose state is another; without a majority, all that answered
    silent: list[str]  # managers that did not answer in time


class PeerView(_View, frozen=True):
    """What a manager that leads knows of another."""

    id: str
    voter: bool
    connected: bool
    filled: bool | None = None
    match_index: int | None = None


class ManagerView(_View, frozen=True):
    """`membership` is what the manager is to the cluster: a `voter` counts; a `learner` gets everything and counts once its
    disk is filled; `joining`: it is wanted, and not taken in yet; `leaving`: it is no longer wanted, and still a member;
    `removed`: it isn't a member any more, and says so itself.
    """

    id: str
    api_url: str
    raft_address: str
    role: str  # leader, follower, candidate, learner, removed, unreachable
    term: int
    last_index: int
    commit_index: int
    applied_index: int
    version: str
    reachable: bool
    lag: int | None = None  # entries behind the leader, where known
    membership: str = "voter"
    connected: bool | None = None  # to the leader, as that one sees it
    filled: bool | None = None  # its disk holds what it must to have a vote, as the leader sees it
    check: CheckView | None = None  # the latest comparison of states that it knows of
    peers: list[PeerView] = []  # only where one manager shows itself, and leads


class PolicyView(_View, frozen=True):
    """A policy. `document` is what can be put again; `log_index` is of the entry that put it last, 0: it is built in."""

    kind: str
    name: str
    document: dict[str, Any]
    actor: str = ""
    created_ms: int = 0
    changed_ms: int = 0
    log_index: int = 0
    built_in: bool = False


class PolicyPage(_View, frozen=True):
    policies: list[PolicyView]


class UsageRow(_View, frozen=True):
    """What attempts that have ended held, and what that cost. What it was summed up by is named, the rest is left out.

    Amounts are times ms, memory and disk in GiB; `cpu_ms` is CPU time as measured. `cost_micro` is in millionths.
    """

    namespace: str | None = None
    user: str | None = None
    week: str | None = None  # the Monday on which it began
    job_id: int | None = None
    name: str | None = None  # of the job
    attempts: int = 0
    cpu_core_ms: int = 0
    memory_gib_ms: int = 0
    gpu_ms: int = 0
    disk_gib_ms: int = 0
    cpu_ms: int = 0
    cost_micro: int = 0
    running_tasks: int = 0  # now, and not counted in any of the amounts
    holds: Resources = Resources()  # by them


class UsagePage(_View, frozen=True):
    usage: list[UsageRow]
    currency: str = ""
    next_cursor: str = ""


class LimitView(_View, frozen=True):
    """A quota or cap as it is used. `amount`: of what, as the policy's document calls it; `used` and `limit` in integers of it:
    thousandths of a core, bytes, GPU-ms. `limit` is what may be used now: what was lent to others is not in it."""

    kind: str  # quota, cap
    name: str
    of: str  # the user, name or tag of a policy of each by itself
    amount: str
    used: int
    limit: int
    available: int  # now, with what may be borrowed


class LimitPage(_View, frozen=True):
    limits: list[LimitView]


class EstimateView(_View, frozen=True):
    """What a job would cost, in millionths of `currency`. None: it has no timeout, so it may run for ever."""

    hour_micro: int  # all its tasks, for an hour
    cost_micro: int | None  # if each task has one attempt, as long as the timeout allows
    most_micro: int | None  # if it needs all its retries for failures, too
    priced: bool  # whether there is a price at all
    currency: str = ""


class ManagerPage(_View, frozen=True):
    managers: list[ManagerView]
    leader: str | None
    check: CheckView | None = None  # the latest comparison of states that any of them knows of


class LeaderView(_View, frozen=True):
    leader: str


class CheckAsked(_View, frozen=True):
    log_index: int  # of the comparison: what comes of it has this index, or a later one


class EventView(_View, frozen=True):
    """One thing that happened. `id` is `LOG_INDEX.NUMBER`; a stream resumes after the id it saw last."""

    id: str
    log_index: int
    time_ms: int
    type: str  # the event's name in the state machine, JobSubmitted
    job_id: int | None = None
    task_index: int | None = None
    attempt: int | None = None
    node_id: str | None = None
    data: dict[str, Any] = {}


class ClusterView(_View, frozen=True):
    """One page of everything that `hasched top` shows.

    `origin` tells this cluster from others of the same name; it is empty until the first leader has drawn it. `test_cluster`:
    the manager that answers was told by its configuration that faults may be tried here.
    """

    cluster: str
    leader: str | None
    term: int
    applied_index: int
    now_ms: int
    jobs: dict[str, int]  # state -> number of jobs
    tasks: dict[str, int]
    nodes: dict[str, int]
    total: Resources
    allocated: Resources
    origin: str = ""
    test_cluster: bool = False


class Problem(_View, frozen=True):
    """RFC 9457 problem details, plus our stable `code`, `cause` and `hint`."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    cause: str
    hint: str = ""
    errors: list[dict[str, Any]] = []
