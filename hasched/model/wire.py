"""The messages between an agent and the leading manager.

One WebSocket (`/v1/agent/stream`, mutual TLS, the certificate's common name is the node id) carries them as binary
frames, each a msgpack array of messages: both sides batch. An agent that reaches a follower is told who leads.

The protocol is level-triggered. `Hello` says every attempt that the agent knows; the leader answers with what the
replicated state says should be there (`Assign`, `Stop`), so a lost message costs a reconnect and never an attempt.
Reports are repeated until `ReportsAck` names their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec

from hasched.model.spec import DEFAULT_POOL, JobSpec, Resources
from hasched.model.states import EndKind
from hasched.model.taints import Taint

PROTOCOL_VERSION = 1
MAX_FRAME_BYTES = 8 * 1024 * 1024
MAX_HELLO_FRAMES = 64
ATTEMPTS_A_FRAME = 100_000


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class Usage(_Message, frozen=True):
    """What an attempt consumed."""

    cpu_ms: int = 0
    peak_memory_bytes: int = 0


class AttemptKey(_Message, frozen=True):
    job_id: int
    index: int
    attempt: int


class AttemptStarted(_Message, frozen=True, tag="started"):
    job_id: int
    index: int
    attempt: int
    started_ms: int  # the agent's wall clock


class AttemptEnded(_Message, frozen=True, tag="ended"):
    """The end of an attempt; says also that it started, so a short task needs one report."""

    job_id: int
    index: int
    attempt: int
    started_ms: int
    ended_ms: int
    kind: EndKind
    code: int = 0
    usage: Usage = Usage()
    output: bytes = b""  # the content of HASCHED_OUTPUT, at most MAX_OUTPUT_BYTES
    reason: str = ""  # for people: "no such file: foo"
    checkpoint_ms: int = 0  # when the task checkpointed last, by the agent's wall clock


class AttemptCheckpointed(_Message, frozen=True, tag="checkpointed"):
    """The task has written to the file that HASCHED_CHECKPOINT names: what it did until then need not be done again."""

    job_id: int
    index: int
    attempt: int
    checkpoint_ms: int  # the agent's wall clock


AttemptReport: TypeAlias = AttemptStarted | AttemptCheckpointed | AttemptEnded


class GpuDevice(_Message, frozen=True):
    """`numa_node` and `nvlink_group` say which GPUs are near to each other; -1 is not known, or none."""

    uuid: str
    model: str
    memory_bytes: int
    numa_node: int = -1
    nvlink_group: int = -1  # those with one number reach each other by NVLink


class DeviceInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A device that is offered as a countable, `units` of its `kind`: a MIG instance, a shared GPU, a plugin's. Or any device
    that isn't offered at all because of its `health`; of those, GPUs too.
    """

    id: str
    kind: str
    units: int = 1
    model: str = ""
    memory_bytes: int = 0
    numa_node: int = -1
    nvlink_group: int = -1
    health: str = ""  # why it is not offered; empty: it is


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node offers. `isolation` says how limits are enforced: `cgroup2`, `cgroup1` or `rlimit`.

    `boot_id` is another one after each start of the machine, `table_id` after each loss of the agent's table of attempts.
    """

    hostname: str
    agent_version: str
    resources: Resources
    labels: dict[str, str] = {}
    gpus: tuple[GpuDevice, ...] = ()
    isolation: str = "rlimit"
    boot_id: str = ""
    table_id: str = ""
    pool: str = DEFAULT_POOL
    taints: tuple[Taint, ...] = ()
    address: str = ""  # how other nodes reach it; empty: by its hostname
    attributes: dict[str, str] = {}  # what constraints can ask for: kernel, arch and others; commas part several values
    devices: tuple[DeviceInfo, ...] = ()  # all but those in `gpus`


class Hello(_Message, frozen=True, tag="hello"):
    """The first message. `attempts` lists everything on the agent that no manager has acknowledged as ended.

    What is too much for one frame follows in as many frames as `following` says, each of one `MoreAttempts`. `origin` is that
    of the agent's cluster, empty if it has not met any.
    """

    protocol: int
    node_id: str
    session: str  # random for each connection; later messages of an older session are void
    info: NodeInfo
    attempts: tuple[AttemptKey, ...]
    origin: str = ""
    following: int = 0


class MoreAttempts(_Message, frozen=True, tag="more_attempts"):
    """Of the hello."""

    attempts: tuple[AttemptKey, ...]


class NodeUsage(_Message, frozen=True):
    cpu_milli: int = 0  # in use over the last interval
    memory_bytes: int = 0
    load_milli: int = 0
    disk_free_bytes: int = 0


class Heartbeat(_Message, frozen=True, tag="heartbeat"):
    """`accepts` is false while the agent can't start anything, with a full or broken disk say: it wants no more work."""

    number: int
    usage: NodeUsage
    accepts: bool = True


class Reports(_Message, frozen=True, tag="reports"):
    """Repeated until acknowledged; `number` rises with every batch of a session."""

    number: int
    reports: tuple[AttemptReport, ...]


class LogChunk(_Message, frozen=True, tag="log"):
    """Bytes of a log from `offset`. `end`: nothing follows (end of file and not following, or `error`).

    `first_offset` is the oldest byte still kept: offsets count from the attempt's first byte for ever.
    """

    request: int
    offset: int
    data: bytes
    first_offset: int = 0
    end: bool = False
    error: str = ""


