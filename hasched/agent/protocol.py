"""The messages between an agent and its supervisor.

They talk over a Unix socket in the data directory, in frames of a 4-byte big-endian length and a msgpack array of
messages: both sides batch. The supervisor outlives agents, so an agent may meet a supervisor of an older release: fields
are only ever added at the end, with defaults.

The supervisor keeps the end of an attempt until it is told to `Forget` it, and begins every connection with its
`Inventory`. So neither side ever guesses what became of an attempt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias, TypeVar

import msgspec

from hasched.model.wire import AttemptEnded, AttemptKey, AttemptReport

MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_BATCH_BYTES = 4 * 1024 * 1024  # of reports in one message, counted without what surrounds the variable parts
MAX_REASON = 1000  # characters
_HEADER_BYTES = 4


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class Configure(_Message, frozen=True, tag="configure"):
    """The first message of an agent; the inventory is the answer. It holds for what is launched from then on."""

    node_id: str
    path: str  # PATH of jobs that set none
    log_max_bytes: int
    cgroups: bool  # whether to use them where they work
    pids_max: int


class LaunchTask(_Message, frozen=True):
    """One task of a job. `gpus` is the value of CUDA_VISIBLE_DEVICES, None to leave the variable alone; `gpu_uuids` says
    which devices those are, for an agent that finds them under other numbers. `env` are variables of this task alone.
    """

    index: int
    attempt: int
    gpus: str | None = None
    gpu_uuids: tuple[str, ...] = ()
    env: dict[str, str] = {}
    hostfile: str = ""  # of its gang, for the file HASCHED_HOSTFILE


class LaunchJob(_Message, frozen=True):
    """What a job's tasks share. `stop_at_lease` kills them before a lease ends that nobody renews."""

    job_id: int
    name: str
    count: int
    command: tuple[str, ...]
    script: str
    env: dict[str, str]
    working_dir: str
    input: bytes
    cpu_milli: int
    memory_bytes: int
    timeout_ms: int
    kill_grace_ms: int
    stop_at_lease: bool
    tasks: tuple[LaunchTask, ...]
    args: tuple[str, ...] = ()  # of the script


class Launch(_Message, frozen=True, tag="launch"):
    jobs: tuple[LaunchJob, ...]


class StopAttempts(_Message, frozen=True, tag="stop"):
    """TERM, the job's grace, KILL, for all processes of these attempts; with `warning_ms` first `signal`, and TERM later."""

    attempts: tuple[AttemptKey, ...]
    reason: str
    signal: str = ""  # USR1
    warning_ms: int = 0


class FreezeAttempts(_Message, frozen=True, tag="freeze"):
    """SIGSTOP or SIGCONT for all processes of these attempts; their timeouts stand still meanwhile."""

    attempts: tuple[AttemptKey, ...]
    frozen: bool


class Lease(_Message, frozen=True, tag="lease"):
    """Until when tasks may run whose job stops on disconnect, in ms of CLOCK_BOOTTIME, and how long a lease is."""

    deadline_ms: int
    lease_ms: int


class Forget(_Message, frozen=True, tag="forget"):
    """These ends are on the agent's disk, or acknowledged by the managers."""

    attempts: tuple[AttemptKey, ...]


ToSupervisor: TypeAlias = Configure | Launch | StopAttempts | FreezeAttempts | Lease | Forget


class RunningAttempt(_Message, frozen=True):
    """`gpus` and `gpu_uuids` are those of its LaunchTask."""

    job_id: int
    index: int
    attempt: int
    started_ms: int
    gpus: str | None = None
    gpu_uuids: tuple[str, ...] = ()
    checkpoint_ms: int = 0  # of its latest checkpoint, by the wall clock


class Inventory(_Message, frozen=True, tag="inventory"):
    """The first message of a connection. `instance` is new for every supervisor process. Many ends need several `parts`."""

    release: str  # of hasched
    instance: str
    pid: int
    isolation: str
    running: tuple[RunningAttempt, ...]
    ended: tuple[AttemptEnded, ...]
    more: bool = False  # another part follows


class Observed(_Message, frozen=True, tag="observed"):
    """What happened since the last message, in order, and why the node itself could not start a task (empty: it could)."""

    reports: tuple[AttemptReport, ...]
    node_failure: str = ""


FromSupervisor: TypeAlias = Inventory | Observed

Report = TypeVar("Report", bound=AttemptReport)

_encoder = msgspec.msgpack.Encoder()
_to_supervisor = msgspec.msgpack.Decoder(list[ToSupervisor])
_from_supervisor = msgspec.msgpack.Decoder(list[FromSupervisor])


def batches(reports: Sequence[Report]) -> Iterator[tuple[Report, ...]]:
    """The reports in their order, in batches that fit into a frame; one that is empty if there are none."""
    first = size = 0
    for number, report in enumerate(reports):
        size += len(report.output) + len(report.reason.encode()) + 64 if isinstance(report, AttemptEnded) else 64
        if size > MAX_BATCH_BYTES and number > first:
            yield tuple(reports[first:number])
            first, size = number, 0
    yield tuple(reports[first:])


def parts(inventory: Inventory) -> list[Inventory]:
    """The inventory in messages that each fit into a frame."""
    ends = list(batches(inventory.ended))
    return [
        msgspec.structs.replace(
            inventory, running=() if number else inventory.running, ended=each, more=number + 1 < len(ends)
        )
        for number, each in enumerate(ends)
    ]


def joined(inventories: Sequence[Inventory]) -> Inventory:
    """The whole again."""
    return msgspec.structs.replace(
        inventories[0], ended=tuple(ended for part in inventories for ended in part.ended), more=False
    )


def cut(reason: str) -> str:
    """A reason quotes what the job says, which may be long; people need its beginning."""
    return reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 1] + "…"


class FrameTooLarge(Exception):
    """The peer announced a frame beyond the cap: it is not our peer, or it is broken."""


def encode(messages: Sequence[ToSupervisor] | Sequence[FromSupervisor]) -> bytes:
    body = _encoder.encode(messages)
    return len(body).to_bytes(_HEADER_BYTES, "big") + body


def decode_to_supervisor(frame: bytes) -> list[ToSupervisor]:
    """Raises msgspec.DecodeError or msgspec.ValidationError."""
    return _to_supervisor.decode(frame)


def decode_from_supervisor(frame: bytes) -> list[FromSupervisor]:
    """Raises msgspec.DecodeError or msgspec.ValidationError."""
    return _from_supervisor.decode(frame)


class FrameBuffer:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that are complete now. Raises FrameTooLarge."""
        self._data += data
        while len(self._data) >= _HEADER_BYTES:
            size = int.from_bytes(self._data[:_HEADER_BYTES], "big")
            if size > MAX_FRAME_BYTES:
                raise FrameTooLarge(f"a frame of {size} bytes")
            end = _HEADER_BYTES + size
            if len(self._data) < end:
                return
            frame = bytes(self._data[_HEADER_BYTES:end])
            del self._data[:end]
            yield frame
