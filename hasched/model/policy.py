"""Policy objects: what operators decide about work, as data that is replicated like everything else.

One mechanism for all kinds: a policy has a kind, a name and a body, is put whole and deleted whole, and remembers who changed
it, when, and in which log entry. `hasched.model.policy_text` turns a document into a body and back. A `Struct(...)` call does
not validate: what comes from outside goes through `parse_policy`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from hasched.model.notices import Channel
from hasched.model.spec import DEFAULT_NAMESPACE, DEFAULT_QUEUE, Resources
from hasched.model.units import GIB

WEIGHT_ONE = 1000  # weights are thousandths
MIN_HALF_LIFE_MS, MAX_HALF_LIFE_MS = 60_000, 366 * 86_400_000


class PolicyKind(StrEnum):
    """The kinds, in the order in which a set of them can be put: what others refer to comes first."""

    NAMESPACE = "namespace"
    QUEUE = "queue"
    PRIORITY_CLASS = "priority_class"
    RESOURCE_CLASS = "resource_class"
    FAIR_SHARE = "fair_share"
    QUOTA = "quota"
    CAP = "cap"
    PRICE = "price"
    RESERVATION = "reservation"
    GPU_ROOM = "gpu_room"
    NOTIFICATION = "notification"


class QueueState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"  # takes no more jobs; those that wait in it go on


class Preempts(StrEnum):
    NEVER = "never"
    LOWER = "lower"  # attempts of a lower priority, where nothing else makes room


class QuotaScope(StrEnum):
    ANY = "any"
    JOB = "job"  # jobs that belong to no workflow
    WORKFLOW = "workflow"  # jobs that executions of workflows have made


class _Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A field that is added later has a default, so that every log ever written can be replayed."""

    description: str = ""


class Namespace(_Policy, frozen=True, tag="namespace"):
    """Whose work it is: jobs belong to one, and quotas are set for it."""


class Queue(_Policy, frozen=True, tag="queue"):
    """Where jobs wait. A larger priority goes first; among equals, shares are as the weights."""

    priority: int = 0
    weight_milli: int = WEIGHT_ONE
    max_running: int = 0  # tasks of all its jobs; 0: no cap
    state: QueueState = QueueState.OPEN


class PriorityClass(_Policy, frozen=True, tag="priority_class"):
    """A priority with a name, and whom its jobs may drive out. It is looked up when a job is accepted."""

    value: int
    preempts: Preempts = Preempts.NEVER