FromAgent: TypeAlias = Hello | MoreAttempts | Heartbeat | Reports | LogChunk


class Welcome(_Message, frozen=True, tag="welcome"):
    """This manager leads the cluster of this origin, and the session is open."""

    leader: str
    term: int
    heartbeat_ms: int
    lease_ms: int  # each heartbeat's acknowledgement renews the lease for this long
    origin: str = ""


class Redirect(_Message, frozen=True, tag="redirect"):
    """This manager doesn't lead. `api_url` is the leader's, empty if not known. The stream closes."""

    leader: str
    api_url: str


class OtherCluster(_Message, frozen=True, tag="other_cluster"):
    """This manager leads a cluster of this origin, and not of the one that the hello names. The stream closes."""

    origin: str


class HeartbeatAck(_Message, frozen=True, tag="heartbeat_ack"):
    number: int


class Resume(_Message, frozen=True):
    """What there is to tell a task that has run before: when it checkpointed last, and which node it was preempted from."""

    index: int
    checkpoint_ms: int = 0
    preempted_from: str = ""


class GangNode(_Message, frozen=True):
    """A node of a gang: how the others reach it, and the ranks there as (first, how many) runs."""

    node_id: str
    address: str
    runs: tuple[tuple[int, int], ...]

    @property
    def ranks(self) -> list[int]:
        return [rank for first, number in self.runs for rank in range(first, first + number)]


class Gang(_Message, frozen=True):
    """What each task of a gang is told of the others. Rank 0 runs on the first node, and can be met at `port`."""

    size: int
    port: int
    nodes: tuple[GangNode, ...]


class Assignment(_Message, frozen=True):
    """Start these tasks of one job: (index, attempt) pairs. `spec` is sent once per job and session, then left out."""

    job_id: int
    spec: JobSpec | None
    tasks: tuple[tuple[int, int], ...]
    resumes: tuple[Resume, ...] = ()  # of those tasks that have anything to resume
    gang: Gang | None = None
    choices: tuple[tuple[int, int], ...] = ()  # of tasks that don't get the first alternative: (index, its number)


class Assign(_Message, frozen=True, tag="assign"):
    assignments: tuple[Assignment, ...]


class PackedAssignment(_Message, frozen=True):
    """An `Assignment` as the leader queues it: the spec in the bytes that the state keeps, so that waiting copies nothing."""

    job_id: int
    spec: msgspec.Raw | None
    tasks: tuple[tuple[int, int], ...]
    resumes: tuple[Resume, ...] = ()
    gang: Gang | None = None
    choices: tuple[tuple[int, int], ...] = ()


class PackedAssign(_Message, frozen=True, tag="assign"):
    """An `Assign` to whoever decodes it."""

    assignments: tuple[PackedAssignment, ...]


class Stop(_Message, frozen=True, tag="stop"):
    """End these attempts (TERM, the job's grace, KILL). `superseded` ones have no say any more.

    With `warning_ms` they get `signal` first, and TERM so much later; one that ends by itself before has its own end.
    """

    attempts: tuple[AttemptKey, ...]
    reason: str
    signal: str = ""  # USR1
    warning_ms: int = 0


class Freeze(_Message, frozen=True, tag="freeze"):
    """Suspend (SIGSTOP) or resume (SIGCONT) attempts; a frozen attempt's timeout stands still."""

    attempts: tuple[AttemptKey, ...]
    frozen: bool


class ReportsAck(_Message, frozen=True, tag="reports_ack"):
    """The batch is committed. `refused` names the reports that came from an attempt that no longer counts."""

    number: int
    refused: tuple[AttemptKey, ...] = ()


class LogRead(_Message, frozen=True, tag="log_read"):
    """Send up to `limit` bytes (0: all) from `offset`; a negative offset counts from the end. `stream`: stdout, stderr."""

    request: int
    job_id: int
    index: int
    attempt: int  # 0: the latest on this node
    stream: str
    offset: int
    limit: int
    follow: bool


class LogCancel(_Message, frozen=True, tag="log_cancel"):
    request: int


ToAgent: TypeAlias = (
    Welcome | Redirect | OtherCluster | HeartbeatAck | Assign | Stop | Freeze | ReportsAck | LogRead | LogCancel
)

_encoder = msgspec.msgpack.Encoder()


def hello_frames(hello: Hello) -> Iterator[bytes]:
    """A hello, however many attempts it is about."""
    parts = [hello.attempts[at : at + ATTEMPTS_A_FRAME] for at in range(0, len(hello.attempts), ATTEMPTS_A_FRAME)]
    first, *rest = parts or [()]
    yield encode_frame([msgspec.structs.replace(hello, attempts=first, following=len(rest))])
    for part in rest:
        yield encode_frame([MoreAttempts(part)])


_from_agent = msgspec.msgpack.Decoder(list[FromAgent])
_to_agent = msgspec.msgpack.Decoder(list[ToAgent])


def encode_frame(messages: Sequence[FromAgent] | Sequence[ToAgent]) -> bytes:
    """One binary frame of messages."""
    return _encoder.encode(messages)


def decode_from_agent(frame: bytes) -> list[FromAgent]:
    """Raises msgspec.ValidationError or msgspec.DecodeError on anything that is not the protocol."""
    return _from_agent.decode(frame)


def decode_to_agent(frame: bytes) -> list[ToAgent]:
    """Raises msgspec.ValidationError or msgspec.DecodeError on anything that is not the protocol."""
    return _to_agent.decode(frame)
