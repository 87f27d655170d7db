"""Digests: managers that have applied the same log have the same one, and any difference in state changes it.

`digest` is of the canonical snapshot alone. A `Digester` takes it chunk by chunk, for a state that goes on changing, and adds
the sums that a snapshot leaves out, since a wrong sum misleads the planner as well as a wrong job does. Not covered are the
tables that only repeat what jobs say and are too large to be read at once: submissions, ends, retries, sizes of outputs
(their lengths are covered where they are the same on every manager).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec
from msgspec import inspect

from hasched.statemachine.snapshot import FORMAT, STREAM_TYPES, VERSION, records
from hasched.statemachine.state import State
from hasched.statemachine.usage import AccountSums

_BYTES = 32


class _NodeSums(msgspec.Struct, frozen=True, array_like=True):
    id: str
    cpu_milli: int
    memory_bytes: int
    gpus: int
    countables: list[tuple[str, int]]
    attempts: int
    disk_bytes: int
    gpu_kinds: list[tuple[int, int]]


class _Sums(msgspec.Struct, frozen=True, array_like=True):
    job_counts: list[int]
    task_counts: list[int]
    submissions: int
    ended: int
    with_output: int
    nodes: list[_NodeSums]
    accounts: list[tuple[str, str, AccountSums]]


def digest(state: State) -> str:
    """BLAKE2b over the canonical snapshot, in hex; costs an encoding of the whole state."""
    hasher = hashlib.blake2b(digest_size=_BYTES)
    for record in records(state):
        hasher.update(record)
    return hasher.hexdigest()


class Digester:
    """Made together with a capture, of the same state, and fed with all its chunks; how they are cut has no meaning."""

    def __init__(self, state: State) -> None:
        self._hasher = hashlib.blake2b(digest_size=_BYTES)
        self._sums = _sum_up(state)

    def add(self, chunk: bytes) -> None:
        self._hasher.update(chunk)

    def finish(self) -> str:
        self._hasher.update(msgspec.msgpack.encode(self._sums))
        return self._hasher.hexdigest()


def _sum_up(state: State) -> _Sums:
    return _Sums(
        job_counts=state.job_counts[:],
        task_counts=state.task_counts[:],
        submissions=len(state.submissions),
        ended=len(state.ended),
        with_output=len(state.output_bytes),
        accounts=[(*key, account.sums()) for key, account in sorted(state.usage.accounts.items()) if account.live],
        nodes=[
            _NodeSums(
                node.id,
                node.allocated_cpu_milli,
                node.allocated_memory_bytes,
                node.allocated_gpus,
                sorted(node.allocated_countables.items()),
                len(node.attempts),
                node.allocated_disk_bytes,
                sorted(node.allocated_gpu_kinds.items()),
            )
            for _, node in sorted(state.nodes.items())
        ],
    )


def _name_scheme() -> str:
    """From the names and fields of everything that is encoded, nested ones included."""
    hasher = hashlib.blake2b(f"{FORMAT} {VERSION} ".encode(), digest_size=8)
    known: dict[str, None] = {}
    waiting = [inspect.type_info(kind) for kind in (*STREAM_TYPES, _Sums)]
    while waiting:
        kind = waiting.pop(0)
        if isinstance(kind, inspect.StructType) and kind.cls.__name__ not in known:
            known[kind.cls.__name__] = None
            hasher.update(f"{kind.cls.__name__}({','.join(field.encode_name for field in kind.fields)})".encode())
            waiting += [field.type for field in kind.fields]
        waiting += _parts(kind)
    return hasher.hexdigest()


def _parts(kind: inspect.Type) -> Iterator[inspect.Type]:
    """What a container is made of."""
    for name in ("item_type", "key_type", "value_type"):
        if (part := getattr(kind, name, None)) is not None:
            yield part
    for name in ("item_types", "types"):
        yield from getattr(kind, name, ())


SCHEME = _name_scheme()  # digests of managers whose release encodes other fields can't be compared