class Charges(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What fair share takes for resources, in thousandths of a core."""

    cpu_milli: int = 1000  # a core
    memory_milli: int = 250  # a GiB
    gpu_milli: int = 8000  # a GPU


class FairShare(_Policy, frozen=True, tag="fair_share"):
    """How what was used before counts. There is one, called `default`.

    `weights` are of accounts: `NAMESPACE` or `NAMESPACE/USER`, sorted. Ageing goes on while fair share is off.
    """

    enabled: bool = True
    half_life_ms: int = 7 * 86_400_000
    weights: tuple[tuple[str, int], ...] = ()  # thousandths
    charge: Charges = Charges()
    ageing_ms: int = 0  # a job that waits for so long has gained a point of priority; 0: it gains none


class Amounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a quota counts. None: not limited."""

    cpu_milli: int | None = None
    memory_bytes: int | None = None
    gpus: int | None = None
    disk_bytes: int | None = None
    countables: tuple[tuple[str, int], ...] = ()  # sorted by name
    running_tasks: int | None = None
    running_jobs: int | None = None
    queued_tasks: int | None = None
    queued_jobs: int | None = None
    gpu_ms_per_week: int | None = None


class Quota(_Policy, frozen=True, tag="quota"):
    """What an account may use at once, and of GPU time in a week.

    It counts the jobs of `namespace` (empty: of all), of `user` (empty: of all users together), or of each user by itself; of
    several in a tree, a job counts in the most exact. A `cohort` counts nothing but its parts. With a `parent` it may use more
    than its nominal amounts while other parts leave theirs: `borrow_limit` more at most, of what they lend, `lend_limit` at
    most each. The GPU time of a week is neither lent nor borrowed.
    """

    namespace: str = ""
    user: str = ""
    each_user: bool = False
    cohort: bool = False
    parent: str = ""
    scope: QuotaScope = QuotaScope.ANY
    nominal: Amounts = Amounts()
    borrow_limit: Amounts = Amounts()
    lend_limit: Amounts = Amounts()


class CapSubject(StrEnum):
    SEMAPHORE = "semaphore"  # jobs that take units of it by its name
    NAME = "name"  # tasks of the jobs called so,
    USER = "user"  # of a user,
    TAG = "tag"  # or with a tag


class Cap(_Policy, frozen=True, tag="cap"):
    """At most `units` at once. A semaphore is taken by its name; the other subjects count running tasks."""

    units: int
    subject: CapSubject = CapSubject.SEMAPHORE
    match: str = ""  # which name, user or tag; empty: each by itself
    namespace: str = ""  # only jobs of this one count; empty: of all


class ResourceClass(_Policy, frozen=True, tag="resource_class"):
    """Amounts under a name, for jobs that don't want to say them one by one."""

    resources: Resources


class Price(_Policy, frozen=True, tag="price"):
    """What an hour of a resource costs, on all nodes or in one pool.

    Amounts are millionths of the currency.
    """

    currency: str = ""
    cpu_micro: int = 0  # a core for an hour
    memory_micro: int = 0  # a GiB for an hour
    disk_micro: int = 0  # a GiB for an hour
    gpu_micro: int = 0  # a GPU of a model that isn't named
    gpu_models: tuple[tuple[str, int], ...] = ()  # (model, a GPU for an hour), sorted


class Reservation(_Policy, frozen=True, tag="reservation"):
    """Nodes that are kept for some from a time to another; for nobody if nobody is named: a maintenance window."""

    nodes: tuple[str, ...]
    start_ms: int
    end_ms: int
    namespaces: tuple[str, ...] = ()
    users: tuple[str, ...] = ()

    @property
    def maintenance(self) -> bool:
        return not self.namespaces and not self.users


class GpuRoom(_Policy, frozen=True, tag="gpu_room"):
    """What each free GPU keeps on its node from tasks without GPUs, its share of the node at most.

    There is one, called `default`. One that says neither CPU nor memory leaves it to the planner (`scheduler.keeping`).
    """

    enabled: bool = True
    cpu_milli: int | None = None
    memory_bytes: int | None = None


THE_GPU_ROOM = "default"


class Notification(_Policy, frozen=True, tag="notification"):
    """Who is told of what, and how. Files are names in the managers' directory of secrets: the state holds none.

    Attempts that fail are repeated after `retry_after_ms`, then twice as long each time, up to `retry_at_most_ms`.
    """

    to: Channel
    events: tuple[str, ...] = ()  # topics, sorted; none: only what jobs name it for
    namespaces: tuple[str, ...] = ()  # sorted; of others nothing is told, nor of nodes; none: of all
    url: str = ""
    url_file: str = ""  # where the URL itself is a secret
    secret_file: str = ""  # that webhooks are signed with
    recipients: tuple[str, ...] = ()  # of e-mail
    retry_after_ms: int = 5_000
    retry_at_most_ms: int = 3_600_000
    give_up_after_ms: int = 86_400_000  # no attempt is made later than this after the event

    def serves(self, namespace: str) -> bool:
        return not self.namespaces or namespace in self.namespaces


Policy: TypeAlias = (
    Namespace
    | Queue
    | PriorityClass
    | ResourceClass
    | FairShare
    | Quota
    | Cap
    | Price
    | Reservation
    | GpuRoom
    | Notification
)

TYPES: dict[PolicyKind, type[Policy]] = {
    PolicyKind.NAMESPACE: Namespace,
    PolicyKind.QUEUE: Queue,
    PolicyKind.PRIORITY_CLASS: PriorityClass,
    PolicyKind.RESOURCE_CLASS: ResourceClass,
    PolicyKind.FAIR_SHARE: FairShare,
    PolicyKind.QUOTA: Quota,
    PolicyKind.CAP: Cap,
    PolicyKind.PRICE: Price,
    PolicyKind.RESERVATION: Reservation,
    PolicyKind.GPU_ROOM: GpuRoom,
    PolicyKind.NOTIFICATION: Notification,
}
KINDS: dict[type[Policy], PolicyKind] = {kind: name for name, kind in TYPES.items()}

# There from the beginning, and again when one that replaced them is deleted.
BUILT_IN: tuple[tuple[str, Policy], ...] = (
    (DEFAULT_NAMESPACE, Namespace(description="Of jobs that name no namespace.")),
    (DEFAULT_QUEUE, Queue(description="Of jobs that name no queue.")),
    ("low", PriorityClass(value=100, description="Work that can wait.")),
    ("medium", PriorityClass(value=500, description="Ordinary work.")),
    ("high", PriorityClass(value=900, preempts=Preempts.LOWER, description="Work that others give way to.")),
    ("standard", ResourceClass(resources=Resources(cpu_milli=1000, memory_bytes=2 * GIB))),
    ("large", ResourceClass(resources=Resources(cpu_milli=4000, memory_bytes=8 * GIB))),
)


def kind_of(body: Policy) -> PolicyKind:
    return KINDS[type(body)]
