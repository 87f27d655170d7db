"""The compact record of tasks that ended in their first attempt with nothing unusual about them: 35 bytes each.

Records stand in blocks that are made when the first task of a block ends, so an array that waits costs one byte a task.
Times are kept relative to the job's submission. What doesn't fit (a reason in words, a clock far off, a run of months)
is told to the caller, who keeps a full `AttemptRecord` instead.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, TypeAlias

BLOCK = 256
_RECORD = struct.Struct("<IiIIiBHIQ")
_SIZE = _RECORD.size
_OUTPUT_DROPPED = 0x80  # in the byte of the kind

Blocks: TypeAlias = list[bytearray | None]


class Finished(NamedTuple):
    """One record. `*_after` are milliseconds since the job's submission, `index_after` log entries since it."""

    scheduled_after_ms: int
    ended_after_ms: int  # by the agent's clock, so it may be negative
    duration_ms: int
    index_after: int
    code: int
    packed_kind: int
    node_number: int  # from 1
    cpu_ms: int
    peak_memory_bytes: int

    @property
    def kind(self) -> int:
        return self.packed_kind & ~_OUTPUT_DROPPED

    @property
    def output_dropped(self) -> bool:
        return bool(self.packed_kind & _OUTPUT_DROPPED)


def pack_kind(kind: int, output_dropped: bool) -> int:
    return kind | _OUTPUT_DROPPED if output_dropped else kind


def new_blocks(count: int) -> Blocks:
    return [None] * ((count + BLOCK - 1) // BLOCK)


def put(blocks: Blocks, count: int, index: int, record: tuple[int, ...]) -> bool:
    """Write the record (as in `Finished`) of task `index` of `count`. False, and nothing written, where a value doesn't fit."""
    try:
        packed = _RECORD.pack(*record)
    except struct.error:
        return False
    number, place = divmod(index, BLOCK)
    block = blocks[number]
    if block is None:
        block = blocks[number] = bytearray(_block_bytes(number, count))
    block[place * _SIZE : (place + 1) * _SIZE] = packed
    return True


def get(blocks: Blocks, index: int) -> Finished | None:
    """The record of a task, None where none was written: nodes are numbered from 1, so a written one is never all zeros."""
    number, place = divmod(index, BLOCK)
    block = blocks[number]
    if block is None:
        return None
    record = Finished._make(_RECORD.unpack_from(block, place * _SIZE))
    return record if record.node_number else None


def shorten(blocks: Blocks, count: int) -> None:
    """Keep the records of the first `count` tasks."""
    del blocks[len(new_blocks(count)) :]
    last = len(blocks) - 1
    if (block := blocks[last]) is not None:
        del block[_block_bytes(last, count) :]


def are_whole(blocks: Blocks, count: int) -> bool:
    """Whether these can be the blocks of `count` tasks."""
    return len(blocks) == len(new_blocks(count)) and all(
        block is None or len(block) == _block_bytes(number, count) for number, block in enumerate(blocks)
    )


def _block_bytes(number: int, count: int) -> int:
    return _SIZE * min(BLOCK, count - number * BLOCK)
